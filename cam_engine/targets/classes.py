"""The score of a class: its logit, probability or margin."""

from __future__ import annotations

import copy
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from cam_engine.targets.mask import MaskTarget
from cam_engine.targets.scores import Classes, binary_sign, checked_classes, class_indices, class_scores

Quantity = Literal["logit", "probability", "log_probability", "margin"]


class ClassTarget:
    """How strongly the model speaks for a class of each image: ``(outputs) -> Tensor (B,)``.

    Args:
        classes: One index for all images, a sequence of B indices, or None for the predicted class.
        of: Of logits z and class c: ``"logit"`` z_c; ``"probability"`` softmax(z)_c; ``"log_probability"``
            log softmax(z)_c; ``"margin"`` z_c − max over k ≠ c of z_k.

    A model with a single output z, (B, 1) or (B,), is a binary head: the logit is z for class 1 or None, and −z for class
    0. The probability is then the sigmoid of that logit, and the margin is the logit itself.

    A segmenter's outputs (B, K, H, W) have a score for each place: a named class is explained where it is predicted, as
    :class:`MaskTarget` does.

    Raises:
        ValueError: ``of`` is none of the four.

    >>> from cam_engine.targets import ClassTarget
    >>> logits = torch.tensor([[1.0, 3.0], [2.0, 0.0]])
    >>> ClassTarget()(logits), ClassTarget(0)(logits), ClassTarget([0, 1], of="margin")(logits)
    (tensor([3., 2.]), tensor([1., 2.]), tensor([-2., -2.]))
    """

    def __init__(self, classes: Classes = None, of: Quantity = "logit") -> None:
        if of not in get_args(Quantity):
            raise ValueError(f"of={of!r} is none of {', '.join(get_args(Quantity))}.")
        self.classes = classes
        self.of = of

    def __call__(self, outputs: Any) -> Tensor:
        if inside := self._inside_its_mask(outputs):
            return inside(outputs)
        logits = class_scores(outputs)
        index = self.indices(logits)[:, None]
        if logits.shape[1] == 1:
            own = logits[:, 0] * self.sign(logits)
            one_logit = {"probability": torch.sigmoid, "log_probability": F.logsigmoid}
            return one_logit[self.of](own) if self.of in one_logit else own
        if self.of == "margin":
            others = logits.scatter(1, index, -torch.inf)
            return (logits.gather(1, index) - others.amax(1, keepdim=True)).squeeze(1)
        if self.of == "probability":
            logits = logits.softmax(1)
        elif self.of == "log_probability":
            logits = logits.log_softmax(1)
        return logits.gather(1, index).squeeze(1)

    def check(self, batch: int) -> None:
        """Is there a class for each of ``batch`` images?

        Raises:
            TypeError: No integers.
            ValueError: Another number of them than images.
        """
        checked_classes(self.classes, batch)

    def fixed(self, outputs: Any) -> ClassTarget | MaskTarget:
        """This target with the predicted class settled by ``outputs``, for scoring variants of the same images."""
        if inside := self._inside_its_mask(outputs):
            return inside.fixed(outputs)
        if self.classes is not None:
            return self
        logits = class_scores(outputs)
        return self if logits.shape[1] == 1 else _FixedTarget(logits.argmax(1), self.of)

    def indices(self, logits: Tensor) -> Tensor:
        """The explained class of each image, int64 (B,), for logits (B, K).

        Raises:
            ValueError: Another number of indices than images, or an index outside the model's classes.
        """
        return class_indices(self.classes, logits)

    def sign(self, logits: Tensor) -> Tensor:
        """For a single logit (B, 1): −1 where class 0 is explained, else 1; (B,)."""
        return binary_sign(self.classes, logits)

    def measured_as(self, of: Quantity) -> ClassTarget:
        """The same classes, by another quantity."""
        other = copy.copy(self)
        other.of = of
        return other

    def _inside_its_mask(self, outputs: Any) -> MaskTarget | None:
        """The target for a score at each place, outputs (B, K, H, W); None for other outputs."""
        if not isinstance(outputs, Tensor) or outputs.ndim != 4 or outputs.shape[2:].numel() == 1:
            return None
        return MaskTarget(self.classes) if self.classes is not None and self.of == "logit" else None


class _FixedTarget(ClassTarget):
    """Classes that the model itself named; they need no check, which would wait for the device."""

    def __init__(self, index: Tensor, of: Quantity) -> None:
        super().__init__(index, of)
        self.index = index

    def indices(self, logits: Tensor) -> Tensor:
        return self.index
