from __future__ import annotations

from torch import Tensor

from cam_engine.methods.eigen import principal_map
from cam_engine.methods.registry import register


@register("eigengradcam", needs=("gradients",), options=("component", "center"))
def eigengradcam(activations: Tensor, gradients: Tensor, component: int = 0, center: bool = True) -> Tensor:
    """EigenGradCAM: the first principal component of activation × gradient, so that the map knows the class.

    L = M·v₁ with M the (h·w, C) products A·g, centred per channel. After Muhammad & Yeasin 2020; defined by the
    grad-cam package, there is no paper of its own.
    """
    return principal_map(activations * gradients, component=component, center=center)
