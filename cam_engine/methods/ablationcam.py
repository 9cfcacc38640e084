from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cam_engine.methods.registry import register


@register("ablationcam", needs=("scores", "rescore_activations"))
def ablationcam(activations: Tensor, scores: Tensor, rescore_activations: Callable[..., Tensor]) -> Tensor:
    """Ablation-CAM: channels weighted by how much the score falls without them. No gradients; one forward a channel.

    w_k = (S − S_k) / |S|, S_k the score with channel k set to zero. Desai & Ramaswamy 2020, WACV, eq. 3. The paper divides
    by S, which turns the map upside down where the explained score is negative; dividing by its magnitude does not. A score
    of exactly zero leaves the difference as it is.
    """

    def variant(channels: Tensor) -> Tensor:
        changed = activations[:, None].repeat(1, len(channels), 1, 1, 1)
        changed[:, torch.arange(len(channels)), channels] = 0
        return changed

    without = rescore_activations(variant, activations.shape[1])
    size = scores.abs()[:, None]
    return (scores[:, None] - without) / torch.where(size > 0, size, 1.0)
