"""Whom does the prediction follow, when two images exchange a part?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cam_engine.capture import Forward, rescore
from cam_engine.exchange.mixing import Mixer
from cam_engine.exchange.pairs import draw_pairs
from cam_engine.exchange.predicted import predicted_classes, predicted_inside
from cam_engine.metrics.pooled import ratio_interval


@dataclass(frozen=True, eq=False)
class Followed:
    """What the model said of the mixtures by one part.

    ``part``: the test's name, ``"object"`` or ``"focus/gradcam"``. ``pairs``: (P, 2) int64, donor and receiver. ``followed``:
    (P,) float64, 1 where the prediction on the mixture is the prediction on the donor, else 0; NaN for a pair left out.
    ``predicted``: (P,) int64, the class of the mixture; −1 for a pair left out. ``share``: mean of ``followed``; ``low``,
    ``high``: its 95 % bootstrap interval over receivers, seeded; NaN with fewer than two. ``n``: pairs counted.

    >>> from cam_engine.exchange import count_followed
    >>> pairs, of_images = np.array([[0, 1], [1, 0], [2, 0]]), np.array([0, 1, 2])
    >>> found = count_followed("frame", pairs, of_images, predicted=np.array([0, 0, -1]))
    >>> found.share, found.n
    (0.5, 2)
    """

    part: str
    pairs: NDArray[np.int64]
    followed: NDArray[np.float64]
    predicted: NDArray[np.int64]
    share: float
    low: float
    high: float
    n: int

    @property
    def receivers(self) -> int:
        """How many receivers have a pair that counts; the interval is over these."""
        return len(np.unique(self.pairs[np.isfinite(self.followed), 1]))

    def of(self, chosen: NDArray[np.bool_], seed: int = 0) -> Followed:
        """The same of some of the pairs, ``chosen`` (P,), counted again."""
        return _counted(self.part, self.pairs[chosen], self.followed[chosen], self.predicted[chosen], seed)


@dataclass(frozen=True)
class ObjectShare:
    """Object over object and background, with its 95 % bootstrap interval over receivers; ``n`` pairs counted. NaN where the
    prediction followed neither.

    >>> from cam_engine.exchange import count_followed, object_share
    >>> pairs, of_images = np.array([[0, 1], [1, 0]]), np.array([0, 1])
    >>> objects, background = (count_followed(part, pairs, of_images, of_images) for part in ("object", "background"))
    >>> object_share(objects, background).share  # both as often
    0.5
    """

    share: float
    low: float
    high: float
    n: int


def follows(
    model: nn.Module,
    images: Tensor,
    predictions: Any,
    parts: Sequence[str],
    *,
    masks: Any = None,
    nuisance: Any = None,
    maps: Mapping[str, Any] | None = None,
    labels: Sequence[Any] | None = None,
    donors: int = 3,
    pairs: NDArray[np.int64] | None = None,
    seed: int = 0,
    batch_size: int = 64,
    forward: Forward | None = None,
    receiving: Callable[[list[int]], Forward | None] | None = None,
    output: Callable[[Any], Tensor] | None = None,
    inside: Any = None,
    share: Callable[[int], Sequence[int]] | None = None,
) -> dict[str, Followed]:
    """Take a part of each image from another one, ask the model, and count whose prediction comes out.

    Counted are pairs whose two predictions differ, and which have the regions that a part exchanges. The model runs in eval
    mode without gradients and is left as it was; the mixtures of all parts share its batches, made as they are needed.

    Args:
        model: A classifier: scores (N, K), or one logit (N,) or (N, 1). With ``inside`` a segmenter, (N, K, h, w).
        images: (N, C, H, W) as the model gets them.
        predictions: (N,) int, the class that the model names for each image (:func:`predicted_classes`); −1 for none.
        parts: Names of :func:`available_parts`. One that needs maps is tested for each method, as ``"focus/gradcam"``.
        masks, nuisance: (N, H, W) bool or coverage in [0, 1]: the objects, the suspected regions. Boxes are filled before.
        maps: For each method (N, h, w).
        labels: N of them; donors of another label are preferred.
        donors: For each receiver.
        pairs: (P, 2) donor and receiver, in place of :func:`draw_pairs`.
        seed: Of pairs, moves and intervals; equal calls give equal results.
        batch_size: Mixtures in one forward, and in memory.
        forward: ``(model, images) -> outputs`` for a model that is not called with the images alone.
        receiving: In its place, for a model that takes more than the images: from the receivers of a batch of mixtures, the
            forward that has theirs.
        output: Picks the scores out of what the model returns.
        inside: (N, H, W) bool, where a segmenter's class of each image is read (:func:`predicted_inside`): of a mixture in the
            donor's region where its object was put in, else in the receiver's.
        share: Of a number of mixtures, which to ask for; the others are left out. None: all.

    Raises:
        ValueError: An unknown part, one that lacks what it needs, or inputs that do not fit the images.
        TypeError: The model returns something else than one class an image.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2, bias=False))
    >>> net[1].weight.data = torch.stack([torch.zeros(64), torch.ones(64)])  # class 1 where the image is bright
    >>> images = torch.tensor([-1.0, 1.0])[:, None, None, None].expand(2, 1, 8, 8)
    >>> result = follows(net, images, [0, 1], ["colour", "frame"])
    >>> result["colour"].share, result["frame"].share  # the frame of one pixel is 28 of 64
    (1.0, 0.0)
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(f"images must be float (N, C, H, W), not {images.dtype} {tuple(images.shape)}.")
    named = np.asarray(torch.as_tensor(predictions).cpu())
    if named.shape != (len(images),):
        raise ValueError(f"predictions= has shape {named.shape}; one class for each of {len(images)} images is needed.")
    pairs = draw_pairs(len(images), donors, labels, seed) if pairs is None else np.asarray(pairs, dtype=np.int64)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ValueError(f"pairs= has shape {pairs.shape}; (P, 2) is expected, donor and receiver.")
    mixer = Mixer(images, pairs, parts, masks=masks, nuisance=nuisance, maps=maps, seed=seed)
    of_donor, of_receiver = named[pairs].T
    differ = (of_donor != of_receiver) & (of_donor >= 0) & (of_receiver >= 0)
    predicted = {key: np.full(len(pairs), -1) for key in mixer.keys}
    jobs = [(key, int(i)) for key in mixer.keys for i in np.flatnonzero(differ & mixer.mixes(key))]
    jobs = jobs if share is None else [jobs[i] for i in share(len(jobs))]
    for start in range(0, len(jobs), batch_size):
        chunk = jobs[start : start + batch_size]
        groups = [(key, [i for _, i in group]) for key, group in groupby(chunk, lambda job: job[0])]
        call = forward if receiving is None else receiving([int(pairs[i, 1]) for _, i in chunk])
        outputs = rescore(model, _as_model(model, torch.cat([mixer(*group) for group in groups])), forward=call)
        scores = outputs if output is None else output(outputs)
        classes = (predicted_classes(scores) if inside is None else _inside(scores, inside, pairs, chunk)).cpu().numpy()
        for (key, i), found in zip(chunk, classes, strict=True):
            predicted[key][i] = found
    return {key: count_followed(key, pairs, named, predicted[key], seed) for key in mixer.keys}


