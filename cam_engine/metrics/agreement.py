"""Do all images of a probe have their focus in the same place?"""

from __future__ import annotations

import numpy as np

from cam_engine.metrics.distribution import Float, Maps, distributions
from cam_engine.metrics.drift import jensen_shannon

REPEATS = 20


def consensus(maps: Maps) -> Float:
    """Each image's agreement with the mean map of the others, 1 − JSD(pᵢ, mean of pⱼ, j ≠ i): (N,), 0 to 1.

    The image itself is left out of the mean, so that disjoint maps score 0 however few they are. Its mean over images is 1
    where every image is looked at in the same place, and also where all maps are flat: :func:`consensus_by_chance` tells
    the two apart. NaN for an invalid map; with fewer than two valid maps for all.

    >>> left, right = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    >>> consensus(np.stack([left, left])), consensus(np.stack([left, right]))
    (array([1., 1.]), array([0., 0.]))
    """
    return _with_others(distributions(maps))


def consensus_by_chance(maps: Maps, repeats: int = REPEATS, seed: int = 0) -> Float:
    """The consensus that the same maps reach when each one's cells are shuffled: (N,), the mean over seeded ``repeats``.

    Shuffling keeps each map's entropy and takes its places away; so this is what maps as diffuse as these score without
    having any place in common. Compare the mean over images with that of :func:`consensus`. NaN as there.

    >>> one_cell = np.eye(1, 16).reshape(1, 4, 4).repeat(8, 0)
    >>> bool(consensus_by_chance(one_cell).mean() < 0.2), consensus_by_chance(np.ones((2, 4, 4)))
    (True, array([1., 1.]))
    """
    p = distributions(maps)
    rng = np.random.default_rng(seed)
    total = np.zeros(len(p))
    for _ in range(repeats):
        total += _with_others(rng.permuted(p.reshape(len(p), -1), axis=1).reshape(p.shape))
    return total / repeats


def _with_others(p: Float) -> Float:
    usable = np.isfinite(p).all((1, 2))
    if usable.sum() < 2:
        return np.full(len(p), np.nan)
    others = (p[usable].sum(0) - p) / (usable.sum() - 1)
    # What subtraction leaves of a cell that only this image has is rounding.
    return 1.0 - jensen_shannon(p, np.maximum(others, 0.0))
