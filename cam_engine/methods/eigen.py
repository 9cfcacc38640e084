"""Principal components of an activation matrix, with a sign that means something."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

DIRECT = 96  # largest Gram matrix that is decomposed as a whole
BLOCK, DEPTH, ROUNDS = 4, 6, 16
RESIDUAL, HOPELESS = 1e-6, 3e-5


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
    scale = features.abs().amax((1, 2, 3))
    finite = torch.isfinite(scale)
    # Squares of very small or large activations would leave float32's range. M is held transposed, as it lies in memory.
    matrix = (features / scale.clamp_min(torch.finfo(scale.dtype).tiny)[:, None, None, None]).flatten(2)
    size = matrix.flatten(1).norm(dim=1)
    if center:
        matrix -= matrix.mean(2, keepdim=True)
    # What centring leaves of a constant map is rounding; a direction in it would be noise shown as focus.
    rounding = matrix.flatten(1).norm(dim=1) <= 1e-6 * size
    matrix.masked_fill_((rounding | ~finite)[:, None, None], 0)
    projection = orient(_project(matrix, component), matrix.mean(1)) * scale[:, None]
    projection = projection.masked_fill(~finite[:, None], float("nan"))
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
    return _krylov(lambda rows: rows @ matrices, matrices, component) or _direct(matrices, component)


def _project(matrix: Tensor, component: int) -> Tensor:
    """σ·u, along the cells, of (B, C, n) matrices for the component-th singular triple: (B, n)."""
    _, channels, cells = matrix.shape
    wide = matrix if channels <= cells else matrix.transpose(1, 2)  # its rows are the smaller side
    found = None
    if wide.shape[1] > DIRECT:
        found = _krylov(lambda rows: (rows @ wide) @ wide.transpose(1, 2), wide.transpose(1, 2), component)
    vector, value = found or _direct(wide @ wide.transpose(1, 2), component)
    if channels <= cells:
        return (vector[:, None] @ wide).squeeze(1)
    return vector * value.clamp_min(0).sqrt()[:, None]


def _direct(matrices: Tensor, component: int) -> tuple[Tensor, Tensor]:
    """From the whole decomposition."""
    try:
        values, vectors = torch.linalg.eigh(matrices)
    except torch.linalg.LinAlgError:  # eigenvalues too close together for float32
        values, vectors = (part.to(matrices.dtype) for part in torch.linalg.eigh(matrices.double()))
    return vectors[:, :, -1 - component], values[:, -1 - component]


def _krylov(apply: Callable[[Tensor], Tensor], like: Tensor, component: int) -> tuple[Tensor, Tensor] | None:
    """By block Krylov iteration with Rayleigh–Ritz (Musco & Musco 2015, arXiv:1504.05477, algorithm 2).

    A whole decomposition costs the matrix's side cubed; this costs a few products with it, ``apply``: (B, k, n) →
    (B, k, n), n the last dimension of ``like``. Vectors are held as rows, with which those products are several times
    faster than with a few columns. A block wider than what is asked for keeps eigenvalues that lie close together apart.
    On the CPU it stops when the residual is at float32's rounding, and gives up (None) where it stays far above;
    elsewhere that test would wait for the device, and a fixed number of rounds is run.
    """
    batch, side = like.shape[0], like.shape[2]
    width = component + BLOCK
    depth = min(DEPTH, side // width)  # a basis has no more directions than the space
    if depth < 2:
        return None
    start = torch.randn(side, width, generator=torch.Generator().manual_seed(0)).to(like)
    block = start.T.expand(batch, width, side)
    vector, value = block[:, 0], block[:, 0, 0]
    on_cpu = like.device.type == "cpu"
    last = float("inf")
    for _ in range(ROUNDS if on_cpu else ROUNDS // 4):
        basis = _orthonormal(block)
        images = apply(basis)
        for _ in range(depth - 1):
            new = images[:, -width:]
            for _ in range(2):  # twice is enough for orthogonality to rounding
                new = new - (new @ basis.transpose(1, 2)) @ basis
            new = _orthonormal(new)
            basis, images = torch.cat([basis, new], 1), torch.cat([images, apply(new)], 1)
        projected = images @ basis.transpose(1, 2)
        values, vectors = torch.linalg.eigh((projected + projected.transpose(1, 2)) / 2)
        rows = vectors.transpose(1, 2)
        block = rows[:, -width:] @ basis
        vector, value = block[:, -1 - component], values[:, -1 - component]
        if on_cpu:
            image = (rows[:, -1 - component, None] @ images).squeeze(1)
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


def _orthonormal(rows: Tensor) -> Tensor:
    return torch.linalg.qr(rows.transpose(1, 2))[0].transpose(1, 2)
