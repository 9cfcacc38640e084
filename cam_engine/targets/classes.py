from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class ClassTarget:
    """The raw output (logit) of a class for each image: ``(outputs) -> Tensor (B,)``.

    Args:
        classes: One index for all images, a sequence of B indices, or None for the predicted class.

    A model with a single output (B, 1) or (B,) is a binary or regression head: the score is that output for class 1 or
    None, and its negative for class 0.
    """

    def __init__(self, classes: int | Sequence[int] | Tensor | None = None) -> None:
        self.classes = classes

    def __call__(self, outputs: Any) -> Tensor:
        logits = class_scores(outputs)
        index = self.indices(logits)
        if logits.shape[1] == 1:
            return logits[:, 0] * self.sign(logits)
        return logits.gather(1, index[:, None]).squeeze(1)

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

    def fixed(self, outputs: Any) -> ClassTarget:
        """This target with the predicted class settled by ``outputs``, for scoring variants of the same images."""
        if self.classes is not None:
            return self
        logits = class_scores(outputs)
        return self if logits.shape[1] == 1 else _FixedTarget(logits.argmax(1))

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

    def __init__(self, index: Tensor) -> None:
        super().__init__(index)
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
            "(outputs) -> Tensor (B,) that says which score to explain."
        )
    return outputs


def _describe(outputs: Any) -> str:
    kind = type(outputs).__name__
    if isinstance(outputs, dict):
        return f"a {kind} with keys {list(outputs)}"
    if isinstance(outputs, (tuple, list)):
        return f"a {kind} of {len(outputs)} ({', '.join(type(o).__name__ for o in outputs)})"
    return f"a {kind}"
