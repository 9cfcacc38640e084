"""What alert rules judge: one series at one look, or the look as a whole."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cam_callbacks.look.exchanged import Exchanged, Outcomes
from cam_engine.metrics import MaxT

Array = NDArray[np.float64]

Z95 = 1.959964  # standard errors to either side in a 95 % interval


@dataclass(frozen=True, eq=False)
class Measurement:
    """One method on one layer at one look.

    ``look``: its number. ``settled``: the focus has been calm at two looks running, at some time. ``reference_set``: the
    reference is the one that was asked for, and no stand-in. ``numbers``: of the probe as a whole, by metric.
    ``per_image``: (N,) each, NaN where undefined. ``aggregates``: intervals of the numbers, by metric. ``cells``: of the grid.
    ``calm``: the drift between looks of a settled focus. ``floor``: the noise floor. ``moved``: the test against the reference.
    ``at_chance``: the model's accuracy on the probe is not above chance; None where that is not known. ``explainable``: (N,)
    bool, images of which a map is to be expected; None: all.
    """

    look: int
    settled: bool
    reference_set: bool
    numbers: Mapping[str, float]
    per_image: Mapping[str, Array]
    aggregates: Mapping[str, Mapping[str, float]]
    cells: int
    calm: float
    floor: float
    moved: MaxT
    at_chance: bool | None = None
    explainable: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class LookEvidence:
    """One look as a whole.

    ``exchanged``: what the prediction followed; None where that was not tested. ``then``: the same at the reference.
    ``gap``: (N,) what the counterfactual version costs in accuracy. ``settled``: any series has. ``at_chance``: see
    :class:`Measurement`. ``right``: (N,) bool, images of which the model names the label, see :func:`named_right`.
    """

    look: int
    settled: bool
    at_chance: bool | None
    exchanged: Exchanged | None = None
    then: Mapping[str, Outcomes] | None = None
    gap: Array | None = None
    right: NDArray[np.bool_] | None = None


def named_right(predictions: NDArray[np.int64] | None, labels: NDArray[np.int64] | None) -> NDArray[np.bool_] | None:
    """(N,) of which images the prediction is the label; an image whose label is −1 passes for one. None where it cannot be told."""
    return None if predictions is None or labels is None else (predictions == labels) | (labels < 0)


def is_at_chance(predictions: NDArray[np.int64] | None, labels: NDArray[np.int64] | None) -> bool | None:
    """Is the accuracy on the probe no better than always naming its most frequent class? None where it
    cannot be told: no labels, or of one class. Images whose label is −1 have none.

    Better means that the lower end of Wilson's 95 % interval (Wilson 1927) lies above that class's share.
    """
    if predictions is None or labels is None or len(np.unique(labels[labels >= 0])) < 2:
        return None
    predictions, labels = predictions[labels >= 0], labels[labels >= 0]
    n, right = len(labels), float((predictions == labels).sum())
    frequent = np.unique(labels, return_counts=True)[1].max() / n
    share, z2 = right / n, Z95**2
    centre = share + z2 / (2 * n)
    low = (centre - Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    return bool(low <= frequent)
