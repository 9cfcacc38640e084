from __future__ import annotations

from torch import Tensor

from cam_engine.methods.registry import register


@register("cam", needs=("class_weights",))
def cam(activations: Tensor, class_weights: Tensor) -> Tensor:
    """CAM, the original: channels weighted by the explained class's weights in the final linear layer.

    w_k = W_ck, for a network that ends in global average pooling and one linear layer. Zhou et al. 2016, arXiv:1512.04150,
    eq. 2.
    """
    return class_weights
