from __future__ import annotations

from torch import Tensor

from cam_engine.methods.registry import register

SIGMAS = 2.0
ROUNDING = 1e-6


@register("fem")
def fem(activations: Tensor) -> Tensor:
    """FEM, the feature explanation method: channels weighted by the share of cells in which they stand out. Knows no class.

    w_k = mean_ij [A^k_ij > μ_k + 2σ_k], μ and σ over the channel's cells. Fuad et al. 2020, IPTA, section III. In a channel
    that is constant up to rounding (σ at most 1e-6 of |μ|) nothing stands out; on a grid of five cells or fewer nothing can.
    """
    mean = activations.mean((2, 3), keepdim=True)
    deviation = activations.std((2, 3), correction=0, keepdim=True)
    stands_out = (activations > mean + SIGMAS * deviation) & (deviation > ROUNDING * mean.abs())
    return stands_out.to(activations.dtype).mean((2, 3))
