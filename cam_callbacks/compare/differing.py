"""Which of many runs a page shows: those that differ most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cam_callbacks.compare.run import Run

COSTS = ("seconds", "exchange_seconds", "overhead")  # what a look took says nothing of where it looked


def most_different(runs: Sequence[Run], most: int) -> list[int]:
    """Indices of at most ``most`` runs, ascending: the first, which the others are compared with, then one after the other the run
    that is farthest from those that are chosen already.

    The distance is Euclidean between the last values of all numbers, the trainer's own among them, each in standard deviations
    over the runs; a number that a run lacks is taken as the mean.
    """
    if len(runs) <= most:
        return list(range(len(runs)))
    places = _last_values(runs)
    chosen, nearest = [0], np.full(len(runs), np.inf)
    while len(chosen) < most:
        nearest = np.minimum(nearest, ((places - places[chosen[-1]]) ** 2).sum(1))
        nearest[chosen] = -1.0
        chosen.append(int(nearest.argmax()))
    return sorted(chosen)


def _last_values(runs: Sequence[Run]) -> NDArray[np.float64]:
    """(R, K): standardised over the runs."""
    rows = []
    for run in runs:
        last = run.records[-1]
        row = {text: last.metrics.get(text, np.nan) for key, text in run.keys.items() if key.metric not in COSTS}
        rows.append(row | {f"user {name}": last.user_metrics.get(name, np.nan) for name in run.user_names})
    names = sorted({name for row in rows for name in row})
    values = np.array([[row.get(name, np.nan) for name in names] for row in rows], dtype=np.float64)
    known = np.isfinite(values)
    count = np.maximum(known.sum(0), 1)
    centred = np.where(known, values - np.where(known, values, 0.0).sum(0) / count, 0.0)
    spread = np.sqrt((centred**2).sum(0) / count)
    return np.asarray(centred / np.where(spread > 0, spread, 1.0))
