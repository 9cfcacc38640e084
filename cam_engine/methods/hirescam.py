from __future__ import annotations

from torch import Tensor

from cam_engine.methods.registry import register


@register("hirescam", needs=("gradients",))
def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    """HiResCAM: activation times gradient, cell by cell; shows only cells that did raise the score.

    L = Σ_k g^k ⊙ A^k. Draelos & Carin 2020, arXiv:2011.08891, eq. 6.
    """
    return gradients * activations
