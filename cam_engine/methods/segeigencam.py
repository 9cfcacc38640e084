from __future__ import annotations

from torch import Tensor

from cam_engine.methods.eigen import principal_map
from cam_engine.methods.registry import register


@register("segeigencam", needs=("gradients",), options=("component", "center"))
def segeigencam(activations: Tensor, gradients: Tensor, component: int = 0, center: bool = True) -> Tensor:
    """Seg-Eigen-CAM: the first principal component of activation times the gradient's magnitude.

    L = M·v₁ with M the (h·w, C) products |g|·A, centred per channel. Chung & Ying 2025, Appl. Sci. 15(13) 7562, eq. 10 to
    12. The paper turns the map so that its largest magnitude is positive (eq. 13); here it is oriented as all eigen methods
    are, by :func:`cam_engine.methods.eigen.orient`, because a single extreme cell can change sides between two epochs.
    """
    return principal_map(gradients.abs() * activations, component=component, center=center)
