"""The score of several classes together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from cam_engine.targets.scores import class_scores

Together = Literal["sum", "mean", "max"]


class MultiLabelTarget:
    """The logits of several classes for each image as one score: ``(outputs) -> Tensor (B,)``.

    Args:
        classes: Class indices for all images, ``[2, 5]``; B lists of them, ``[[2, 5], [], [1]]``; a bool tensor
            (B, classes), true where a class counts; or None for the predicted classes, those with a logit above 0.
        together: ``"sum"`` of them, their ``"mean"``, or ``"max"``: the one that the model is most certain of.

    An image without a class has a score of 0 without gradient, and so an invalid map.

    Raises:
        ValueError: ``together`` is none of the three.

    >>> from cam_engine.targets import MultiLabelTarget
    >>> logits = torch.tensor([[2.0, -1.0, 4.0], [-3.0, 1.0, -2.0]])
    >>> MultiLabelTarget()(logits), MultiLabelTarget([[0], [1, 2]], together="max")(logits)
    (tensor([6., 1.]), tensor([2., 1.]))
    """

    def __init__(
        self, classes: Sequence[int] | Sequence[Sequence[int]] | Tensor | None = None, together: Together = "sum"
    ) -> None:
        if together not in get_args(Together):
            raise ValueError(f"together={together!r} is none of {', '.join(get_args(Together))}.")
        self.classes = classes
        self.together = together

    def __call__(self, outputs: Any) -> Tensor:
        logits = class_scores(outputs)
        chosen = self.chosen(logits)
        if self.together == "max":
            largest = torch.where(chosen, logits, -torch.inf).amax(1)
            return torch.where(chosen.any(1), largest, 0.0)
        total = torch.where(chosen, logits, 0.0).sum(1)
        return total / chosen.sum(1).clamp(min=1) if self.together == "mean" else total

    def fixed(self, outputs: Any) -> MultiLabelTarget:
        """This target with the predicted classes settled by ``outputs``."""
        if self.classes is not None and self.together != "max":
            return self
        logits = class_scores(outputs).detach()
        chosen = self.chosen(logits)
        if self.together == "max":  # which of them is the largest is the model's own choice, too
            best = torch.where(chosen, logits, -torch.inf).argmax(1, keepdim=True)
            chosen = chosen & torch.zeros_like(chosen).scatter(1, best, True)
        return MultiLabelTarget(chosen, self.together)

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
