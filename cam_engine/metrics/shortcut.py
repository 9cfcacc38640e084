"""Signals of a shortcut, over a whole probe set."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cam_engine.metrics.distribution import Float, Maps, distributions
from cam_engine.metrics.drift import jensen_shannon


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
