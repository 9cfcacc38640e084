from __future__ import annotations

from torch import Tensor

from cam_engine.methods.registry import register
from cam_engine.methods.weighting import weighted_sum


@register("gradcam", needs=("gradients",))
def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM: channels weighted by their mean gradient.

    L = Σ_k w_k A^k, w_k = mean_ij g^k_ij. Selvaraju et al. 2017, arXiv:1610.02391, eq. 1 and 2.
    """
    return weighted_sum(gradients.mean((2, 3)), activations)
