"""The maps of every probe image, and what the model says of it: on every process a share, then gathered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cam_callbacks import processes
from cam_callbacks.look.subject import Subject
from cam_callbacks.look.target import Target, target_of_images
from cam_callbacks.records import Maps


@dataclass(frozen=True, eq=False)
class Explained:
    """What a model shows of N images.

    ``maps[method, layer]``: (N, h, w) float32 on the layer's grid, after ReLU, not rescaled.
    ``predictions``, ``confidences``: (N,) predicted class and its probability; None where the model is no classifier.
    ``scores``: (N,) the score that was explained. ``targets``: (N,) its class; None where it is that of no class.
    """

    maps: Maps
    predictions: NDArray[np.int64] | None
    confidences: NDArray[np.float64] | None
    scores: NDArray[np.float64] | None
    targets: NDArray[np.int64] | None = None


def explain(subject: Subject, images: Tensor, target: Target | None = None) -> Explained:
    """Explain versions of the probe's images; every process has to call it, and all get the same.

    Args:
        subject: The model.
        images: (N, C, H, W), in the probe's order.
        target: In place of the subject's.

    Raises:
        LookError: It failed on any process.
    """
    return gathered(subject, processes.everywhere(lambda: explain_share(subject, images, target)))


def explain_share(subject: Subject, images: Tensor, target: Target | None = None) -> Explained:
    """Explain this process's share of ``images``; talks to no other."""
    score = subject.target if target is None else target

    def of_batch(indices: list[int]) -> Explained:
        call = subject.calling.of(indices)
        result = subject.cam(images[indices], target_of_images(score, indices), outputs=True, forward=call)
        picked = subject.cam.scores_of(result.outputs)
        predictions, confidences = classified(picked)
        scores = None if result.scores is None else result.scores.double().cpu().numpy()
        maps = {key: subject.within_image(m, result.outputs).float().cpu().numpy() for key, m in result.raw.items()}
        # Of a single logit it is the logit that is explained, which speaks for class 1 whatever is predicted.
        named = np.ones_like(predictions) if predictions is not None and _is_one_logit(picked) else predictions
        return Explained(maps, predictions, confidences, scores, named)

    return _joined(subject.batches.over(processes.share(len(images)), of_batch))


def gathered(subject: Subject, shares: Sequence[Explained]) -> Explained:
    """The shares of all processes, in order of rank, as one."""
    whole = _joined(shares)
    return whole if subject.target == "predicted" else replace(whole, targets=subject.classes)


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


def concatenated(parts: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    """Those parts that are there, one after the other; None where none is."""
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if there else None


def _joined(parts: Sequence[Explained]) -> Explained:
    """Parts of the images as one; a process has none where there are more processes than images."""
    filled = [part.maps for part in parts if part.maps]
    return Explained(
        {key: np.concatenate([maps[key] for maps in filled]) for key in (filled[0] if filled else {})},
        concatenated([part.predictions for part in parts]),
        concatenated([part.confidences for part in parts]),
        concatenated([part.scores for part in parts]),
        concatenated([part.targets for part in parts]),
    )


def _is_one_logit(scores: Tensor) -> bool:
    return scores.ndim == 1 or scores.shape[1] == 1
