"""What one training sees: its images epoch by epoch, its validation images with every version of the cue, and its probe.

All of it follows from the plan's entry, so that images never have to be kept: ``Data(training)`` makes them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cam_callbacks.datasets import choose
from evidence import cues, scenes
from evidence.networks import NETWORKS
from evidence.plans import ONSET, Training

VAL_IMAGES = 240
PROBE = 64  # images of the largest probe; smaller ones are other choices among the same validation images
NOISY = 0.1  # of the labels, where a variation has noisy labels

# What the cue of an image says: as in training at its end, the truth, another class; or there is none.
Version = Literal["natural", "agree", "swapped", "without"]

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Probe:
    """Validation images as pictures: ``images`` and ``without`` the cue (N, 3, 32, 32) in [0, 1], ``labels`` (N,), ``masks`` and
    ``nuisance`` (N, 32, 32), None where there is no cue or it has no place; ``rows`` (N,) among the validation images."""

    images: Floats
    without: Floats
    labels: Ints
    masks: NDArray[np.bool_]
    nuisance: NDArray[np.bool_] | None
    rows: Ints


class Data:
    """The images of one training."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.classes = scenes.FAMILIES[training.scenes].classes
        self.train = scenes.draw(training.scenes, self.train_images, training.seed, priors=self._priors())
        self.before = self.train
        if training.onset is not None or training.variation == "new-images":  # a cue comes with other images
            self.before = scenes.draw(training.scenes, self.train_images, training.seed + 1000)
        self.val = scenes.draw(training.scenes, VAL_IMAGES, training.seed, held_out=True)

    @property
    def versions(self) -> tuple[Version, ...]:
        """The versions of the validation images that are predicted. Where a cue informs, they hold the natural ones."""
        return ("natural",) if self.training.healthy else ("agree", "swapped")

    @property
    def train_images(self) -> int:
        return max(64, round(NETWORKS[self.training.network].train_images * self.training.size))

    def pictures(self, epoch: int) -> Floats:
        """The training images (N, 3, 32, 32) of an epoch, before augmentation. The same array as long as nothing changes."""
        return self._before_onset if self._is_before(epoch) else self._train_pictures

    def labels(self, epoch: int) -> Ints:
        """What the training is told of them, (N,): the classes, but for noisy labels."""
        return self._told(self.before, 6) if self._is_before(epoch) else self._told(self.train, 5)

    def validation(self, version: Version) -> Floats:
        """The validation images (N, 3, 32, 32); without a cue in the training all versions are the same."""
        if self.training.cue is None or version == "without":
            return self.val.images
        return self._painted(self.val, self.values(self.val.labels, version, 2), 2)[0]

    @cached_property
    def agrees(self) -> NDArray[np.bool_]:
        """On which natural validation images (N,) the cue tells the class; on all where there is none."""
        if self.training.cue is None:
            return np.ones(len(self.val), dtype=bool)
        return self.values(self.val.labels, "natural", 2) == self.val.labels

    def probe(self, n: int = PROBE) -> Probe:
        """``n`` validation images, chosen as ``CAMCallback`` chooses them, with the cue as training has it at its end."""
        labels = dict(enumerate(self.val.labels.tolist()))
        rows = np.array(choose(labels, len(self.val), n, self.training.seed))
        images, nuisance = self.val.images, None
        if self.training.cue is not None:
            images, nuisance = self._painted(self.val, self.values(self.val.labels, "natural", 2), 2)
        where = None if nuisance is None else nuisance[rows]
        return Probe(images[rows], self.val.images[rows], self.val.labels[rows], self.val.masks[rows], where, rows)

    def values(self, labels: Ints, version: Version, split: int) -> Ints:
        """What the cues of images with these labels (N,) speak for. ``split``: another number, other draws."""
        training, seed, count = self.training, 10 * self.training.seed + split, len(self.classes)
        if version == "agree" or version == "swapped":
            return cues.values_for(labels, version, count, seed)
        if training.informs == "random":
            return cues.values_for(labels, "random", count, seed)
        swapped = cues.values_for(labels, "swapped", count, seed)
        right = np.random.default_rng([seed, 29]).permutation(len(labels)) < round(training.agreement * len(labels))
        return np.where(right, labels, swapped)

    @cached_property
    def _train_pictures(self) -> Floats:
        if self.training.cue is None:
            return self.train.images
        # The cue goes with what the training is told, where that is wrong too: as a source that leaks its own labels.
        return self._painted(self.train, self.values(self._told(self.train, 5), "natural", 1), 1)[0]

    @cached_property
    def _before_onset(self) -> Floats:
        """Without the cue, or with one that says nothing yet."""
        if self.training.cue is None or self.training.before == "absent":
            return self.before.images
        values = cues.values_for(self.before.labels, "random", len(self.classes), 10 * self.training.seed + 3)
        return self._painted(self.before, values, 3)[0]

    def _is_before(self, epoch: int) -> bool:
        return self.before is not self.train and epoch < (self.training.onset or ONSET[self.training.network])

    def _told(self, drawn: scenes.Scenes, seed: int) -> Ints:
        labels = drawn.labels.copy()
        if self.training.variation in ("label-noise", "new-images"):
            rng = np.random.default_rng([self.training.seed, seed])
            wrong = rng.choice(len(labels), round(NOISY * len(labels)), replace=False)
            labels[wrong] = (labels[wrong] + rng.integers(1, len(self.classes), len(wrong))) % len(self.classes)
        return labels

    def _painted(self, drawn: scenes.Scenes, values: Ints, split: int) -> cues.Painted:
        assert self.training.cue is not None
        return cues.paint(self.training.cue, drawn, values, len(self.classes), 10 * self.training.seed + split)

    def _priors(self) -> Floats | None:
        """Where classes are not balanced, the rarest is an eighth as frequent as the commonest."""
        if self.training.variation != "imbalance":
            return None
        shares = np.geomspace(1, 1 / 8, len(self.classes))
        return shares / shares.sum()
