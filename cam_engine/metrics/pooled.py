"""Ratios of sums over images, where a mean of ratios would let a few small denominators outvote the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cam_engine.metrics.distribution import Maps
from cam_engine.metrics.localisation import on_target_mass
from cam_engine.metrics.resampling import CONFIDENCE, RESAMPLES, counts, sums


@dataclass(frozen=True)
class Pooled:
    """One number for all images, ``low`` and ``high`` its 95 % bootstrap interval over them, and ``n``, the images counted.

    >>> from cam_engine.metrics import pooled_enrichment
    >>> maps, masks = np.array([[[3.0, 1.0]], [[1.0, 1.0]]]), np.array([[[1.0, 0.0]], [[1.0, 1.0]]])
    >>> found = pooled_enrichment(maps, masks)
    >>> found.n, bool(found.low <= found.value <= found.high)
    (2, True)
    """

    value: float
    low: float
    high: float
    n: int


def pooled_enrichment(maps: Maps, region: Any, *, seed: int = 0) -> Pooled:
    """Mass on the region over the region's area, both summed over images: Σᵢ Σ p·m / Σᵢ mean(m); 1 is chance.

    ``maps`` and ``region`` (N, h, w) as for :func:`cam_engine.metrics.enrichment`, whose mean lets four tiny objects outvote
    sixty images: a map that misses a large object costs 1, one that hits a tiny one gives 1 / area. Images with an invalid
    map or an empty region are left out. NaN where none is left; no interval with fewer than two.

    >>> import numpy as np
    >>> maps = np.array([[[3.0, 1.0]], [[1.0, 1.0]]])
    >>> pooled_enrichment(maps, np.array([[[1.0, 0.0]], [[1.0, 1.0]]])).value.__round__(6)  # (0.75 + 1) / (0.5 + 1)
    1.166667
    """
    mass = on_target_mass(maps, region)
    area = np.asarray(region, dtype=np.float64).mean((1, 2))
    return Pooled(*ratio_interval(mass, area, seed=seed), n=int(np.isfinite(mass).sum()))


def ratio_interval(
    numerators: Any, denominators: Any, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """Σ numerators / Σ denominators over units (n,), with a percentile bootstrap interval over them (Efron 1979), seeded:
    (ratio, low, high).

    Units with a NaN on either side are left out. NaN where the denominators add up to 0; no interval (NaN, NaN) with fewer
    than two units that have a denominator. A resample without any denominator is left out.

    >>> ratio, low, high = ratio_interval([1, 1, 1, 3], [1, 1, 1, 1])
    >>> ratio, low <= ratio <= high
    (1.5, True)
    """
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    defined = np.isfinite(above) & np.isfinite(below)
    above, below = above[defined], below[defined]
    if not below.sum() > 0:
        return float("nan"), float("nan"), float("nan")
    ratio = float(above.sum() / below.sum())
    if (below > 0).sum() < 2:
        return ratio, float("nan"), float("nan")
    resampled = sums(counts(len(below), resamples, seed), np.stack([above, below], axis=1))
    over, under = resampled[resampled[:, 1] > 0].T
    tail = (1 - confidence) / 2
    low, high = np.quantile(over / under, (tail, 1 - tail))
    return ratio, float(low), float(high)
