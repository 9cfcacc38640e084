from __future__ import annotations

from torch import Tensor

from cam_engine.methods.eigen import principal_map
from cam_engine.methods.registry import register


@register("eigencam", options=("component", "center"))
def eigencam(activations: Tensor, component: int = 0, center: bool = True) -> Tensor:
    """EigenCAM: the cells' projection on the first principal component of the activations. Knows no class.

    L = M·v₁, M the (h·w, C) activations, centred per channel; sign as in
    :func:`cam_engine.methods.eigen.principal_map`. Muhammad & Yeasin 2020, arXiv:2008.00299, eq. 3. The paper
    decomposes without centring; ``center=False`` does that.
    """
    return principal_map(activations, component=component, center=center)
