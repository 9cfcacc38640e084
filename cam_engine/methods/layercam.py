from __future__ import annotations

from torch import Tensor

from cam_engine.methods.registry import register


@register("layercam", needs=("gradients",))
def layercam(activations: Tensor, gradients: Tensor) -> Tensor:
    """LayerCAM: activations weighted by positive gradients, cell by cell; works at early layers too.

    L = Σ_k relu(g^k) ⊙ A^k. Jiang et al. 2021, IEEE TIP 30, eq. 5 and 6.
    """
    return gradients.relu() * activations
