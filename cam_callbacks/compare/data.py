"""What the page is given: one dictionary, ready for JSON. `viewer/README.md` describes every field."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cam_callbacks.compare.agree import Part, agreement, short
from cam_callbacks.compare.blocks import block, pictures
from cam_callbacks.compare.differing import most_different
from cam_callbacks.compare.divergence import divergence
from cam_callbacks.compare.numbers import NO_CURVE, OF_A_REFERENCE, number, rank, user_number
from cam_callbacks.compare.run import Run, with_unique_names
from cam_callbacks.compare.run_data import rounded, run_data
from cam_callbacks.compare.table import Group, axis, table
from cam_callbacks.compare.verdict import accuracy_name
from cam_callbacks.text_table import printable
from cam_engine.render import COLORMAPS, colorize, contours

FORMAT = 1
BUDGET = 12_000_000  # cells of maps in one page: 16 MB of base64, where a browser still opens it at once
MOST_RUNS = 12  # in one page; the table in the terminal has all
SIDE_BY_SIDE = 10  # runs whose curves and images the page opens with
FEWEST_PLACES = 24  # of the time axis that keep their maps before images are left out


def page_data(runs: Sequence[Run], budget: int = BUDGET) -> dict[str, Any]:
    """Everything that the page shows of these runs, as plain values for JSON.

    Maps become 8 bits, each on a scale of its own. All numbers are kept at all looks; where the maps of all looks would be
    more than ``budget`` cells, those of evenly spaced looks are kept, and then of evenly spaced images, and ``notes`` says so. Of
    more than twelve runs those are kept that differ most (:func:`cam_callbacks.compare.differing.most_different`).

    Raises:
        ValueError: No runs.

    >>> from cam_callbacks.compare import load_run, page_data
    >>> data = page_data([load_run("runs/one")])
    >>> [run["name"] for run in data["runs"]]
    ['one']
    """
    if not runs:
        raise ValueError("a page needs at least one run, got none.")
    everything = with_unique_names(runs)
    runs = [everything[index] for index in most_different(everything, MOST_RUNS)]
    agreed = agreement(runs)
    probes = _probes(runs)
    places, images, notes = _kept(runs, probes, budget)
    accuracy = next((name for run in runs if (name := accuracy_name(run))), None)
    if len(runs) < len(everything):
        notes.append(
            f"This page holds {len(runs)} of {len(everything)} runs: the first, and those whose last numbers differ most from one "
            "another. The table in the terminal has all; for others name them to compare, or tick them in TensorBoard's tab CAM."
        )
    if len(runs) > SIDE_BY_SIDE:
        notes.append(
            f"Curves and images open with the first {SIDE_BY_SIDE} of {len(runs)} runs; the names above the curves show others."
        )
    return {
        "format": FORMAT,
        "title": " · ".join(run.name for run in runs),
        "axis": axis(runs),
        "places": places,
        "notes": [printable(note) for note in (*agreed.notes, *notes)],
        "same_probe": agreed.same_probe,
        "accuracy": accuracy,
        "probes": [_probe(runs[first], images[index]) for index, first in enumerate(_firsts(probes))],
        "runs": [
            run_data(run, probe, set(places), images[probe], axis(runs), runs)
            for run, probe in zip(runs, probes, strict=True)
        ],
        "parts": [_part(runs, part) for part in agreed.parts],
        "summary": [_group(group) for group in table(runs, agreed)],
        "facts": _facts(runs),
        "numbers": _numbers(runs, accuracy),
        "colormaps": {name: block(colorize(np.arange(256)[None] / 255, name), "u1") for name in COLORMAPS},
        "tables": [],
    }


# -- what is kept


def _probes(runs: Sequence[Run]) -> list[int]:
    """For each run the number of its probe; runs share one when the fingerprints agree."""
    prints = [str((run.manifest.get("probe") or {}).get("fingerprint")) for run in runs]
    order = list(dict.fromkeys(prints))
    return [order.index(fingerprint) for fingerprint in prints]


def _firsts(probes: Sequence[int]) -> list[int]:
    """For each probe the first run that has it."""
    return [probes.index(probe) for probe in range(max(probes) + 1)]


def _kept(runs: Sequence[Run], probes: Sequence[int], budget: int) -> tuple[list[int], list[list[int]], list[str]]:
    """Places of the time axis and images of each probe whose maps are in the page, and what to say where some are not."""
    unit = axis(runs)
    places = sorted({getattr(record, unit) for run in runs for record in run.records})
    counts = [_images(runs[first]) for first in _firsts(probes)]
    cells = sum(maps.size for run in runs for maps in run.records[-1].maps.values())  # of one place
    most = max(min(len(places), FEWEST_PLACES), int(budget // max(cells, 1)))
    kept = [places[i] for i in _spread(len(places), most)]
    share = min(1.0, budget / max(1, len(kept) * cells))
    images = [_spread(count, max(1, int(count * share))) for count in counts]
    notes = []
    if len(kept) < len(places):
        notes.append(f"Maps are shown at {len(kept)} of {len(places)} {unit}s, evenly spaced; numbers at every {unit}.")
    for count, chosen in zip(counts, images, strict=True):
        if len(chosen) < count:
            notes.append(f"Maps are shown of {len(chosen)} of {count} probe images, evenly spaced; numbers are of all.")
    return kept, images, notes


def _images(run: Run) -> int:
    return next((len(maps) for maps in run.records[-1].maps.values()), 0)


def _spread(count: int, most: int) -> list[int]:
    """At most ``most`` of the numbers below ``count``, evenly spaced, first and last among them."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))}) if count else []


