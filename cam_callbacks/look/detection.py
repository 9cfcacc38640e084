"""Which score of a detector is explained: how surely it finds what is in the probe's boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cam_callbacks.probe import ProbeSet
from cam_engine.detect import Family, Raw

TOP = 10  # rows of a box, as many as YOLO's assigner trains for one object
FLOOR = 1e-12  # a probability below it counts as this


class ProbeBoxTarget:
    """How surely a detector finds what is in the probe's boxes: ``(outputs) -> Tensor (B,)``.

    For each box, the mean of the ten largest logits of its class, among the rows whose predicted box has its centre
    inside (of a box so small that there is none, the row with the nearest centre); then the mean over the image's boxes.
    An image without boxes: the ten largest logits of its label anywhere, or of any class where it has no label.

    The class is the true one and the place is where the object is, at every epoch. Explaining what the model detects
    would compare maps of different things: an untrained detector finds nothing, or something else.

    Args:
        probe: With boxes; ``box_labels`` where it has them, else each box has the image's label.
        family: Where the rows lie in the outputs.
        images: Which of the probe's images the outputs are of, in that order; by default all.
    """

    def __init__(self, probe: ProbeSet, family: Family, images: Sequence[int] | None = None) -> None:
        n = len(probe)
        self.probe, self.family = probe, family
        self.images = range(n) if images is None else images
        self._boxes = [torch.zeros(0, 4)] * n if probe.boxes is None else [torch.from_numpy(b) for b in probe.boxes]
        self._labels: list[int | None] = [None] * n if probe.labels is None else [int(c) for c in probe.labels]
        self._box_labels: Sequence[Sequence[int | None]] = probe.box_labels or [
            [label] * len(boxes) for label, boxes in zip(self._labels, self._boxes, strict=True)
        ]

    def of_images(self, indices: Sequence[int]) -> ProbeBoxTarget:
        """The same for a batch of some of the probe's images."""
        return ProbeBoxTarget(self.probe, self.family, indices)

    def __call__(self, outputs: Any) -> Tensor:
        raw = self.family.raw(outputs)
        if len(raw.boxes) != len(self.images):
            raise ValueError(f"the detector returned {len(raw.boxes)} images, the target has {len(self.images)}.")
        return torch.stack([self._score(raw, row, image) for row, image in enumerate(self.images)])

    def _score(self, raw: Raw, row: int, image: int) -> Tensor:
        count = raw.rows(row)
        levels = raw.classes[row, :count]
        if not raw.logits:
            objectness = 1.0 if raw.objectness is None else raw.objectness[row, :count, None]
            levels = (levels * objectness).clamp(min=FLOOR).log()
        predicted = raw.boxes[row, :count].detach()
        boxes = self._boxes[image].to(predicted)
        if not len(boxes) or not count:
            return _largest(levels, self._labels[image])
        centres, middles = ((b[:, :2] + b[:, 2:]) / 2 for b in (predicted, boxes))
        inside = ((centres > boxes[:, None, :2]) & (centres < boxes[:, None, 2:])).all(2)
        nearest = torch.cdist(middles, centres).argmin(1, keepdim=True)
        inside = torch.where(inside.any(1, keepdim=True), inside, torch.zeros_like(inside).scatter(1, nearest, True))
        labels = self._box_labels[image]
        return torch.stack([_largest(levels[rows], c) for rows, c in zip(inside, labels, strict=True)]).mean()


def _largest(levels: Tensor, label: int | None) -> Tensor:
    """Mean of the ten largest of (n, K) logits of a class, or of any; 0, with a gradient of zeros, of no rows."""
    values = (levels if label is None else levels[:, label]).flatten()
    return values.topk(min(TOP, len(values))).values.mean() if len(values) else values.sum()
