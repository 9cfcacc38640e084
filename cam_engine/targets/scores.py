"""A model's output as scores of classes, and the classes that are asked for as indices into them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Classes = int | Sequence[int] | Tensor | None
"""One class index for all images, one for each, or None: the predicted class."""


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


def pick_scores(outputs: Any, output: Any) -> Any:
    """What ``output``, a key, index, name or callable, picks out of what a model returned; everything where it is None.

    Raises:
        ValueError: It is not there.
    """
    if output is None:
        return outputs
    if callable(output):
        return output(outputs)
    try:
        attribute = not isinstance(outputs, dict) and hasattr(outputs, str(output))
        return getattr(outputs, output) if attribute else outputs[output]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(
            f"output={output!r} is not in what the model returned ({type(outputs).__name__}"
            f"{' with keys ' + str(list(outputs)) if isinstance(outputs, dict) else ''})."
        ) from error


def checked_classes(classes: Classes, batch: int) -> Tensor:
    """The classes as a tensor (batch,); empty for the predicted class.

    Raises:
        TypeError: No integers.
        ValueError: Another number of them than images.
    """
    if classes is None:
        return torch.empty(0, dtype=torch.int64)
    try:
        index = torch.as_tensor(classes)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"targets= takes class indices as integers, not {classes!r}.") from None
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise TypeError(f"targets= takes class indices as integers, not {index.dtype} ({classes!r}).")
    if index.ndim == 0:
        index = index.expand(batch)
    if index.shape != (batch,):
        raise ValueError(
            f"targets= holds {tuple(index.shape)} class indices for a batch of {batch} images; "
            f"pass one index for all, or exactly {batch}."
        )
    return index


def class_indices(classes: Classes, logits: Tensor) -> Tensor:
    """The explained class of each image, int64 (B,), for logits (B, K); a single logit is that of class 1.

    Raises:
        TypeError, ValueError: As :func:`checked_classes`, or an index outside the model's classes.
    """
    batch, count = logits.shape
    if classes is None:
        return logits.argmax(1) if count > 1 else (logits[:, 0] > 0).long()
    index = checked_classes(classes, batch)
    most = max(count, 2)
    # The check reads the caller's own numbers; only where they already live on a device does it have to wait for it.
    if index.numel() and (int(index.min()) < 0 or int(index.max()) >= most):
        wrong = sorted({i for i in index.tolist() if not 0 <= i < most})
        raise ValueError(
            f"targets= holds class {', '.join(map(str, wrong[:5]))}, but the model has classes 0 to {most - 1}."
        )
    return index.long().to(logits.device)


def binary_sign(classes: Classes, logits: Tensor) -> Tensor:
    """For a single logit (B, 1): −1 where class 0 is explained, else 1; (B,)."""
    ones = torch.ones(len(logits), device=logits.device, dtype=logits.dtype)
    return ones if classes is None else torch.where(class_indices(classes, logits) == 0, -ones, ones)


def _describe(outputs: Any) -> str:
    kind = type(outputs).__name__
    if isinstance(outputs, dict):
        return f"a {kind} with keys {list(outputs)}"
    if isinstance(outputs, (tuple, list)):
        return f"a {kind} of {len(outputs)} ({', '.join(type(o).__name__ for o in outputs)})"
    return f"a {kind}"
