from __future__ import annotations

from torch import Tensor

from cam_engine.methods.registry import register


@register("gradcam", needs=("gradients",))
def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM: channels weighted by their mean gradient.

    w_k = mean_ij g^k_ij, L = Σ_k w_k A^k. Selvaraju et al. 2017, arXiv:1610.02391, eq. 1 and 2.
    """
    return gradients.mean((2, 3))
