"""How far a focus has moved between two maps of the same image."""

from __future__ import annotations

import numpy as np
from scipy.special import rel_entr

from cam_engine.metrics.distribution import Float, Maps, pair
from cam_engine.metrics.shape import centroid


def jensen_shannon(maps: Maps, others: Maps) -> Float:
    """Jensen–Shannon divergence, base 2, between each map and its counterpart: (N,), 0 (same focus) to 1 (disjoint).

    JSD(p, q) = ½ KL(p‖m) + ½ KL(q‖m), m = ½(p + q); equals scipy's ``jensenshannon(p, q, base=2) ** 2``. NaN where
    either map is invalid. Lin 1991, IEEE Trans. Inf. Theory 37.

    Raises:
        ValueError: The two differ in shape.
    """
    p, q = pair(maps, others)
    middle = (p + q) / 2
    divergence = (rel_entr(p, middle) + rel_entr(q, middle)).sum((1, 2)) / (2 * np.log(2))
    return np.clip(divergence, 0.0, 1.0)


def centroid_shift(maps: Maps, others: Maps) -> Float:
    """Distance of the centres of mass, over √2 (the unit square's diagonal): (N,), 0 to 1. NaN where either map is invalid."""
    p, q = pair(maps, others)
    return np.linalg.norm(centroid(p) - centroid(q), axis=1) / np.sqrt(2)
