"""The maps of every probe image, and what the model says of it: on every process a share, then gathered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cam_callbacks.look.noise_floor import Noisy
from cam_callbacks.look.subject import Subject
from cam_callbacks.look.target import Target, target_of_images
from cam_callbacks.records import Maps
from cam_engine.errors import renamed


@dataclass(frozen=True, eq=False)
class Explained:
    """What a model shows of N images.

    ``maps[method, layer]``: (N, h, w) float32 on the layer's grid, after ReLU, not rescaled.
    ``predictions``, ``confidences``: (N,) predicted class and its probability; None where the task has no such thing.
    ``scores``: (N,) the score that was explained; None where there is none. ``targets``: (N,) its class, −1 for an image
    without; None where it is that of no class. ``there``: (N,) bool, has the image what is explained; None: all have.
    """

    maps: Maps
    predictions: NDArray[np.int64] | None
    confidences: NDArray[np.float64] | None
    scores: NDArray[np.float64] | None
    targets: NDArray[np.int64] | None = None
    there: NDArray[np.bool_] | None = None

    def first(self, n: int) -> Explained:
        """What it shows of the first ``n`` images."""
        arrays = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        maps = {series: maps[:n] for series, maps in self.maps.items()}
        return replace(self, maps=maps, **{name: array[:n] for name, array in arrays.items()})


def explain(subject: Subject, images: Tensor | Noisy, target: Target | None = None) -> Explained:
    """Explain versions of the probe's images; every process has to call it, and all get the same.

    Args:
        subject: The model.
        images: (N, C, H, W), in the probe's order.
        target: In place of the subject's.

    Raises:
        LookError: It failed on any process.
    """
    return joined(subject.batches.plan.everywhere(lambda: explain_share(subject, images, target), _alike))


def explain_share(subject: Subject, images: Tensor | Noisy, target: Target | None = None) -> Explained:
    """Explain this process's share of ``images``; talks to no other."""
    task = subject.task
    score = task.target if target is None else target

    def of_batch(indices: list[int]) -> Explained:
        call = subject.calling.of(indices)
        subject.cam.batch_size = subject.batches.most
        with renamed("targets=", "target="):
            result = subject.cam(images[indices], target_of_images(score, indices), outputs=True, forward=call)
        answer = task.read(subject.cam.scores_of(result.outputs), indices)
        scores = result.scores.double().cpu().numpy() if task.has_score and result.scores is not None else None
        maps = {key: subject.within_image(m, result.outputs).float().cpu().numpy() for key, m in result.raw.items()}
        return Explained(maps, answer.predictions, answer.confidences, scores, answer.explained, answer.there)

    plan = subject.batches.plan
    explained = joined(subject.batches.over(plan.padded(len(images)), of_batch))
    return explained.first(len(plan.own(len(images))))


def _alike(one: Explained, other: Explained) -> bool:
    pairs = [(maps, other.maps[series]) for series, maps in one.maps.items()]
    return all(a.shape == b.shape and np.allclose(a, b, 1e-3, 1e-4 * float(np.abs(a).max(initial=0))) for a, b in pairs)


def concatenated(parts: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    """Those parts that are there, one after the other; None where none is."""
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if there else None


def joined(parts: Sequence[Explained]) -> Explained:
    """Parts of the images, in their order, as one; a process has none where there are more processes than images."""
    filled = [part.maps for part in parts if part.maps]
    return Explained(
        {key: np.concatenate([maps[key] for maps in filled]) for key in (filled[0] if filled else {})},
        concatenated([part.predictions for part in parts]),
        concatenated([part.confidences for part in parts]),
        concatenated([part.scores for part in parts]),
        concatenated([part.targets for part in parts]),
        concatenated([part.there for part in parts]),
    )
