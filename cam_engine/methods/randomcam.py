from __future__ import annotations

import torch
from torch import Generator, Tensor

from cam_engine.methods.registry import register


@register("randomcam", needs=("generator",))
def randomcam(activations: Tensor, generator: Generator) -> Tensor:
    """RandomCAM: channels weighted at random, the floor that every localisation number has to beat.

    w_k uniform in [-1, 1], seeded, and the same for every image, so that a map does not depend on the batch around it.
    Defined by the grad-cam package as a sanity baseline (after Adebayo et al. 2018, arXiv:1810.03292).
    """
    weights = torch.rand(1, activations.shape[1], generator=generator) * 2 - 1
    return weights.to(activations).expand(len(activations), -1)
