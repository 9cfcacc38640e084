"""The permutation test of the focus: max-t over cells, under flips of the signs of images' differences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cam_engine.metrics.distribution import Float, Maps, pair
from cam_engine.metrics.resampling import signs, sums

FLIPS = 1000


@dataclass(frozen=True, eq=False)
class MaxT:
    """What :func:`max_t` found: ``t`` (h, w) the paired t of each cell, ``statistic`` the largest |t|, ``p`` its
    family-wise p-value, ``n`` the images counted, ``critical`` the |t| above which a cell has moved at 5 % family-wise.

    >>> from cam_engine.metrics import max_t
    >>> rng = np.random.default_rng(0)
    >>> before = rng.random((12, 2, 2))
    >>> found = max_t(before + [[0, 0], [0, 1]], before)
    >>> found.n, found.t.shape, bool(found.statistic > found.critical)
    (12, (2, 2), True)
    """

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
    flipped_signs = signs(n, flips, seed)
    observed = _t(difference.mean(0), squares, n)
    largest = float(np.abs(observed).max())
    flipped = np.abs(_t(sums(flipped_signs, difference) / n, squares, n)).max(1)
    as_large = int((flipped >= largest * (1 - 1e-9)).sum())
    exact = len(flipped_signs) == 2**n  # the flip that changes nothing is among them
    value = as_large / len(flipped_signs) if exact else (1 + as_large) / (1 + len(flipped_signs))
    return MaxT(observed.reshape(p.shape[1:]), largest, value, n, float(np.quantile(flipped, 0.95, method="higher")))


def _t(mean: Float, squares: Float, n: int) -> Float:
    """t from the mean and the sum of squares, which a flip of signs leaves alone. 0 in a cell where nothing differs."""
    variance = np.maximum(squares - n * mean**2, 1e-12 * squares) / (n - 1)
    return np.divide(mean, np.sqrt(variance / n), out=np.zeros_like(mean), where=variance > 1e-30)
