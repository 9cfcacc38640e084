from __future__ import annotations

from torch import Tensor

from cam_engine.methods.registry import register


@register("gradcam_elementwise", needs=("gradients",))
def gradcam_elementwise(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM element-wise: the positive part of activation times gradient, cell by cell and channel by channel.

    L = Σ_k relu(g^k ⊙ A^k). HiResCAM (Draelos & Carin 2020, arXiv:2011.08891, eq. 6) with a ReLU inside the sum, so that
    channels cannot cancel; defined by the grad-cam package.
    """
    product = gradients * activations
    return product * (product > 0)  # a ReLU that makes NaN of −inf, and not a clean zero
