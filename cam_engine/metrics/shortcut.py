"""Signals of a shortcut, over a whole probe set."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cam_engine.metrics.distribution import Float


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
