"""The form of a single map."""

from __future__ import annotations

import numpy as np
from scipy.special import entr

from cam_engine.metrics.distribution import Float, Maps, distributions


def entropy(maps: Maps) -> Float:
    """Normalised entropy −Σ p ln p / ln n over the n cells: (N,), 0 (one cell) to 1 (uniform). NaN for an invalid map.

    A grid of one cell has no spread to speak of: NaN.
    """
    p = distributions(maps)
    cells = p.shape[1] * p.shape[2]
    if cells < 2:
        return np.full(len(p), np.nan)
    return np.clip(entr(p).sum((1, 2)) / np.log(cells), 0.0, 1.0)


def centroid(maps: Maps) -> Float:
    """Centre of mass (y, x): (N, 2), each 0 to 1, with cell centres at ((i + ½)/h, (j + ½)/w). NaN for an invalid map."""
    p = distributions(maps)
    _, h, w = p.shape
    y, x = (np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w
    return np.stack([(p.sum(2) * y).sum(1), (p.sum(1) * x).sum(1)], axis=1)
