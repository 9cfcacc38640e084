from __future__ import annotations

from torch import Tensor

from cam_engine.methods.registry import register


@register("shapleycam", needs=("gradients", "hessian_vector"))
def shapleycam(activations: Tensor, gradients: Tensor, hessian_vector: Tensor) -> Tensor:
    """ShapleyCAM: channels weighted by their Shapley value, to second order.

    w_k = mean_ij (g − ½ H·A)^k_ij, H the Hessian of the score with respect to the activations. Cai 2025, arXiv:2501.06261,
    eq. 10. Where the score is linear in the activations, H is zero and this is Grad-CAM.
    """
    return (gradients - 0.5 * hessian_vector).mean((2, 3))
