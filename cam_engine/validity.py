"""Which maps say anything: one rule for numbers and pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MASS_FLOOR = 1e-12
"""A map whose sum after ReLU is not above this is invalid."""


def valid_maps(maps: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Of maps (N, h, w): (N,) bool, finite everywhere, and a sum after ReLU above 1e-12.

    >>> valid_maps(np.array([[[0.0, 2.0]], [[0.0, -1.0]], [[np.nan, 1.0]]]))
    array([ True, False, False])
    """
    finite = np.asarray(np.isfinite(maps).all(axis=(1, 2)))
    with np.errstate(over="ignore"):  # an infinite sum is above it too
        mass = np.maximum(np.where(finite[:, None, None], maps, 0.0), 0.0).sum((1, 2))
    usable: NDArray[np.bool_] = finite & (mass > MASS_FLOOR)
    return usable
