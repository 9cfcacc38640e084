from __future__ import annotations

import torch
from torch import Tensor

from cam_engine.methods.registry import register


@register("smoothgradcam++", needs=("gradient_moments",))
def smoothgradcampp(activations: Tensor, gradient_moments: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Smooth Grad-CAM++: Grad-CAM++ with derivatives averaged over noisy copies of the image.

    w_k = Σ_ij α^k_ij relu(D1), α = D2 / (2·D2 + ΣA·D3), D1 to D3 the means of g, g² and g³ over the copies, the sum over the
    cells. Omeiza et al. 2019, arXiv:1908.01224, eq. 7. A cell whose denominator is not above 0 (activations of both signs) gets
    α = 0, and so does one without any gradient.
    """
    first, second, third = gradient_moments
    denominator = 2 * second + (activations * third).sum((2, 3), keepdim=True)
    counted = denominator > 0
    alpha = torch.where(counted, second / torch.where(counted, denominator, 1.0), 0.0)
    return (alpha * first.relu()).sum((2, 3))
