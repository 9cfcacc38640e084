"""Ratios of sums over images, where a mean of ratios would let a few small denominators outvote the rest."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from cam_engine.metrics.distribution import Float

RESAMPLES = 1000
CONFIDENCE = 0.95


def ratio_interval(
    numerators: Any, denominators: Any, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """Σ numerators / Σ denominators over units (n,), with a percentile bootstrap interval over them (Efron 1979), seeded:
    (ratio, low, high).

    Units with a NaN on either side are left out. NaN where the denominators add up to 0; no interval (NaN, NaN) with fewer
    than two units that have a denominator. A resample without any denominator is left out.
    """
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    defined = np.isfinite(above) & np.isfinite(below)
    above, below = above[defined], below[defined]
    if not below.sum() > 0:
        return float("nan"), float("nan"), float("nan")
    ratio = float(above.sum() / below.sum())
    if (below > 0).sum() < 2:
        return ratio, float("nan"), float("nan")
    counts = _counts(len(below), resamples, seed)
    drawn = counts @ below
    tail = (1 - confidence) / 2
    low, high = np.quantile((counts @ above)[drawn > 0] / drawn[drawn > 0], (tail, 1 - tail))
    return ratio, float(low), float(high)


@lru_cache(maxsize=8)
def _counts(n: int, resamples: int, seed: int) -> Float:
    """(resamples, n): how often each unit is drawn in each resample."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), resamples).astype(np.float64)
