from __future__ import annotations

import torch
from torch import Tensor

from cam_engine.methods.registry import register


@register("smoothgradcam++", needs=("gradient_moments",))
def smoothgradcampp(activations: Tensor, gradient_moments: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Smooth Grad-CAM++: Grad-CAM++ with derivatives averaged over noisy copies of the image.

    w_k = Σ_ij α^k_ij relu(D1), α = D2 / (2·D2 + ΣA·D3), D1 to D3 the means of g, g² and g³ at the cell over the copies, the sum
    over the cells of A alone. After Omeiza et al. 2019, arXiv:1908.01224, section 3, which prints D1 as α's numerator; with D2
    α has no unit, and without noise this is Grad-CAM++. (torchcam takes D3 into the sum over the cells.) A cell whose
    denominator is not above 0 (activations of both signs) gets α = 0, and so does one without any gradient.
    """
    first, second, third = gradient_moments
    denominator = 2 * second + activations.sum((2, 3), keepdim=True) * third
    left_out = denominator <= 0  # false for NaN, which has to stay
    alpha = torch.where(left_out, 0.0, second / torch.where(left_out, 1.0, denominator))
    return (alpha * first.relu()).sum((2, 3))
