"""The score of several classes together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cam_engine.targets.scores import class_scores


class MultiLabelTarget:
    """The sum of the logits of several classes for each image: ``(outputs) -> Tensor (B,)``.

    Args:
        classes: Class indices for all images, ``[2, 5]``; B lists of them, ``[[2, 5], [], [1]]``; a bool tensor
            (B, classes), true where a class counts; or None for the predicted classes, those with a logit above 0.

    An image without a class has a score of 0 without gradient, and so an invalid map.
    """

    def __init__(self, classes: Sequence[int] | Sequence[Sequence[int]] | Tensor | None = None) -> None:
        self.classes = classes

    def __call__(self, outputs: Any) -> Tensor:
        logits = class_scores(outputs)
        return torch.where(self.chosen(logits), logits, 0.0).sum(1)

    def fixed(self, outputs: Any) -> MultiLabelTarget:
        """This target with the predicted classes settled by ``outputs``."""
        return self if self.classes is not None else MultiLabelTarget(class_scores(outputs).detach() > 0)

    def chosen(self, logits: Tensor) -> Tensor:
        """Which classes count, bool (B, classes), on the device of the logits.

        Raises:
            TypeError: No integers.
            ValueError: Lists for another number of images, or a class that the model does not have.
        """
        batch, count = logits.shape
        if self.classes is None:
            return logits.detach() > 0
        if isinstance(self.classes, Tensor) and self.classes.dtype == torch.bool:
            if self.classes.shape != logits.shape:
                raise ValueError(
                    f"classes= is a mask of shape {tuple(self.classes.shape)} for outputs of shape {tuple(logits.shape)}."
                )
            return self.classes.to(logits.device)
        rows = _rows(self.classes, batch)
        wrong = [c for row in rows for c in row if not 0 <= c < count]
        if wrong:
            raise ValueError(f"classes= holds class {wrong[0]}, but the model has classes 0 to {count - 1}.")
        chosen = torch.zeros(batch, count, dtype=torch.bool)
        for i, row in enumerate(rows):
            chosen[i, row] = True
        return chosen.to(logits.device)


def _rows(classes: Any, batch: int) -> list[list[int]]:
    listed = classes.tolist() if hasattr(classes, "tolist") else list(classes)
    nested = [hasattr(item, "__len__") for item in listed]
    rows = [list(row) for row in listed] if any(nested) and all(nested) else [listed] * batch
    for item in (item for row in rows for item in row):
        if isinstance(item, bool) or not hasattr(item, "__index__"):
            raise TypeError(f"classes= takes class indices as integers, for all images or one list each, not {item!r}.")
    if len(rows) != batch:
        raise ValueError(
            f"classes= holds lists for {len(rows)} images, and there are {batch}; pass one list for all, or exactly {batch}."
        )
    return [[int(item) for item in row] for row in rows]
