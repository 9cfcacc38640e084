"""Principal components of an activation matrix, with a sign that means something."""

from __future__ import annotations

import torch
from torch import Tensor

DIRECT = 96  # largest Gram matrix that is decomposed as a whole
BLOCK, DEPTH, ROUNDS = 4, 4, 24
RESIDUAL, HOPELESS = 2e-6, 3e-5


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
    tall = unit if cells >= channels else unit.transpose(1, 2)
    vector, image, value = _direct(tall, component) if tall.shape[2] <= DIRECT else _krylov(tall, component)
    projection = image if cells >= channels else vector * value.clamp_min(0).sqrt()[:, None]
    return projection * scale[:, :, 0]


def _direct(tall: Tensor, component: int) -> tuple[Tensor, Tensor, Tensor]:
    """v, M·v and λ of MᵀM, from its whole decomposition."""
    values, vectors = torch.linalg.eigh(tall.transpose(1, 2) @ tall)
    vector = vectors[:, :, -1 - component]
    return vector, (tall @ vector[:, :, None]).squeeze(2), values[:, -1 - component]


def _krylov(tall: Tensor, component: int) -> tuple[Tensor, Tensor, Tensor]:
    """v, M·v and λ of MᵀM by block Krylov iteration with Rayleigh–Ritz (Musco & Musco 2015, arXiv:1504.05477, algorithm 2).

    A decomposition of MᵀM costs its side cubed; this costs a few products with M. A block wider than what is asked for keeps
    singular values that lie close together apart. On the CPU it stops when the residual is at float32's rounding; elsewhere
    that test would wait for the device, and a fixed number of rounds is run.
    """
    batch, _, side = tall.shape
    width = min(side, component + BLOCK)
    start = torch.randn(side, width, generator=torch.Generator().manual_seed(0)).to(tall)
    block = start.expand(batch, side, width)
    last = float("inf")
    for _ in range(ROUNDS):
        basis = torch.linalg.qr(block)[0]
        images = tall @ basis
        for _ in range(DEPTH - 1):
            new = tall.transpose(1, 2) @ images[:, :, -width:]
            for _ in range(2):  # twice is enough for orthogonality to rounding
                new = new - basis @ (basis.transpose(1, 2) @ new)
            new = torch.linalg.qr(new)[0]
            basis, images = torch.cat([basis, new], 2), torch.cat([images, tall @ new], 2)
        values, vectors = torch.linalg.eigh(images.transpose(1, 2) @ images)
        block, image_block = basis @ vectors[:, :, -width:], images @ vectors[:, :, -width:]
        if tall.device.type == "cpu":
            residual = tall.transpose(1, 2) @ image_block[:, :, -1 - component, None]
            residual = residual.squeeze(2) - values[:, -1 - component, None] * block[:, :, -1 - component]
            worst = float((residual.norm(dim=1) / values[:, -1].clamp_min(torch.finfo(values.dtype).tiny)).max())
            if worst < RESIDUAL:
                break
            if (
                worst > 0.9 * last
            ):  # no longer falling: at rounding, or singular values too close together for this width
                if worst > HOPELESS:
                    return _direct(tall, component)
                break
            last = worst
    return block[:, :, -1 - component], image_block[:, :, -1 - component], values[:, -1 - component]
