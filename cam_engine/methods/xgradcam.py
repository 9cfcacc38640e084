from __future__ import annotations

import torch
from torch import Tensor

from cam_engine.methods.registry import register

EPS = 1e-7


@register("xgradcam", needs=("gradients",))
def xgradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """XGrad-CAM: channels weighted by their activation-weighted mean gradient.

    L = Σ_k w_k A^k, w_k = Σ_ij A^k_ij g^k_ij / ΣA^k. Fu et al. 2020, arXiv:2008.02312, eq. 8.
    ΣA^k can be near zero where activations have both signs, and the weight is then without bound: a channel whose |ΣA|
    is at most 1e-7 of Σ|A| gets weight 0.
    """
    total = activations.sum((2, 3))
    counted = total.abs() > EPS * activations.abs().sum((2, 3))
    weights = (activations * gradients).sum((2, 3)) / torch.where(counted, total, 1.0)
    return torch.where(counted, weights, 0.0)
