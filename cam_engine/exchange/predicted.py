"""The one class that a classifier names for each image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def predicted_classes(outputs: Any) -> Tensor:
    """Class of each image, int64 (N,): the largest of (N, K) scores, or of one logit z, (N,) or (N, 1), 1 where z > 0, else 0.

    −1 where a score is NaN: nothing was predicted.

    Raises:
        TypeError: Anything else, as detectors and segmenters return it.
    """
    if not isinstance(outputs, Tensor) or outputs.ndim not in (1, 2):
        given = f"a tensor of shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise TypeError(
            f"exchange tests follow the one class that a classifier predicts: the model must return scores (N, classes) or one "
            f"logit (N,), not {given}. Where the scores are a part of what it returns, pass output= as a callable that picks them."
        )
    scores = outputs.detach()[:, None] if outputs.ndim == 1 else outputs.detach()
    classes = (scores[:, 0] > 0).long() if scores.shape[1] == 1 else scores.argmax(1)
    return torch.where(scores.isnan().any(1), -1, classes)
