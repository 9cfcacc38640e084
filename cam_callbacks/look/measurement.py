"""The numbers of one series at one look: what rules judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cam_engine.metrics import MaxT

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Measurement:
    """One method on one layer at one look.

    ``look``: its number. ``settled``: the focus has been calm at two looks running, at some time. ``reference_set``: the
    reference is the one that was asked for, and no stand-in. ``numbers``: of the probe as a whole, by metric: means over
    images, ``valid_frac``, …. ``per_image``: (N,) each, NaN where undefined. ``target_at_reference``: (N,) on-target
    enrichment of the reference's maps; None without masks. ``floor``: the noise floor. ``moved``: the test against the
    reference.
    """

    look: int
    settled: bool
    reference_set: bool
    numbers: Mapping[str, float]
    per_image: Mapping[str, Array]
    target_at_reference: Array | None
    floor: float
    moved: MaxT
