"""The one class that a model names for each image: a classifier of the whole, a segmenter of a region."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def predicted_classes(outputs: Any) -> Tensor:
    """Class of each image, int64 (N,): the largest of (N, K) scores, or of one logit z, (N,) or (N, 1), 1 where z > 0, else 0.

    −1 where a score is NaN: nothing was predicted.

    Raises:
        TypeError: Anything else, as detectors and segmenters return it.

    >>> from cam_engine.exchange import predicted_classes
    >>> predicted_classes(torch.tensor([[0.1, 2.0], [3.0, float("nan")]])), predicted_classes(torch.tensor([-1.0, 4.0]))
    (tensor([ 1, -1]), tensor([0, 1]))
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


def predicted_inside(outputs: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
    """Class that a segmenter names for most of a region, int64 (N,), and its mean probability there, float64 (N,).

    −1 and NaN where a region is empty or a score in it is NaN.

    Args:
        outputs: (N, K, h, w) scores, or (N, 1, h, w) logits of class 1.
        regions: (N, H, W), bool or coverage in [0, 1]; brought to the size of the outputs by averaging.

    >>> from cam_engine.exchange import predicted_inside
    >>> outputs, regions = torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4)
    >>> outputs[:, 1, :, :2], regions[:, :, 0] = 5.0, 1.0
    >>> predicted_inside(outputs, regions)
    (tensor([1]), tensor([0.9933], dtype=torch.float64))
    """
    weights = F.adaptive_avg_pool2d(regions.to(outputs.device, torch.float64), (outputs.shape[-2], outputs.shape[-1]))
    logits = outputs.detach().double()
    if logits.shape[1] == 1:
        ones = logits.sigmoid()
        probabilities = torch.cat([1 - ones, ones], 1)
        classes = (logits[:, 0] > 0).long()
    else:
        probabilities, classes = logits.softmax(1), logits.argmax(1)
    votes = torch.zeros(probabilities.shape[:2], dtype=torch.float64, device=outputs.device)
    votes.scatter_add_(1, classes.flatten(1), weights.flatten(1))
    predicted = votes.argmax(1)
    own = probabilities.gather(1, predicted[:, None, None, None].expand(-1, 1, *weights.shape[1:])).squeeze(1)
    mean = (own * weights).sum((1, 2)) / weights.sum((1, 2))
    unknown = (weights.sum((1, 2)) == 0) | (logits.isnan().any(1) & (weights > 0)).any((1, 2))
    return torch.where(unknown, -1, predicted), torch.where(unknown, torch.nan, mean)
