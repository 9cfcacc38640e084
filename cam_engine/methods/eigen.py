"""Principal components of an activation matrix, with a sign that means something."""

from __future__ import annotations

import torch
from torch import Tensor


def principal_map(features: Tensor, *, component: int = 0, center: bool = True) -> Tensor:
    """Project every cell on a principal component of the channels: (B, C, h, w) → (B, h, w).

    The matrix decomposed is cells × channels, M = features as (h·w, C), each channel centred over the cells unless
    ``center`` is False. The map is M·v = σ·u for its ``component``-th right singular vector v (counted from 0). It
    comes from the eigenvectors of the smaller Gram matrix, never from a full SVD.

    A singular vector's sign is arbitrary, and a flip between two epochs would look like total drift: the map is
    oriented to correlate positively with the channel mean of M; where that correlation is zero, so that its entry of
    largest magnitude is positive.

    Raises:
        ValueError: ``component`` is not below min(h·w, C).
    """
    batch, channels, height, width = features.shape
    if not 0 <= component < min(channels, height * width):
        raise ValueError(
            f"component={component} asked of activations with {channels} channels on a {height}x{width} grid; "
            f"there are {min(channels, height * width)}, counted from 0."
        )
    matrix = features.flatten(2).transpose(1, 2)
    size = matrix.flatten(1).norm(dim=1)
    if center:
        matrix = matrix - matrix.mean(1, keepdim=True)
    # What centring leaves of a constant map is rounding; a direction in it would be noise shown as focus.
    rounding = matrix.flatten(1).norm(dim=1) <= 1e-6 * size
    finite = torch.isfinite(size)
    usable = (finite & ~rounding)[:, None, None]
    matrix = torch.where(usable, matrix, torch.zeros((), dtype=matrix.dtype, device=matrix.device))
    projection = _project(matrix, component)
    projection = orient(projection, matrix.mean(2))
    nan = torch.full((), float("nan"), dtype=projection.dtype, device=projection.device)
    projection = torch.where(finite[:, None], projection, nan)
    return projection.reshape(batch, height, width)


def orient(projection: Tensor, mean: Tensor) -> Tensor:
    """Flip (B, n) maps so that they correlate positively with ``mean`` (B, n), the channel mean of the matrix decomposed."""
    a = projection - projection.mean(1, keepdim=True)
    b = mean - mean.mean(1, keepdim=True)
    correlation = (a * b).sum(1)
    zero = correlation.abs() <= 1e-6 * a.norm(dim=1) * b.norm(dim=1)
    peak = projection.gather(1, projection.abs().argmax(1, keepdim=True)).squeeze(1)
    sign = torch.where(zero, peak, correlation).sign()
    return projection * torch.where(sign == 0, torch.ones_like(sign), sign)[:, None]


def _project(matrix: Tensor, component: int) -> Tensor:
    """σ·u of (B, n, C) matrices for the component-th singular triple: (B, n)."""
    _, cells, channels = matrix.shape
    scale = matrix.flatten(1).abs().amax(1)[:, None, None].clamp_min(torch.finfo(matrix.dtype).tiny)
    unit = matrix / scale  # squares of very small or large activations would leave float32's range
    if cells <= channels:
        values, vectors = torch.linalg.eigh(unit @ unit.transpose(1, 2))
        sigma = values[:, -1 - component].clamp_min(0).sqrt()
        projection = vectors[:, :, -1 - component] * sigma[:, None]
    else:
        _, vectors = torch.linalg.eigh(unit.transpose(1, 2) @ unit)
        projection = (unit @ vectors[:, :, -1 - component, None]).squeeze(2)
    return projection * scale[:, :, 0]
