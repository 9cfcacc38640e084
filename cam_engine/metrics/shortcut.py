"""Signals of a shortcut, over a whole probe set."""

from __future__ import annotations

import numpy as np

from cam_engine.metrics.distribution import Float, Maps, distributions
from cam_engine.metrics.drift import jensen_shannon


def consensus(maps: Maps) -> Float:
    """Each image's agreement with the mean map, 1 − JSD(p_i, mean p): (N,), 0 to 1; NaN for an invalid map.

    Its mean is 1 when every image is looked at in the same place, which is how a cue at a fixed place shows. Fewer than
    two valid
    maps: NaN.
    """
    p = distributions(maps)
    usable = np.isfinite(p).all((1, 2))
    if usable.sum() < 2:
        return np.full(len(p), np.nan)
    mean = p[usable].mean(0)
    return 1.0 - jensen_shannon(p, np.broadcast_to(mean, p.shape))
