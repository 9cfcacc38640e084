"""Signals of a shortcut, over a whole probe set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import ArrayLike

from cam_engine.metrics.distribution import Float, Maps, distributions, pair
from cam_engine.metrics.drift import jensen_shannon

FLIPS = 1000


def consensus(maps: Maps) -> Float:
    """Each image's agreement with the mean map, 1 − JSD(p_i, mean p): (N,), 0 to 1; NaN for an invalid map.

    Its mean is 1 when every image is looked at in the same place, which is how a cue at a fixed place shows. Fewer than
    two valid maps: NaN.

    >>> left, right = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    >>> consensus(np.stack([left, left])), consensus(np.stack([left, right])).round(3)
    (array([1., 1.]), array([0.689, 0.689]))
    """
    p = distributions(maps)
    usable = np.isfinite(p).all((1, 2))
    if usable.sum() < 2:
        return np.full(len(p), np.nan)
    mean = p[usable].mean(0)
    return 1.0 - jensen_shannon(p, np.broadcast_to(mean, p.shape))


@dataclass(frozen=True, eq=False)
class MaxT:
    """What :func:`max_t` found: ``t`` (h, w) the paired t of each cell, ``statistic`` the largest |t|, ``p`` its
    family-wise p-value, ``n`` the images counted, ``critical`` the |t| above which a cell has moved at 5 % family-wise."""

    t: Float
    statistic: float
    p: float
    n: int
    critical: float = float("nan")


def max_t(maps: Maps, others: Maps, flips: int = FLIPS, seed: int = 0) -> MaxT:
    """Has the focus moved in the same direction on many images? One test for all cells together.

    For each cell the paired t statistic, over images, of its share of the mass in ``maps`` minus that in ``others``:
    t = mean d / (sd d / √n), positive where focus was gained. Under the hypothesis that nothing moved, each image's
    difference could as well have the other sign; the largest |t| of all cells under ``flips`` seeded sign flips (under
    all 2ⁿ where these are not more) gives the p-value of the observed largest |t|. It holds for all cells at once (Nichols
    & Holmes 2002, Human Brain Mapping 15).

    p lies in (0, 1]; small means moved. The smallest p that n images can give is 2/2ⁿ, so eight are needed for p < 0.01.
    An image with an invalid map on either side is left out; with fewer than two left everything is NaN.
    It sees a move to the same cells in many images (a cue at a fixed place), and no cue that changes its place.

    >>> rng = np.random.default_rng(0)
    >>> before = rng.random((12, 2, 2))
    >>> after = before + [[0, 0], [0, 1]]  # on all images more focus at the lower right
    >>> moved = max_t(after, before)
    >>> moved.p < 0.01, int(moved.t.argmax())
    (True, 3)
    """
    p, q = pair(maps, others)
    difference = (p - q).reshape(len(p), -1)
    difference = difference[np.isfinite(difference).all(1)]
    n = len(difference)
    if n < 2:
        return MaxT(np.full(p.shape[1:], np.nan), float("nan"), float("nan"), n)
    squares = (difference**2).sum(0)
    signs = _signs(n, flips, seed)
    observed = _t(difference.mean(0), squares, n)
    largest = float(np.abs(observed).max())
    flipped = np.abs(_t(signs @ difference / n, squares, n)).max(1)
    found = int((flipped >= largest * (1 - 1e-9)).sum())
    exact = len(signs) == 2**n  # the flip that changes nothing is among them
    value = found / len(signs) if exact else (1 + found) / (1 + len(signs))
    return MaxT(observed.reshape(p.shape[1:]), largest, value, n, float(np.quantile(flipped, 0.95, method="higher")))


def counterfactual_gap(correct: ArrayLike, correct_without: ArrayLike) -> Float:
    """Accuracy with the cue as it is minus accuracy with it swapped or removed, image by image: (N,), −1, 0 or 1.

    Both are (N,) bool, of the same images in both versions. The mean is the gap: 0 for a model that does not use the cue,
    towards 1 for one that needs it. Never NaN.

    Raises:
        ValueError: The two differ in shape.

    >>> float(counterfactual_gap([True, True, True, False], [True, False, False, False]).mean())
    0.5
    """
    cued, without = np.asarray(correct, dtype=np.float64), np.asarray(correct_without, dtype=np.float64)
    if cued.shape != without.shape or cued.ndim != 1:
        raise ValueError(
            f"the two versions of the probe have {cued.shape} and {without.shape} images; equal are needed."
        )
    return cued - without


def _t(mean: Float, squares: Float, n: int) -> Float:
    """t from the mean and the sum of squares, which a flip of signs leaves alone. 0 in a cell where nothing differs."""
    variance = np.maximum(squares - n * mean**2, 1e-12 * squares) / (n - 1)
    return np.divide(mean, np.sqrt(variance / n), out=np.zeros_like(mean), where=variance > 1e-30)


@lru_cache(maxsize=8)
def _signs(n: int, flips: int, seed: int) -> Float:
    """(flips, n) of ±1: seeded, or all 2ⁿ where these are not more."""
    if 2**n <= flips:
        return np.array(list(product((1.0, -1.0), repeat=n)))
    return np.random.default_rng(seed).choice((1.0, -1.0), (flips, n))
