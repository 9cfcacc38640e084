"""What a detector computed: all its rows before suppression, and the few boxes that were kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Raw:
    """Everything a detector predicted for a batch, before suppression, in the graph.

    ``boxes`` (B, N, 4): xyxy in pixels of the model's input. ``classes`` (B, N, K): class scores; a column that is no
    class (background) holds the lowest finite number, so that it is never the best. ``objectness`` (B, N), or None in
    families without one. ``logits``: classes and objectness are logits, not probabilities. ``counts`` (B,)
    int64: rows of each image that are real, where images have different numbers of them; the others are zero boxes.

    >>> from cam_engine.detect import family_of
    >>> raw = family_of(detector).raw(detector(images))
    >>> raw.boxes.shape, raw.classes.shape, raw.logits
    (torch.Size([6, 16, 4]), torch.Size([6, 16, 2]), True)
    """

    boxes: Tensor
    classes: Tensor
    objectness: Tensor | None
    logits: bool
    counts: Tensor | None = None

    def rows(self, image: int) -> int:
        """Number of real rows of an image."""
        return self.boxes.shape[1] if self.counts is None else int(self.counts[image])


@dataclass(frozen=True, eq=False)
class Detections:
    """The boxes of one image that were kept, best first, outside the graph.

    ``boxes`` (n, 4): xyxy in pixels of the model's input. ``labels`` (n,) int64: columns of ``Raw.classes``. ``scores``
    (n,) in [0, 1]. ``rows`` (n,) int64: the row of ``Raw`` that each came from; None for boxes from elsewhere, such as
    annotations. ``corners`` (n, 4, 2): (x, y) of each oriented box's corners, one after the other; ``boxes`` then are the upright
    ones around them. None where boxes are upright.

    >>> from cam_engine.detect import family_of
    >>> found = family_of(detector).detections(detector(images), confidence=0.4)[0]
    >>> found.boxes.shape[1], found.labels.dtype, bool((found.scores.diff() <= 0).all())
    (4, torch.int64, True)
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    rows: Tensor | None = None
    corners: Tensor | None = None

    def __post_init__(self) -> None:
        count = len(self.boxes)
        columns = [self.labels, self.scores] + ([] if self.rows is None else [self.rows])
        if self.boxes.shape != (count, 4) or any(column.shape != (count,) for column in columns):
            shapes = ", ".join(str(tuple(t.shape)) for t in [self.boxes, *columns])
            raise ValueError(f"detections need boxes (n, 4) and labels, scores and rows (n,), not {shapes}.")

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, index: Tensor | Iterable[int]) -> Detections:
        """Some of them: by a bool mask (n,) or by positions."""
        if not isinstance(index, Tensor):
            index = torch.tensor(list(index), dtype=torch.int64)
        index = index.to(self.boxes.device)
        rows = None if self.rows is None else self.rows[index]
        corners = None if self.corners is None else self.corners[index]
        return Detections(self.boxes[index], self.labels[index], self.scores[index], rows, corners)

    def of_classes(self, classes: Iterable[int]) -> Detections:
        """Those whose label is one of ``classes``."""
        return self.select(torch.isin(self.labels, torch.tensor(sorted(classes), device=self.labels.device)))
