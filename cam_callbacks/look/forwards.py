"""Forwards beside the look itself: what the model says of other versions of the probe's images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cam_callbacks.look.detection import View
from cam_engine.capture import rescore
from cam_engine.targets.classes import ClassTarget


def batches(model: nn.Module, images: Tensor, size: int) -> list[Tensor]:
    """Images (N, C, H, W) in batches, on the model's device and in its precision."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    return [chunk if parameter is None else chunk.to(parameter) for chunk in images.split(size)]


def predictions(view: View, pick: Callable[[Any], Any], images: Tensor, batch_size: int) -> NDArray[np.int64]:
    """Predicted class of each image, (N,).

    Raises:
        TypeError: The model is no classifier.
    """
    found = [
        classified(pick(rescore(view.model, chunk, forward=view.forward)))[0]
        for chunk in batches(view.model, images, batch_size)
    ]
    if any(part is None for part in found):
        raise TypeError(
            "a counterfactual version of the probe needs a classifier: the gap is a difference of accuracies."
        )
    return np.concatenate([part for part in found if part is not None])


def explained_score(
    view: View, pick: Callable[[Any], Any], target: Any, indices: Sequence[int], batch_size: int
) -> Callable[[Tensor], Tensor]:
    """``images (N, C, H, W) -> (N,)``: how strongly the model speaks for what is explained; of a class its probability.

    Args:
        view: How the model is called.
        pick: The class scores in what it returns.
        target: (N,) class indices of all probe images, or a target such as a detector's.
        indices: Which of the probe's images ``images`` are versions of.
        batch_size: Images in one forward.
    """

    def of(chunk: Sequence[int]) -> Callable[[Any], Tensor]:
        if hasattr(target, "of_images"):
            return target.of_images(chunk)
        return target if callable(target) else ClassTarget(np.asarray(target)[list(chunk)].tolist(), of="probability")

    def score(images: Tensor) -> Tensor:
        parts, start = [], 0
        for chunk in batches(view.model, images, batch_size):
            outputs = pick(rescore(view.model, chunk, forward=view.forward))
            parts.append(of(indices[start : start + len(chunk)])(outputs).detach().double().cpu())
            start += len(chunk)
        return torch.cat(parts)

    return score


def classified(scores: Any) -> tuple[NDArray[np.int64] | None, NDArray[np.float64] | None]:
    """Predicted class and its probability, (B,) each; None where the output is not that of a classifier."""
    if not isinstance(scores, Tensor) or scores.ndim not in (1, 2) or not scores.is_floating_point():
        return None, None
    scores = scores.detach().double()
    scores = scores[:, None] if scores.ndim == 1 else scores
    if scores.shape[1] == 1:
        probability = scores[:, 0].sigmoid()
        predicted = (probability > 0.5).long()
        confidence = torch.where(predicted == 1, probability, 1 - probability)
    else:
        already = bool((scores >= 0).all()) and bool(((scores.sum(1) - 1).abs() < 1e-4).all())
        confidence, predicted = (scores if already else scores.softmax(1)).max(1)
    return predicted.cpu().numpy(), confidence.cpu().numpy()
