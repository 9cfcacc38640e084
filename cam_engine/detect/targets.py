"""The score of detected boxes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from cam_engine.detect.boxes import overlaps
from cam_engine.detect.family import Family
from cam_engine.detect.raw import Detections, Raw

Matching = Literal["exact", "overlap"]

ITEMS = ("class", "confidence", "class_confidence", "x_center", "y_center", "width", "height", "mask")
MATCHINGS = ("exact", "overlap")
FLOOR = 1e-12  # what is below has no logarithm; it counts as this, and has no gradient


class BoxTarget:
    """The score of boxes, summed over the boxes of each image: ``(outputs) -> Tensor (B,)``.

    For each box, rows of the raw output are taken with weights that sum to one. *exact*: the row that the box came from.
    *overlap*: the ``k`` rows that overlap it most, of these the ones whose best class is the box's, weighted by the
    softmax of their overlap (the YOLOv5 explainer's way; for boxes without a row, such as annotations). A box with no such
    row adds nothing. Of those rows the items are:

    - ``class``: the logit of the box's class where the family gives logits, else the logarithm of its probability;
    - ``confidence``: the same of the objectness; in families without one, that is ``class``;
    - ``class_confidence``: the sum of both, which of probabilities is the logarithm of their product;
    - ``x_center``, ``y_center``, ``width``, ``height``: the logarithm of that number of pixels;
    - ``mask``: the mean of the instance's mask logits inside its own predicted mask (always the box's own row).

    Averages are taken over rows first, as the YOLOv5 explainer does: log Σ w p. A number below 1e-12 counts as 1e-12. An
    image without boxes has score zero, and a gradient of zeros.

    Args:
        detections: The boxes of each image: one :class:`Detections` for each, or a single one for a batch of one.
        items: One name or several. As a target of its own, several are averaged as scores;
            :func:`cam_engine.detect.explain_detections` averages their maps. :meth:`split` gives one target for each.
        matching: ``"exact"`` or ``"overlap"``.
        k: Rows for each box in *overlap*; where there are fewer, all of them.
        family: Where the rows lie in the outputs: :func:`cam_engine.detect.family_of`.
        classes: Only boxes of these classes, by name or index; None: all.

    Raises:
        ValueError: An unknown item or way to match, or *exact* for boxes without rows.
        UnknownNameError: (a KeyError) an unknown class name.

    >>> from cam_engine.detect import BoxTarget, family_of
    >>> family, outputs = family_of(detector), detector(images)
    >>> target = BoxTarget(family.detections(outputs, confidence=0.4), family=family)
    >>> target(outputs).shape
    torch.Size([6])
    """

    def __init__(
        self,
        detections: Detections | Sequence[Detections],
        items: str | Sequence[str] = ("class",),
        matching: Matching = "exact",
        k: int = 10,
        *,
        family: Family,
        classes: str | int | Iterable[str | int] | None = None,
    ) -> None:
        self.items = (items,) if isinstance(items, str) else tuple(items)
        unknown = [item for item in self.items if item not in ITEMS]
        if unknown or not self.items:
            what = f"holds {unknown[0]!r}" if unknown else "is empty"
            raise ValueError(f"items= {what}; it takes one or several of {', '.join(ITEMS)}.")
        if matching not in MATCHINGS:
            raise ValueError(f'matching= takes "exact" or "overlap", not {matching!r}.')
        if k < 1:
            raise ValueError(f"k={k} must be at least 1.")
        wanted = family.indices(classes)
        of_images = [detections] if isinstance(detections, Detections) else list(detections)
        self.detections = of_images if wanted is None else [each.of_classes(wanted) for each in of_images]
        needs_rows = matching == "exact" or "mask" in self.items
        if needs_rows and any(len(each) and each.rows is None for each in self.detections):
            raise ValueError('boxes without rows can be matched by overlap only: pass matching="overlap".')
        self.matching, self.k, self.family = matching, k, family

    def __call__(self, outputs: Any) -> Tensor:
        raw = self.family.raw(outputs)
        batch = len(raw.boxes)
        if len(self.detections) != batch:
            raise ValueError(f"the target holds detections of {len(self.detections)} images, the batch has {batch}.")
        return torch.stack([self._image(raw, outputs, image) for image in range(batch)])

    def split(self) -> list[BoxTarget]:
        """One target for each item."""
        return [self._with(items=(item,)) for item in self.items]

    def select(self, index: Iterable[int]) -> BoxTarget:
        """The target of some boxes, by position, of a batch of one."""
        if len(self.detections) != 1:
            raise ValueError(f"select() is for a batch of one image, not {len(self.detections)}.")
        return self._with(detections=[self.detections[0].select(index)])

    def _with(self, **changes: Any) -> BoxTarget:
        settings = {"detections": self.detections, "items": self.items} | changes
        return BoxTarget(**settings, matching=self.matching, k=self.k, family=self.family)

    def _image(self, raw: Raw, outputs: Any, image: int) -> Tensor:
        nothing = raw.classes[image, :0].sum() + raw.boxes[image, :0].sum()
        detections = self.detections[image]
        terms = [self._mask(outputs, image, detections)] if "mask" in self.items and len(detections) else []
        of_rows = [item for item in self.items if item != "mask"]
        for position in range(len(detections) if of_rows else 0):
            label = int(detections.labels[position])
            rows, weights = self._rows(raw, image, detections, position)
            if len(rows):
                terms += [_term(item, raw, image, rows, weights, label) for item in of_rows]
        return nothing + sum(terms, start=nothing) / len(self.items)

    def _rows(self, raw: Raw, image: int, detections: Detections, position: int) -> tuple[Tensor, Tensor]:
        """Rows (m,) of one box and their weights (m,)."""
        if self.matching == "exact":
            assert detections.rows is not None
            return detections.rows[position : position + 1], raw.boxes.new_ones(1)
        count = raw.rows(image)
        box = detections.boxes[position : position + 1].to(raw.boxes)
        values, rows = overlaps(box, raw.boxes[image, :count].detach())[0].topk(min(self.k, count))
        agree = raw.classes[image, rows].detach().argmax(1) == detections.labels[position]
        return rows[agree], values[agree].softmax(0)

    def _mask(self, outputs: Any, image: int, detections: Detections) -> Tensor:
        logits, inside = self.family.masks(outputs, image, detections)
        sums, areas = (logits * inside).sum((1, 2)), inside.sum((1, 2))
        return (sums / areas.clamp(min=1)).sum()


def _term(item: str, raw: Raw, image: int, rows: Tensor, weights: Tensor, label: int) -> Tensor:
    """One item of one box, from its rows; see :class:`BoxTarget`."""

    def level(values: Tensor) -> Tensor:
        mean = (values * weights).sum()
        return mean if raw.logits else mean.clamp(min=FLOOR).log()

    def of_class() -> Tensor:
        return level(raw.classes[image, rows, label])

    def confidence() -> Tensor:
        return of_class() if raw.objectness is None else level(raw.objectness[image, rows])

    if item == "class":
        return of_class()
    if item == "confidence":
        return confidence()
    if item == "class_confidence":
        return of_class() if raw.objectness is None else of_class() + confidence()
    x1, y1, x2, y2 = raw.boxes[image, rows].unbind(1)
    pixels = {"x_center": (x1 + x2) / 2, "y_center": (y1 + y2) / 2, "width": x2 - x1, "height": y2 - y1}[item]
    return (pixels * weights).sum().clamp(min=FLOOR).log()
