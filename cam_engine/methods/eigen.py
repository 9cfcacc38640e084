"""Principal components of an activation matrix, with a sign that means something."""

from __future__ import annotations

from collections.abc import Callable

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


def top_eigenvectors(matrices: Tensor, component: int = 0) -> tuple[Tensor, Tensor]:
    """Unit eigenvector (B, n) and eigenvalue (B,) of symmetric matrices (B, n, n), ``component`` counted from the largest."""
    if matrices.shape[1] <= DIRECT:
        return _direct(matrices, component)
    return _krylov(lambda x: matrices @ x, matrices, component) or _direct(matrices, component)


def _project(matrix: Tensor, component: int) -> Tensor:
    """σ·u of (B, n, C) matrices for the component-th singular triple: (B, n)."""
    _, cells, channels = matrix.shape
    scale = matrix.flatten(1).abs().amax(1)[:, None, None].clamp_min(torch.finfo(matrix.dtype).tiny)
    unit = matrix / scale  # squares of very small or large activations would leave float32's range
    tall = unit if cells >= channels else unit.transpose(1, 2)
    found = None
    if tall.shape[2] > DIRECT:
        found = _krylov(lambda x: tall.transpose(1, 2) @ (tall @ x), tall, component)
    vector, value = found or _direct(tall.transpose(1, 2) @ tall, component)
    if cells >= channels:
        projection = (tall @ vector[:, :, None]).squeeze(2)
    else:
        projection = vector * value.clamp_min(0).sqrt()[:, None]
    return projection * scale[:, :, 0]


def _direct(matrices: Tensor, component: int) -> tuple[Tensor, Tensor]:
    """From the whole decomposition."""
    values, vectors = torch.linalg.eigh(matrices)
    return vectors[:, :, -1 - component], values[:, -1 - component]


def _krylov(apply: Callable[[Tensor], Tensor], like: Tensor, component: int) -> tuple[Tensor, Tensor] | None:
    """By block Krylov iteration with Rayleigh–Ritz (Musco & Musco 2015, arXiv:1504.05477, algorithm 2).

    A whole decomposition costs the matrix's side cubed; this costs a few products with it, ``apply``: (B, n, k) →
    (B, n, k), n the last dimension of ``like``. A block wider than what is asked for keeps eigenvalues that lie close
    together apart. On the CPU it stops when the residual is at float32's rounding, and gives up (None) where it stays far
    above; elsewhere that test would wait for the device, and a fixed number of rounds is run.
    """
    batch, side = like.shape[0], like.shape[2]
    width = min(side, component + BLOCK)
    start = torch.randn(side, width, generator=torch.Generator().manual_seed(0)).to(like)
    block = start.expand(batch, side, width)
    vector, value = block[:, :, 0], block[:, 0, 0]
    on_cpu = like.device.type == "cpu"
    last = float("inf")
    for _ in range(ROUNDS if on_cpu else ROUNDS // 4):
        basis = torch.linalg.qr(block)[0]
        images = apply(basis)
        for _ in range(DEPTH - 1):
            new = images[:, :, -width:]
            for _ in range(2):  # twice is enough for orthogonality to rounding
                new = new - basis @ (basis.transpose(1, 2) @ new)
            new = torch.linalg.qr(new)[0]
            basis, images = torch.cat([basis, new], 2), torch.cat([images, apply(new)], 2)
        projected = basis.transpose(1, 2) @ images
        values, vectors = torch.linalg.eigh((projected + projected.transpose(1, 2)) / 2)
        block = basis @ vectors[:, :, -width:]
        vector, value = block[:, :, -1 - component], values[:, -1 - component]
        if on_cpu:
            image = (images @ vectors[:, :, -1 - component, None]).squeeze(2)
            size = values.abs().amax(1).clamp_min(torch.finfo(values.dtype).tiny)
            worst = float(((image - value[:, None] * vector).norm(dim=1) / size).max())
            if worst < RESIDUAL:
                break
            if worst > 0.9 * last:  # no longer falling: at rounding, or eigenvalues too close together for this width
                if worst > HOPELESS:
                    return None
                break
            last = worst
    return vector, value
