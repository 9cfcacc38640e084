from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from cam_engine.targets.mask import MaskTarget

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
    """

    def __init__(self, classes: int | Sequence[int] | Tensor | None = None, of: Quantity = "logit") -> None:
        if of not in get_args(Quantity):
            raise ValueError(f"of={of!r} is none of {', '.join(get_args(Quantity))}.")
        self.classes = classes
        self.of = of

    def __call__(self, outputs: Any) -> Tensor:
        if self._dense(outputs):
            return self._inside_its_mask()(outputs)
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

    def check(self, batch: int) -> Tensor:
        """The classes as a tensor (batch,); empty for the predicted class.

        Raises:
            TypeError: No integers.
            ValueError: Another number of them than images.
        """
        if self.classes is None:
            return torch.empty(0, dtype=torch.int64)
        try:
            index = torch.as_tensor(self.classes)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"targets= takes class indices as integers, not {self.classes!r}.") from None
        if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
            raise TypeError(f"targets= takes class indices as integers, not {index.dtype} ({self.classes!r}).")
        if index.ndim == 0:
            index = index.expand(batch)
        if index.shape != (batch,):
            raise ValueError(
                f"targets= holds {tuple(index.shape)} class indices for a batch of {batch} images; "
                f"pass one index for all, or exactly {batch}."
            )
        return index

    def fixed(self, outputs: Any) -> ClassTarget | MaskTarget:
        """This target with the predicted class settled by ``outputs``, for scoring variants of the same images."""
        if self._dense(outputs):
            return self._inside_its_mask().fixed(outputs)
        if self.classes is not None:
            return self
        logits = class_scores(outputs)
        return self if logits.shape[1] == 1 else _FixedTarget(logits.argmax(1), self.of)

    def measured_as(self, of: Quantity) -> ClassTarget:
        """The same classes, by another quantity."""
        other = copy.copy(self)
        other.of = of
        return other

    def _dense(self, outputs: Any) -> bool:
        places = isinstance(outputs, Tensor) and outputs.ndim == 4 and outputs.shape[2:].numel() > 1
        return places and self.classes is not None and self.of == "logit"

    def _inside_its_mask(self) -> MaskTarget:
        from cam_engine.targets.mask import MaskTarget

        assert self.classes is not None
        return MaskTarget(self.classes)

    def sign(self, logits: Tensor) -> Tensor:
        """For a single output: −1 where class 0 is explained, else 1; (B,)."""
        ones = torch.ones(len(logits), device=logits.device, dtype=logits.dtype)
        return ones if self.classes is None else torch.where(self.indices(logits) == 0, -ones, ones)

    def indices(self, logits: Tensor) -> Tensor:
        """The explained class of each image, int64 (B,).

        Raises:
            ValueError: Another number of indices than images, or an index outside the model's classes.
        """
        batch, count = logits.shape
        if self.classes is None:
            return logits.argmax(1) if count > 1 else (logits[:, 0] > 0).long()
        index = self.check(batch)
        classes = max(count, 2)
        # The check reads the caller's own numbers; only where they already live on a device does it have to wait for
        # it.
        if index.numel() and (int(index.min()) < 0 or int(index.max()) >= classes):
            raise ValueError(f"targets= holds class {index.tolist()}, but the model has classes 0 to {classes - 1}.")
        return index.long().to(logits.device)


class _FixedTarget(ClassTarget):
    """Classes that the model itself named; they need no check, which would wait for the device."""

    def __init__(self, index: Tensor, of: Quantity) -> None:
        super().__init__(index, of)
        self.index = index

    def indices(self, logits: Tensor) -> Tensor:
        return self.index


def class_scores(outputs: Any) -> Tensor:
    """The model's output as (B, classes).

    Raises:
        TypeError: No tensor.
        ValueError: A tensor of more than two dimensions.
    """
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"the model returned {_describe(outputs)}, not a tensor of class scores. Pass targets= as a callable "
            "(outputs) -> Tensor (B,), or output= with the key or index of the tensor in it."
        )
    if outputs.ndim == 1:
        return outputs[:, None]
    if outputs.ndim != 2:
        raise ValueError(
            f"the model returned a tensor of shape {tuple(outputs.shape)}, not (B, classes). Pass targets= as a callable "
            "(outputs) -> Tensor (B,) that says which score to explain; of a segmenter, (B, classes, H, W), a class."
        )
    return outputs


def _describe(outputs: Any) -> str:
    kind = type(outputs).__name__
    if isinstance(outputs, dict):
        return f"a {kind} with keys {list(outputs)}"
    if isinstance(outputs, (tuple, list)):
        return f"a {kind} of {len(outputs)} ({', '.join(type(o).__name__ for o in outputs)})"
    return f"a {kind}"
