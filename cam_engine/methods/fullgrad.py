from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cam_engine.methods.registry import register


@register("fullgrad", needs=("images", "bias_terms"))
def fullgrad(activations: Tensor, images: Tensor, bias_terms: Sequence[Tensor]) -> Tensor:
    """FullGrad: input times gradient, plus bias times gradient of every layer; the map has the images' own resolution.

    L = Σ_t Σ_c ψ(t_c) over the terms t = x ⊙ ∂S/∂x and b_l ⊙ ∂S/∂z_l, ψ the magnitude scaled to [0, 1] channel by channel
    and upsampled. Srinivas & Fleuret 2019, arXiv:1905.00780, eq. 8. The biases are those of convolutions and of batch norms,
    with the running mean's share, once for each time that the layer runs; the layer asked for plays no part.
    """
    total = torch.zeros(len(images), *images.shape[-2:], dtype=activations.dtype, device=activations.device)
    for term in bias_terms:
        size = term.abs()
        low = size.amin((2, 3), keepdim=True)
        span = size.amax((2, 3), keepdim=True) - low
        scaled = (size - low) / torch.where(span == 0, 1.0, span)  # NaN stays NaN
        # Upsampling is linear, so the channels may be summed before it.
        total += F.interpolate(scaled.sum(1, keepdim=True), total.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    return total
