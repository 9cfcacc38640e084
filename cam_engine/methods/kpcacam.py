from __future__ import annotations

import math

import torch
from torch import Tensor

from cam_engine.methods.eigen import cell_energy, orient, top_eigenvectors
from cam_engine.methods.registry import register

OFFSET = 1.0
ROUNDING = 1e-6


@register("kpcacam", options=("component",))
def kpcacam(activations: Tensor, component: int = 0) -> Tensor:
    """KPCA-CAM: the first component of a kernel PCA over the cells. Knows no class.

    K_ij = tanh(x_i·x_j / C + 1) for cells x with channels centred, K centred twice; L = √λ₁·u₁ for its largest eigenvalue.
    Karmani et al. 2024, arXiv:2410.00267, with the sigmoid kernel and scikit-learn's defaults (``KernelPCA``, gamma = 1/C,
    coef0 = 1). The (h·w)² kernel of one image at a time is held in memory. Sign by
    :func:`cam_engine.methods.eigen.cell_energy`.

    Raises:
        ValueError: ``component`` is not below h·w.
    """
    height, width = activations.shape[-2:]
    if not 0 <= component < height * width:
        raise ValueError(
            f"component={component} asked of a kernel over a {height}x{width} grid; there are {height * width}, counted from 0."
        )
    return torch.cat([_projection(image, component) for image in activations.split(1)])


def _projection(activations: Tensor, component: int) -> Tensor:
    """Of one image: (1, C, h, w) to (1, h, w)."""
    _, channels, height, width = activations.shape
    scale = activations.abs().amax().clamp_min(torch.finfo(activations.dtype).tiny)
    energy = cell_energy((activations / scale).flatten(2))
    cells = activations.flatten(2).transpose(1, 2)
    size = cells.flatten(1).norm(dim=1)
    cells = cells - cells.mean(1, keepdim=True)
    # What centring leaves of a constant map is rounding; a direction in it would be noise shown as focus.
    constant = (cells.flatten(1).norm(dim=1) <= ROUNDING * size)[:, None]
    finite = torch.isfinite(cells).flatten(1).all(1)[:, None]
    cells = torch.where(finite[:, :, None], cells, 0.0)
    # tanh(d + 1) − tanh(1), by the addition theorem: centring takes the constant away anyhow, and small activations would
    # drown in its rounding.
    similarity, offset = torch.tanh(cells @ cells.transpose(1, 2) / channels), math.tanh(OFFSET)
    kernel = similarity * (1 - offset**2) / (1 + similarity * offset)
    rows = kernel.mean(2, keepdim=True)
    kernel = kernel - rows - rows.transpose(1, 2) + rows.mean(1, keepdim=True)
    vector, value = top_eigenvectors(kernel, component)
    projection = orient(vector * value.clamp_min(0).sqrt()[:, None], energy)
    projection = torch.where(constant, 0.0, projection)
    return torch.where(finite, projection, float("nan")).reshape(1, height, width)
