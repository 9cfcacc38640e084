"""What the page is given of one run: its numbers at every look, and the maps of those looks that are kept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cam_callbacks.compare.alerts import alerts, unjudged, untrusted
from cam_callbacks.compare.blocks import block, quantise
from cam_callbacks.compare.mixtures import mixtures
from cam_callbacks.compare.run import Run
from cam_callbacks.compare.verdict import standing, verdict
from cam_callbacks.keys import Key
from cam_callbacks.records import Record

PER_IMAGE = ("drift_ref", "on_target_enrichment", "nuisance_enrichment", "entropy")


def run_data(
    run: Run, probe: int, places: set[int], images: Sequence[int], unit: str, among: Sequence[Run] = ()
) -> dict[str, Any]:
    """A run as ``viewer/README.md`` describes it.

    Args:
        run: The run.
        probe: Number of its probe.
        places: Of the time axis whose maps are kept.
        images: Whose maps are kept, ascending.
        unit: Of the time axis, "epoch" or "look".
        among: The runs that it stands beside.
    """
    frames = [i for i, record in enumerate(run.records) if getattr(record, unit) in places]
    records = [run.records[i] for i in frames]
    return {
        "name": run.name,
        "probe": probe,
        "looks": [record.look for record in run.records],
        "epochs": [record.epoch for record in run.records],
        "steps": [record.step for record in run.records],
        "places": [getattr(record, unit) for record in run.records],
        "frames": frames,
        "reference": [_reference(run, method, layer) for method in run.methods for layer in run.layers],
        "series": list(_series(run)),
        "verdict": {"state": standing(run), "text": verdict(run, among)},
        "alerts": alerts(run, unit),
        "unjudged": unjudged(run),
        "untrusted": untrusted(run),
        "follows": list(_follows(run)),
        "mixtures": mixtures(run, images),
        "predictions": _stacked([r.predictions for r in records], images, "i4", -1),
        "confidences": _stacked([r.confidences for r in records], images, "f4", np.nan),
        "maps": [_maps(run, records, method, layer, images) for method in run.methods for layer in run.layers],
    }  # fmt: skip


def _maps(run: Run, records: Sequence[Record], method: str, layer: str, images: Sequence[int]) -> dict[str, Any]:
    """A method's maps on a layer: (frames, images, h, w), and each image's numbers (frames, images)."""
    of_records = [record.maps.get((method, layer)) for record in records]
    grid = next((maps.shape[1:] for maps in of_records if maps is not None), (1, 1))
    blank = np.full((len(images), *grid), np.nan, np.float32)
    whole = np.stack(
        [blank if m is None or m.shape[1:] != grid else _rows(m, images, np.nan) for m in of_records] or [blank]
    )
    codes, low, high = quantise(whole)
    keys = {metric: Key(metric, method, layer).filed(run.layers) for metric in PER_IMAGE}
    values = {m: _stacked([r.per_image.get(key) for r in records], images, "f4", np.nan) for m, key in keys.items()}
    return {
        "method": method,
        "layer": layer,
        "grid": [int(side) for side in grid],
        "codes": block(codes, "u1"),
        "low": block(low, "f4"),
        "high": block(high, "f4"),
        "shift": _shift(run, records, method, layer, grid),
        "per_image": {metric: values[metric] for metric in PER_IMAGE if values[metric] is not None},
    }


def _rows(values: NDArray[Any], images: Sequence[int], missing: float) -> NDArray[Any]:
    """The rows of these images; ``missing`` for those that it has not."""
    if images and images[-1] < len(values):
        return values[list(images)]
    rows = np.full((len(images), *values.shape[1:]), missing, values.dtype)
    for row, image in enumerate(images):
        if image < len(values):
            rows[row] = values[image]
    return rows


def _stacked(values: Sequence[NDArray[Any] | None], images: Sequence[int], dtype: str, missing: float) -> str | None:
    """(frames, images) as a block; None where no frame has any."""
    if all(of_frame is None for of_frame in values):
        return None
    blank = np.full(len(images), missing)
    return block(np.stack([blank if v is None else _rows(v, images, missing) for v in values]), dtype)


def _series(run: Run) -> Iterable[dict[str, Any]]:
    """Every number over the run's looks: those of the maps, then the trainer's own."""
    for key in run.keys:
        named = asdict(key) if key.rule is None else {"metric": "alert", "method": key.rule, "layer": ""}
        series: dict[str, Any] = named | {"mean": [rounded(value) for value in run.curve(key)]}
        name = key.filed(run.layers)
        for aggregate in ("worst_tenth", "worst_class"):
            values = [rounded(record.aggregates.get(name, {}).get(aggregate)) for record in run.records]
            if any(value is not None for value in values):
                series[aggregate] = values
        yield series
    for name in run.user_names:
        yield {"metric": name, "user": True, "mean": [rounded(value) for value in run.user_curve(name)]}


def _follows(run: Run) -> Iterable[dict[str, Any]]:
    """What each exchange test counted at each look: ``mean`` and its interval ``low`` to ``high``, of ``n`` pairs; null where it
    was not made."""
    for key in run.keys:
        if key.metric.startswith("follows_") or key.metric == "object_share":
            counted = [record.aggregates.get(key.filed(run.layers), {}) for record in run.records]
            if any(counted):
                values = {name: [rounded(of.get(name)) for of in counted] for name in ("mean", "low", "high", "n")}
                yield {"part": key.metric.removeprefix("follows_"), "method": key.method, "layer": key.layer} | values


def _shift(
    run: Run, records: Sequence[Record], method: str, layer: str, grid: tuple[int, ...]
) -> dict[str, Any] | None:
    """The max-t test of each frame, t (frames, h, w); None where the records have none."""
    key = (method, layer)
    references = [record.reference.get(f"{method}/{layer}", {}) for record in records]
    if not any(key in r.t_maps and "t_critical" in of for r, of in zip(records, references, strict=True)):
        return None
    p = run.keys.get(Key("max_t_p", method, layer), "")
    blank = np.full(grid, np.nan, np.float32)
    return {
        "t": block(np.stack([r.t_maps.get(key, blank) for r in records]), "f4"),
        "p": [rounded(record.metrics.get(p)) for record in records],
        "critical": [rounded(of.get("t_critical")) for of in references],
    }


def rounded(value: float | None) -> float | None:
    """Five digits, which is more than a chart or a table shows; None where undefined."""
    return float(f"{value:.5g}") if isinstance(value, (int, float)) and math.isfinite(value) else None


def _reference(run: Run, method: str, layer: str) -> dict[str, Any]:
    """What drift is measured against; null where a number is undefined."""
    known = run.reference(method, layer).items()
    return {"method": method, "layer": layer} | {k: rounded(v) if isinstance(v, float) else v for k, v in known}
