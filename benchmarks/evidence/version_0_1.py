"""The alert rules of version 0.1, from records of today's looks.

Its EigenCAM had another sign rule, and its reference another noise floor; the maps and references here are today's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cam_callbacks import Record
from evidence.alarms import Alarm

LOOKS = 2  # a rule has to hold at so many looks running


def raised(records: Sequence[Record], masks: bool = True) -> list[Alarm]:
    """Every first alarm of a run: (look, rule), in order."""
    running: dict[tuple[str, str], int] = {}
    first: dict[str, int] = {}
    for number, record in enumerate(records):
        for series in record.reference:
            holds = dict(_on_maps(record, series))
            if masks:
                holds |= dict(_on_target(record, series, records))
            for rule, now in holds.items():
                running[rule, series] = running.get((rule, series), 0) + 1 if now else 0
                if running[rule, series] >= LOOKS:
                    first.setdefault(rule, number)
    return [(number, rule) for rule, number in first.items()]


def _on_maps(record: Record, series: str) -> Iterator[tuple[str, bool]]:
    """What needs no masks."""
    method, of = series.split("/")[0], record.reference[series]
    entropy, drifts = record.metrics[f"cam/entropy/{method}"], record.per_image[f"drift_ref/{method}"]
    yield "diffuse", bool(of["settled"] and entropy > 0.95)
    drift, n = record.metrics[f"cam/drift_ref/{method}"], int(np.isfinite(drifts).sum())
    t, p = (record.metrics[f"cam/{name}/{method}"] for name in ("max_t", "max_t_p"))
    moved = drift > np.fmax(3 * _number(of["floor"]), 0.05) and p < 0.01 and t >= 0.65 * math.sqrt(n)
    yield "focus_moved", bool(of["settled"] and of["reference_set"] and n >= 8 and moved)


def _on_target(record: Record, series: str, records: Sequence[Record]) -> Iterator[tuple[str, bool]]:
    """What needs masks."""
    name, of = f"on_target_enrichment/{series.split('/')[0]}", record.reference[series]
    now, settled = record.per_image.get(name), of["settled"]
    if now is None or not np.isfinite(now).any():
        return
    yield "off_target", bool(settled and np.nanmean(now) < 1)
    before = [each for each in records if each.look == of["look"]]
    if not before:
        return
    then = before[0].per_image[name]
    change = (now - then)[np.isfinite(now - then)]
    if len(change) < 2 or not of["reference_set"]:
        yield "losing_focus", False
        return
    start = float(then[np.isfinite(now - then)].mean())
    t = change.mean() / max(change.std(ddof=1), 1e-12) * math.sqrt(len(change))
    yield "losing_focus", bool(settled and t < -4 and start > 0 and -change.mean() / start >= 0.05)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
