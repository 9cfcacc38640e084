"""Targets that know each image of the probe: its true labels, its true region. ``of_images`` is the target of a batch of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cam_engine.targets import MaskTarget, MultiLabelTarget
from cam_engine.targets.multilabel import Together


@dataclass(frozen=True, eq=False)
class TrueLabels:
    """The true labels of each image as one score (:class:`cam_engine.targets.MultiLabelTarget`). ``sets``: (N, K) bool."""

    sets: Tensor
    together: Together = "max"

    def of_images(self, images: Sequence[int]) -> TrueLabels:
        return TrueLabels(self.sets[list(images)], self.together)

    def __call__(self, outputs: Any) -> Tensor:
        return MultiLabelTarget(self.sets, self.together)(outputs)


@dataclass(frozen=True, eq=False)
class TrueRegions:
    """The mean score of a class of each image, where it truly is (:class:`cam_engine.targets.MaskTarget`).

    ``classes``: (N,) int64, −1 for an image without, whose score is 0 without gradient. ``regions``: (N, H, W) bool.
    """

    classes: Tensor
    regions: Tensor

    def of_images(self, images: Sequence[int]) -> TrueRegions:
        return TrueRegions(self.classes[list(images)], self.regions[list(images)])

    def __call__(self, outputs: Any) -> Tensor:
        return MaskTarget(self.classes.clamp(min=0), self.regions)(outputs)


@dataclass(frozen=True)
class LargestPredicted:
    """The mean score of the class that a segmenter names most often in an image, background (class 0) last, where it does."""

    def __call__(self, outputs: Tensor) -> Tensor:
        count = max(outputs.shape[1], 2)
        dense = (outputs[:, 0] > 0).long() if outputs.shape[1] == 1 else outputs.detach().argmax(1)
        sizes = torch.stack([(dense == c).flatten(1).sum(1) for c in range(count)], 1)
        classes = torch.where(sizes[:, 1:].any(1), sizes[:, 1:].argmax(1) + 1, 0)
        return MaskTarget(classes, dense == classes[:, None, None])(outputs)


@dataclass(frozen=True)
class NoScoreOf:
    """For outputs that hold no score: zeros, so that methods which need none can be asked. ``count``: of the images."""

    count: int = 0

    def of_images(self, images: Sequence[int]) -> NoScoreOf:
        return NoScoreOf(len(images))

    def __call__(self, outputs: Any) -> Tensor:
        return torch.zeros(self.count)