# -- a probe


def _probe(run: Run, images: Sequence[int]) -> dict[str, Any]:
    known, arrays = run.manifest.get("probe") or {}, run.probe
    probe_pictures = arrays.get("pictures")
    size = probe_pictures.shape[1:3] if probe_pictures is not None else known.get("image_size") or (1, 1)
    return {
        "fingerprint": short(known.get("fingerprint")),
        "n": _images(run),
        "height": int(size[0]),
        "width": int(size[1]),
        "ids": [printable(str(name)) for name in _chosen(known.get("ids"), images) or images],
        "labels": _ints(_chosen(arrays.get("labels"), images)),
        "groups": _texts(_chosen(known.get("groups"), images)),
        "class_names": _texts(known.get("class_names")),
        "pictures": None if probe_pictures is None else pictures(probe_pictures[list(images)]),
        "outlines": {name: _outlines(arrays.get(name), images) for name in ("masks", "nuisance")},
    }


def _chosen(values: Any, images: Sequence[int]) -> list[Any] | None:
    return None if values is None or not len(values) else [values[i] for i in images if i < len(values)]


def _outlines(masks: NDArray[np.bool_] | None, images: Sequence[int]) -> list[list[list[int]]] | None:
    """For each image its polygons, each a flat list x, y, x, y, …"""
    if masks is None:
        return None
    return [[polygon.ravel().tolist() for polygon in contours(masks[image])] for image in images]


# -- between runs


def _part(runs: Sequence[Run], part: Part) -> dict[str, Any]:
    jsd = divergence(runs, part)
    return {
        "method": part.method,
        "layer": part.layer,
        "title": part.title,
        "runs": list(part.runs),
        "jsd": jsd and [[rounded(value) for value in row] for row in jsd],
    }


def _group(group: Group) -> dict[str, Any]:
    return {
        "title": group.title,
        "method": group.method,
        "rows": [
            {
                "key": row.number.key,
                "cells": [cell and {k: rounded(v) for k, v in asdict(cell).items()} for cell in row.cells],
            }
            for row in group.rows
        ],
    }


def _numbers(runs: Sequence[Run], accuracy: str | None) -> dict[str, dict[str, Any]]:
    """What is known about each number that occurs: title, meaning, better direction, how its curve is drawn."""
    metrics = {key.metric for run in runs for key in run.keys if key.rule is None}
    users = {name for run in runs for name in run.user_names}
    known = [number(metric) for metric in sorted(metrics, key=rank)] + [user_number(key) for key in sorted(users)]
    is_set = any(
        value == 1 for run in runs for key in run.keys if key.metric == "reference_set" for value in run.curve(key)
    )
    shown = {n.key: asdict(n) | {"curve": n.key not in NO_CURVE, "user": n.key in users} for n in known}
    for name in users:
        shown[name]["headline"] = name == accuracy
    return {key: n | {"headline": n["headline"] and (is_set or key not in OF_A_REFERENCE)} for key, n in shown.items()}


def _facts(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What each run is: model, methods, how far it went, and parameters that differ."""
    rows: list[tuple[str, list[str]]] = [
        ("model", [str(run.manifest.get("model") or "–") for run in runs]),
        ("methods", [", ".join(run.methods) or "–" for run in runs]),
        ("layers", [", ".join(run.layers) or "–" for run in runs]),
        ("task", [str((run.manifest.get("task") or {}).get("words") or "–") for run in runs]),
        ("target", [str(run.manifest.get("target") or "–") for run in runs]),
        ("looks", [f"{len(run.records)}, to epoch {run.records[-1].epoch}" for run in runs]),
        ("reference", [_reference(run) for run in runs]),
        ("written", [_written(run) for run in runs]),
    ]
    for name in dict.fromkeys(name for run in runs for name in run.params):
        values = [run.params.get(name, "–") for run in runs]
        if len(set(values)) > 1:
            rows.append((f"parameter {name}", values))
    return [{"title": printable(title), "values": [printable(value) for value in values]} for title, values in rows]


def _reference(run: Run) -> str:
    """Where each method's drift is measured from."""
    epochs = {record.look: record.epoch for record in run.records}
    sentences = []
    for method, layer in ((method, layer) for method in run.methods for layer in run.layers):
        if reference := run.reference(method, layer):
            # Earlier records said "settled" of a reference that was set.
            is_set = reference.get("reference_set", reference.get("settled"))
            place = f"epoch {epochs.get(reference.get('look', -1), '?')}" if is_set else "not settled yet"
            sentences.append(f"{method}{f'/{layer}' if len(run.layers) > 1 else ''}: {place}")
    return ", ".join(sentences) or str(run.manifest.get("reference") or "–")


def _written(run: Run) -> str:
    version, moment = run.manifest.get("version"), run.records[-1].time or run.manifest.get("created")
    date = (
        time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))
        if isinstance(moment, (int, float)) and moment > 0
        else ""
    )
    return ", ".join(filter(None, (date, f"cam-callbacks {version}" if version else ""))) or "–"


def _ints(values: Sequence[Any] | None) -> list[int] | None:
    return None if values is None else [int(value) for value in values]


def _texts(values: Sequence[Any] | None) -> list[str] | None:
    return None if values is None else [printable(str(value)) for value in values]
