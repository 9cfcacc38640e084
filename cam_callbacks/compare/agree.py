"""What of several runs may be compared, and what differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cam_callbacks.compare.load import Run


@dataclass(frozen=True)
class Part:
    """One method on one layer, and the runs (by index) in which it may be compared."""

    method: str
    layer: str
    grid: tuple[int, int] | None
    runs: tuple[int, ...]

    @property
    def title(self) -> str:
        size = f" ({self.grid[0]}×{self.grid[1]})" if self.grid else ""
        return f"{self.method} · {self.layer}{size}"


@dataclass(frozen=True)
class Agreement:
    """What may be compared (``parts``), what differs (``notes``, a sentence each), and the fingerprint check."""

    parts: tuple[Part, ...]
    notes: tuple[str, ...]
    same_probe: bool


def agreement(runs: Sequence[Run]) -> Agreement:
    """Compare each run with the first: probe fingerprint, target, method, layer and grid must agree.

    A run whose probe or target differs takes part in nothing but the trainer's own numbers. A method or layer that
    only one run has, or whose grids differ, is left out.
    """
    first = runs[0]
    notes: list[str] = []
    fellows = [0]
    same_probe = True
    for index, run in enumerate(runs[1:], 1):
        probe = _probe_difference(first, run)
        target = _difference("target", first, run)
        same_probe &= probe is None
        for why in filter(None, (probe, target)):
            notes.append(f"The maps of {run.name!r} are not compared with those of {first.name!r}: {why}.")
        if probe is None and target is None:
            fellows.append(index)
            if other := _difference("reference", first, run):
                notes.append(f"Drift of {run.name!r} is not measured as that of {first.name!r}: {other}.")
    parts: list[Part] = []
    if len(fellows) > 1 or len(runs) == 1:
        parts, differing = _parts(runs, fellows)
        notes += differing
    if len(runs) > 1 and not parts:
        notes.append("Nothing about the maps can be compared; only numbers that the trainer logged itself are shown.")
    return Agreement(tuple(parts), tuple(notes + _run_notes(runs)), same_probe)


def _parts(runs: Sequence[Run], fellows: Sequence[int]) -> tuple[list[Part], list[str]]:
    offered = {index: _offers(runs[index]) for index in fellows}
    pairs = dict.fromkeys(pair for index in fellows for pair in offered[index])
    parts, notes = [], []
    for method, layer in pairs:
        having = [index for index in fellows if (method, layer) in offered[index]]
        grid = offered[having[0]][method, layer]
        alike = [index for index in having if offered[index][method, layer] == grid]
        for index in having:
            if index not in alike:
                theirs = _size(offered[index][method, layer])
                notes.append(
                    f"{method} on {layer} of {runs[index].name!r} is not compared: "
                    f"its grid is {theirs}, that of {runs[having[0]].name!r} is {_size(grid)}."
                )
        if len(having) < len(fellows):
            lacking = ", ".join(repr(runs[index].name) for index in fellows if index not in having)
            notes.append(f"{method} on {layer} is not in {lacking}.")
        if len(alike) > 1 or len(runs) == 1:
            parts.append(Part(method, layer, grid, tuple(alike)))
    return parts, notes


def _offers(run: Run) -> dict[tuple[str, str], tuple[int, int] | None]:
    """The grid of each (method, layer) of a run."""
    grids = run.manifest.get("grids") or {}
    sizes = {layer: tuple(int(side) for side in grids[layer]) for layer in run.layers if grids.get(layer)}
    pairs = [(method, layer) for method in run.methods for layer in run.layers]
    return {pair: (size[0], size[1]) if (size := sizes.get(pair[1])) else None for pair in pairs}


def _probe_difference(first: Run, run: Run) -> str | None:
    ours, theirs = first.manifest.get("probe") or {}, run.manifest.get("probe") or {}
    if ours.get("fingerprint") == theirs.get("fingerprint"):
        return None
    prints = f"probe fingerprint {short(theirs.get('fingerprint'))} against {short(ours.get('fingerprint'))}"
    differing = [
        f"{_worded(theirs.get(key))} against {_worded(ours.get(key))} {word}"
        for key, word in (("n", "images"), ("image_size", "pixels"))
        if theirs.get(key) != ours.get(key)
    ]
    if not differing:
        same_ids = ours.get("ids") == theirs.get("ids")
        differing = [
            "the same image names, but other pixels, labels or preprocessing" if same_ids else "other image names"
        ]
    return f"{prints} ({', '.join(differing)})"


def _difference(key: str, first: Run, run: Run) -> str | None:
    ours, theirs = first.manifest.get(key), run.manifest.get(key)
    return None if ours == theirs else f"{key} {_worded(theirs)} against {_worded(ours)}"


def _run_notes(runs: Sequence[Run]) -> list[str]:
    notes = [f"{run.name!r}: {warning}" for run in runs for warning in run.warnings]
    last = [run.records[-1].epoch for run in runs]
    if len(set(last)) > 1:
        ends = ", ".join(f"{run.name!r} at epoch {epoch}" for run, epoch in zip(runs, last, strict=True))
        notes.append(f"The runs end at different epochs, and so do their final values: {ends}.")
    return notes


def short(fingerprint: Any) -> str:
    """The first digits of a fingerprint: enough to tell two apart by eye."""
    return str(fingerprint)[:12] if fingerprint else "unknown"


def _worded(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "×".join(map(str, value))
    return "unknown" if value is None else str(value)


def _size(grid: tuple[int, int] | None) -> str:
    return f"{grid[0]}×{grid[1]}" if grid else "unknown"
