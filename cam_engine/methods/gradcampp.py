from __future__ import annotations

import torch
from torch import Tensor

from cam_engine.methods.registry import register


@register("gradcam++", needs=("gradients",))
def gradcampp(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM++: gradients weighted by cell before they are summed, which keeps several objects of a class visible.

    L = Σ_k w_k A^k, w_k = Σ_ij α^k_ij relu(g^k_ij). For an exponential score the paper's fraction is
    α = g² / (2g² + ΣA·g³), the sum over the cells of A alone, g at the cell (Chattopadhyay et al. 2018,
    arXiv:1710.11063, eq. 19). Only cells with g > 0 count, and there it is α = 1 / (2 + ΣA·g), which needs no eps. For
    activations of both signs the denominator can reach zero or fall below it, where the paper's derivation says
    nothing; such a cell gets α = 0.
    """
    total = activations.sum((2, 3), keepdim=True)
    denominator = 2 + total * gradients
    left_out = (gradients <= 0) | (denominator <= 0)  # false for NaN, which has to stay
    alpha_times_gradient = torch.where(left_out, 0.0, gradients / torch.where(left_out, 1.0, denominator))
    return alpha_times_gradient.sum((2, 3))
