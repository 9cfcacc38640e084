"""From a number for each image to a few for the probe set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cam_engine.metrics.distribution import Float
from cam_engine.metrics.resampling import CONFIDENCE, RESAMPLES, counts, sums

WORST = 0.1


def mean(values: Float) -> float:
    """Mean over the values that are defined; NaN where none is.

    >>> mean(np.array([1.0, 3.0, np.nan]))
    2.0
    """
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else float("nan")


def worst_tenth(values: Float, high_is_worse: bool = False) -> float:
    """Mean of the worst tenth of the defined values, at least of one; NaN where none is.

    >>> worst_tenth(np.arange(20.0)), worst_tenth(np.arange(20.0), high_is_worse=True)
    (0.5, 18.5)
    """
    defined = np.sort(values[np.isfinite(values)])
    if not defined.size:
        return float("nan")
    count = max(1, round(defined.size * WORST))
    return float((defined[-count:] if high_is_worse else defined[:count]).mean())


def by_group(values: Float, groups: Sequence[Any] | NDArray[Any]) -> dict[Any, float]:
    """Mean of each group's defined values, in order of the groups' first image; NaN for a group without any.

    >>> by_group(np.array([1.0, 3.0, 8.0]), ["a", "a", "b"])
    {'a': 2.0, 'b': 8.0}
    """
    tags = np.asarray(groups)
    return {tag: mean(values[tags == tag]) for tag in dict.fromkeys(tags.tolist())}


def bootstrap_interval(
    values: Float, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over images (Efron 1979), seeded: (low, high); NaN without two values.

    As ``scipy.stats.bootstrap(..., method="percentile")``, with the draws of each resample kept as counts and used again
    for every number of a look.

    >>> low, high = bootstrap_interval(np.arange(100.0))
    >>> low < 49.5 < high, high - low < 13
    (True, True)
    """
    defined = values[np.isfinite(values)]
    if defined.size < 2:
        return float("nan"), float("nan")
    means = sums(counts(defined.size, resamples, seed), defined) / defined.size
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


def aggregate(
    values: Float,
    labels: Sequence[Any] | NDArray[Any] | None = None,
    groups: Sequence[Any] | None = None,
    high_is_worse: bool = False,
    seed: int = 0,
) -> dict[str, float]:
    """Everything about one number: ``mean``, ``median``, ``worst_tenth``, ``worst_class`` (the worst class's mean),
    ``low`` and ``high`` (95 % bootstrap interval of the mean), ``n`` (images counted), and ``group:<tag>``, each group's mean.

    Values (N,) that are NaN are left out. What cannot be said is NaN: everything but ``n`` where no value is defined,
    ``worst_class`` without labels.

    >>> numbers = aggregate(np.array([0.1, 0.2, 0.9, np.nan]), labels=[0, 0, 1, 1], high_is_worse=True)
    >>> numbers["n"], round(numbers["mean"], 3), numbers["median"], numbers["worst_class"]
    (3.0, 0.4, 0.2, 0.9)
    """
    low, high = bootstrap_interval(values, seed=seed)
    defined = values[np.isfinite(values)]
    result = {
        "mean": mean(values),
        "median": float(np.median(defined)) if defined.size else float("nan"),
        "worst_tenth": worst_tenth(values, high_is_worse),
        "worst_class": float("nan"),
        "low": low,
        "high": high,
        "n": float(defined.size),
    }
    if labels is not None and defined.size:
        of_classes = [value for value in by_group(values, labels).values() if np.isfinite(value)]
        result["worst_class"] = max(of_classes) if high_is_worse else min(of_classes)
    if groups is not None:
        result |= {f"group:{tag}": value for tag, value in by_group(values, groups).items()}
    return result
