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
            sign = torch.ones(len(logits), device=logits.device)
            if self.classes is not None:
                sign = torch.where(index == 0, -sign, sign)
            return logits[:, 0] * sign
        return logits.gather(1, index[:, None]).squeeze(1)

    def indices(self, logits: Tensor) -> Tensor:
        """The explained class of each image, int64 (B,).

        Raises:
            ValueError: Another number of indices than images, or an index outside the model's classes.
        """
        batch, count = logits.shape
        if self.classes is None:
            return logits.argmax(1) if count > 1 else (logits[:, 0] > 0).long()
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
        classes = max(count, 2)
        # The check reads the caller's own numbers; only where they already live on a device does it have to wait for
        # it.
        if index.numel() and (int(index.min()) < 0 or int(index.max()) >= classes):
            raise ValueError(f"targets= holds class {index.tolist()}, but the model has classes 0 to {classes - 1}.")
        return index.long().to(logits.device)


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
