"""The settled rule: when a focus counts as calm.

A look is calm where the drift against the look before is at most max(3F, 0.05), F being the noise floor; a focus has settled
after two calm looks running, and stays so.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cam_callbacks.look.tracking import Track
from cam_engine.metrics import jensen_shannon, mean

CALM = 0.05
CALM_FLOORS = 3.0
CALM_LOOKS = 2


def settle(track: Track, maps: NDArray[np.float32]) -> Track:
    """The settled rule: count calm looks running; a focus that has settled stays so."""
    if track.settled or track.reference is None or track.previous is None:
        return track
    drift = mean(jensen_shannon(maps, track.previous))
    if not drift <= np.fmax(CALM_FLOORS * track.floor, CALM):
        return replace(track, calm_looks=0, calm=float("nan"))
    looks = track.calm_looks + 1
    before = track.calm * track.calm_looks if track.calm_looks else 0.0
    return replace(track, calm_looks=looks, calm=(before + drift) / looks, settled=looks >= CALM_LOOKS)
