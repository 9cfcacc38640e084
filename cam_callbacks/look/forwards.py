"""What the model says of changed versions of the probe's images: each step takes further forwards, on all processes together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cam_callbacks.look.evidence import Array
from cam_callbacks.look.explaining import Explained, concatenated, explain
from cam_callbacks.look.noise_floor import noise_floor, with_noise
from cam_callbacks.look.subject import Subject
from cam_callbacks.look.target import target_of_images
from cam_callbacks.look.tracking import Series
from cam_callbacks.probe import ProbeSet
from cam_engine.metrics import Metric, counterfactual_gap, heatmaps
from cam_engine.targets.classes import ClassTarget


def noise_floors(
    subject: Subject, explained: Explained, images: Tensor, seed: int, repeats: int
) -> dict[Series, float]:
    """The noise floor of every series for the weights as they are now (:mod:`cam_callbacks.look.noise_floor`).

    Args:
        subject: The model.
        explained: The same weights' maps of the images as they are.
        images: (N, C, H, W), the probe's.
        seed: Of the noise.
        repeats: How many noisy versions.
    """
    # A prediction may flip under noise; what is explained stays the class of the image as it is.
    target = subject.task.settled(explained.targets)
    noisy = [explain(subject, version, target).maps for version in with_noise(images, seed, repeats)]
    return {series: noise_floor(maps, [n[series] for n in noisy]) for series, maps in explained.maps.items()}


def faithfulness(
    subject: Subject, explained: Explained, probe: ProbeSet, metrics: Sequence[Metric]
) -> dict[Series, dict[str, Array]]:
    """The metrics that ask the model again: (N,) for each, of every series. Nothing where none of ``metrics`` does.

    Raises:
        TypeError: What is explained gives images no score.
    """
    chosen = [metric for metric in metrics if metric.costs_forwards]
    if not chosen:
        return {}
    if not subject.task.has_score:
        raise TypeError(f"{chosen[0].name} needs class scores, or a target that gives each image a score.")
    plan = subject.batches.plan
    mine, own = plan.padded(len(probe)), len(plan.own(len(probe)))
    images = probe.images[mine]
    score = explained_score(subject, explained, mine)

    def of_share() -> dict[Series, dict[str, Array]]:
        inputs: dict[str, Any] = {"score": score, "images": images}
        values: dict[Series, dict[str, Array]] = {}
        for series, maps in explained.maps.items():
            inputs["heatmaps"] = heatmaps(maps[mine], (images.shape[2], images.shape[3]))
            values[series] = {m.name: m.function(*(inputs[need] for need in m.needs))[:own] for m in chosen}
        return values

    shares = [share for share in plan.everywhere(lambda: of_share() if mine else {}) if share]
    return {
        series: {m.name: np.concatenate([share[series][m.name] for share in shares]) for m in chosen}
        for series in explained.maps
    }


def explained_score(subject: Subject, explained: Explained, indices: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """``images (n, C, H, W) -> (n,)``: how strongly the model speaks for what is explained; of a class its probability.

    ``indices`` tell which of the probe's images these are versions of.
    """
    target = subject.task.settled(explained.targets)

    def of_batch(rows: list[int], images: Tensor) -> Tensor:
        of = [indices[row] for row in rows]
        scored: Any = target_of_images(target, of)
        if not callable(scored):
            scored = ClassTarget(scored, of="probability")
        values: Tensor = scored(subject.class_scores(images[rows], of))
        return values.detach().double().cpu()

    return lambda images: torch.cat(subject.batches.over(range(len(images)), lambda rows: of_batch(rows, images)))


def accuracy_gap(subject: Subject, explained: Explained, probe: ProbeSet) -> Array | None:
    """(N,) what the probe's counterfactual version costs in accuracy; None where it has none.

    Raises:
        TypeError: The model is no classifier.
    """
    if probe.counterfactual is None:
        return None
    assert probe.labels is not None
    if explained.predictions is None:
        raise TypeError("a counterfactual version of the probe needs a classifier, and this model's output is none.")
    plan, labels = subject.batches.plan, probe.labels.numpy()
    mine, own = plan.padded(len(probe)), len(plan.own(len(probe)))
    images = probe.counterfactual[mine]

    def of_share() -> NDArray[np.int64] | None:
        predicted = predictions(subject, images, mine)
        return None if predicted is None else predicted[:own]

    changed = concatenated(plan.everywhere(of_share))
    return counterfactual_gap(explained.predictions == labels, changed == labels)


def predictions(subject: Subject, images: Tensor, indices: Sequence[int]) -> NDArray[np.int64] | None:
    """(n,) the predicted class of images (n, C, H, W), versions of the probe's in ``indices``; None of no images, or of a model
    that is no classifier."""

    def of_batch(rows: list[int]) -> NDArray[np.int64] | None:
        of = [indices[row] for row in rows]
        return subject.task.read(subject.class_scores(images[rows], of), of).predictions

    return concatenated(subject.batches.over(range(len(images)), of_batch))
