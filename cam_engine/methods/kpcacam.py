from __future__ import annotations

import torch
from torch import Tensor

from cam_engine.methods.eigen import orient, top_eigenvectors
from cam_engine.methods.registry import register

OFFSET = 1.0


@register("kpcacam", options=("component",))
def kpcacam(activations: Tensor, component: int = 0) -> Tensor:
    """KPCA-CAM: the first component of a kernel PCA over the cells. Knows no class.

    K_ij = tanh(x_i·x_j / C + 1) for cells x with channels centred, K centred twice; L = √λ₁·u₁ for its largest eigenvalue.
    Karmani et al. 2024, arXiv:2410.00267, with the sigmoid kernel and scikit-learn's defaults (``KernelPCA``, gamma = 1/C,
    coef0 = 1). The (h·w)² kernel is held in memory. Sign as in :func:`cam_engine.methods.eigen.orient`.
    """
    batch, channels, height, width = activations.shape
    cells = activations.flatten(2).transpose(1, 2)
    cells = cells - cells.mean(1, keepdim=True)
    finite = torch.isfinite(cells).flatten(1).all(1)[:, None]
    cells = torch.where(finite[:, :, None], cells, 0.0)
    kernel = torch.tanh(cells @ cells.transpose(1, 2) / channels + OFFSET)
    rows = kernel.mean(2, keepdim=True)
    kernel = kernel - rows - rows.transpose(1, 2) + rows.mean(1, keepdim=True)
    vector, value = top_eigenvectors(kernel, component)
    projection = orient(vector * value.clamp_min(0).sqrt()[:, None], cells.mean(2))
    return torch.where(finite, projection, float("nan")).reshape(batch, height, width)