def object_share(objects: Followed, background: Followed, seed: int = 0) -> ObjectShare:
    """Who wins when an object stands in another image's scene: object / (object + background), on pairs that both count.

    Raises:
        ValueError: The two are of different pairs.

    >>> from cam_engine.exchange import count_followed, object_share
    >>> pairs, of_images = np.array([[0, 1], [1, 0], [2, 0]]), np.array([0, 1, 2])
    >>> objects = count_followed("object", pairs, of_images, np.array([0, 1, 0]))  # two mixtures are named as their object
    >>> background = count_followed("background", pairs, of_images, np.array([1, 0, 2]))
    >>> object_share(objects, background)
    ObjectShare(share=0.6666666666666666, low=0.5, high=1.0, n=3)
    """
    if not np.array_equal(objects.pairs, background.pairs):
        raise ValueError("object and background were tested on different pairs; one call of follows() tests both.")
    both = np.isfinite(objects.followed) & np.isfinite(background.followed)
    won = np.where(both, objects.followed, 0.0)
    decided = won + np.where(both, background.followed, 0.0)
    receivers = objects.pairs[:, 1]
    share, low, high = ratio_interval(
        _sums(won[both], receivers[both]), _sums(decided[both], receivers[both]), seed=seed
    )
    return ObjectShare(share, low, high, int(both.sum()))


def count_followed(
    part: str, pairs: NDArray[np.int64], predictions: NDArray[np.int64], predicted: NDArray[np.int64], seed: int = 0
) -> Followed:
    """Count what a model said of mixtures, wherever they were made.

    Args:
        part: The test's name.
        pairs: (P, 2) donor and receiver.
        predictions: (N,) class of each image.
        predicted: (P,) class of each mixture, −1 for a pair left out.
        seed: Of the interval.

    >>> from cam_engine.exchange import count_followed
    >>> pairs = np.array([[0, 1], [1, 0], [2, 0]])
    >>> count_followed("frame", pairs, predictions=np.array([0, 1, 2]), predicted=np.array([0, 0, 2])).followed
    array([1., 0., 1.])
    """
    hits = (predicted == predictions[pairs[:, 0]]).astype(np.float64)
    return _counted(part, pairs, np.where(predicted >= 0, hits, np.nan), predicted, seed)


def _counted(
    part: str, pairs: NDArray[np.int64], followed: NDArray[np.float64], predicted: NDArray[np.int64], seed: int
) -> Followed:
    counts = np.isfinite(followed)
    hits, receivers = followed[counts], pairs[counts, 1]
    interval = ratio_interval(_sums(hits, receivers), _sums(np.ones_like(hits), receivers), seed=seed)
    return Followed(part, pairs, followed, predicted, *interval, n=int(counts.sum()))


def _inside(scores: Tensor, regions: Any, pairs: NDArray[np.int64], mixtures: Sequence[tuple[str, int]]) -> Tensor:
    """The class of each mixture, (part, pair), where its object lies."""
    holders = [pairs[i, 0 if part == "object" else 1] for part, i in mixtures]
    return predicted_inside(scores, torch.as_tensor(regions)[holders])[0]


def _sums(values: NDArray[np.float64], receivers: NDArray[np.int64]) -> NDArray[np.float64]:
    """The sum over each receiver that occurs, in order."""
    _, places = np.unique(receivers, return_inverse=True)
    return np.bincount(places, weights=values).astype(np.float64)


def _as_model(model: nn.Module, mixtures: Tensor) -> Tensor:
    """On the model's device and, unless autocast does it, in its precision."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if parameter is None:
        return mixtures
    autocast = torch.is_autocast_enabled(parameter.device.type)
    return mixtures.to(parameter.device, mixtures.dtype if autocast else parameter.dtype)
