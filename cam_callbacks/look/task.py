"""What a model is trained for: which score of each image is explained, and what the model says of it. Pure.

:mod:`cam_callbacks.look.recognise` says which task it is; it is settled at the first look of a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cam_callbacks.look.detection import ProbeBoxTarget
from cam_callbacks.look.probe_targets import TrueLabels, TrueRegions
from cam_callbacks.look.target import Target, is_listed
from cam_callbacks.probe import ProbeSet
from cam_engine.exchange import predicted_inside


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model says of B images.

    ``predictions``, ``confidences``: (B,) the one class that it names, and its probability; None where it names none.
    ``explained``: (B,) the class that is explained, −1 for none; None where it is no class. ``there``: (B,) bool, has the
    image what is explained; None: all have.
    """

    predictions: NDArray[np.int64] | None = None
    confidences: NDArray[np.float64] | None = None
    explained: NDArray[np.int64] | None = None
    there: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """A score that the user chose of outputs that are of no kind that is known; the base of all others.

    ``words``: in a sentence. ``probe``: with the labels and regions that this task has. ``target``: what is explained.
    ``output``: of :class:`cam_engine.CAM`, where the score lies in what the model returns. ``probabilities``: the scores
    themselves are, and no logits.
    """

    words: str
    probe: ProbeSet
    target: Target
    output: Any = None
    probabilities: bool = False

    kind: ClassVar[str] = "custom"
    has_score: ClassVar[bool] = True
    signed: ClassVar[bool] = False  # may a healthy score have nothing that raises it, and so an empty map?
    exchanges: ClassVar[bool] = False  # does it name one class for each image, which exchange tests can follow?

    @property
    def by_prediction(self) -> bool:
        """Is it the predicted class that is explained?"""
        return isinstance(self.target, str) and self.target == "predicted"

    @property
    def inside(self) -> Tensor | None:
        """(N, H, W) bool: where the class of an image is read; None: it is that of the image as a whole."""
        return None

    def read(self, scores: Any, images: Sequence[int]) -> Answer:
        """What the model says of some of the probe's images, or of versions of them.

        Args:
            scores: What ``output`` picked.
            images: Which of the probe's they are.
        """
        return Answer()

    def logits(self, scores: Tensor) -> Tensor:
        """Scores as logits, whose sign is the side of a single one."""
        return torch.logit(scores.detach().double(), eps=1e-12) if self.probabilities else scores.detach().double()

    def settled(self, explained: NDArray[np.int64] | None) -> Target:
        """The target with what the model's output decided, as it did, for versions of the same images."""
        return explained.tolist() if self.by_prediction and explained is not None else self.target

    def classes_of(self, images: Sequence[int]) -> NDArray[np.int64] | None:
        """(B,) the explained class of images where it is known beforehand."""
        if not is_listed(self.target):
            return None
        return np.asarray(self.target, dtype=np.int64)[list(images)]


class Classification(Task):
    """One class an image: (B, K) scores, or one logit (B,) or (B, 1), which speaks for class 1."""

    kind = "classification"
    exchanges = True

    def read(self, scores: Any, images: Sequence[int]) -> Answer:
        columns = _columns(scores)
        if columns.shape[1] == 1:
            ones = self.logits(columns)[:, 0].sigmoid()
            predicted = (self.logits(columns)[:, 0] > 0).long()
            confidence = torch.where(predicted == 1, ones, 1 - ones)
            by_output = torch.ones_like(predicted)  # the logit itself is explained, whatever side is predicted
        else:
            confidence, predicted = _class_probabilities(columns).max(1)
            by_output = predicted
        explained = by_output.cpu().numpy() if self.by_prediction else self.classes_of(images)
        return Answer(predicted.cpu().numpy(), confidence.cpu().numpy(), explained)


class MultiLabel(Task):
    """Any number of classes an image: (B, K) logits, each for itself."""

    kind = "multilabel"
    signed = True

    def read(self, scores: Any, images: Sequence[int]) -> Answer:
        logits = self.logits(_columns(scores)).cpu()
        if isinstance(self.target, TrueLabels):
            true = self.target.sets[list(images)]
            best = torch.where(true, logits, -torch.inf).argmax(1)
            there = true.any(1)
            if self.target.together == "mean":
                mean = torch.where(true, logits.sigmoid(), 0.0).sum(1) / true.sum(1)
                return Answer(None, mean.numpy(), None, there.numpy())
            confidence = logits.sigmoid().gather(1, best[:, None]).squeeze(1)
            confidence = torch.where(there, confidence, torch.nan)
            return Answer(None, confidence.numpy(), torch.where(there, best, -1).numpy(), there.numpy())
        explained = logits.argmax(1).numpy() if self.by_prediction else self.classes_of(images)
        if explained is None:
            return Answer()
        return Answer(None, logits.sigmoid().numpy()[np.arange(len(logits)), explained], explained)

    def settled(self, explained: NDArray[np.int64] | None) -> Target:
        if isinstance(self.target, TrueLabels) and self.target.together == "max" and explained is not None:
            only = torch.zeros_like(self.target.sets)
            known = np.flatnonzero(explained >= 0)
            only[known, explained[known]] = True
            return TrueLabels(only, "max")
        return super().settled(explained)


class Segmentation(Task):
    """A class for each place, (B, K, h, w), or one logit for it: one class of each image is explained, where it truly is.

    Of a region the predicted class is that of most of its places, and the confidence its mean probability there.
    """

    kind = "segmentation"
    signed = True
    exchanges = True

    @property
    def inside(self) -> Tensor | None:
        return self.target.regions if isinstance(self.target, TrueRegions) else None

    def read(self, scores: Any, images: Sequence[int]) -> Answer:
        if isinstance(self.target, TrueRegions):
            of = self.target.of_images(images)
            predicted, confidence = predicted_inside(self.logits(scores), of.regions)
            there = (of.classes >= 0).numpy()
            return Answer(predicted.cpu().numpy(), confidence.cpu().numpy(), of.classes.numpy(), there)
        explained = self.classes_of(images)
        if explained is None:
            return Answer()
        logits = self.logits(scores)
        dense = (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)
        there = (dense.cpu() == torch.from_numpy(explained)[:, None, None]).flatten(1).any(1).numpy()
        return Answer(None, None, np.where(there, explained, -1), there)


class Regression(Task):
    """One or several values an image, of which one is explained."""

    kind = "regression"
    signed = True


class Anomaly(Task):
    """How unusual an image is."""

    kind = "anomaly"
    signed = True


class Detection(Task):
    """Boxes; the score is that of :mod:`cam_callbacks.look.detection`."""

    kind = "detection"

    def read(self, scores: Any, images: Sequence[int]) -> Answer:
        labels = None if self.probe.labels is None else self.probe.labels.numpy()[list(images)]
        return Answer(None, None, labels if isinstance(self.target, ProbeBoxTarget) else self.classes_of(images))


class NoScore(Task):
    """An image, an embedding: nothing that speaks for or against anything. Methods without gradients show what a layer holds."""

    kind = "no score"
    has_score = False


def _columns(scores: Tensor) -> Tensor:
    return scores[:, None] if scores.ndim == 1 else scores


def _class_probabilities(scores: Tensor) -> Tensor:
    """(B, K), of scores that may be probabilities already."""
    scores = scores.detach().double()
    already = bool((scores >= 0).all()) and bool(((scores.sum(1) - 1).abs() < 1e-4).all())
    return scores if already else scores.softmax(1)
