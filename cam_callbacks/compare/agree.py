"""What of several runs may be compared, and what differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cam_callbacks.compare.alerts import remarks
from cam_callbacks.compare.numbers import number
from cam_callbacks.compare.run import Run
from cam_callbacks.keys import Key

ENRICHMENTS = ("on_target_enrichment", "nuisance_enrichment")
"""Numbers in units of chance: they mean the same on any grid, layer and architecture."""
REGIONS = (("on_target_enrichment", "masks"), ("nuisance_enrichment", "nuisance"))
"""Each of them, and the array of the probe that it is measured on."""


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
class Across:
    """One method in runs of different layers, grids or architectures: ``layers[run index]`` is what it is compared on.

    Only enrichment may be compared there.
    """

    method: str
    layers: dict[int, str]

    @property
    def title(self) -> str:
        return f"{self.method} · across layers ({', '.join(dict.fromkeys(self.layers.values()))})"


@dataclass(frozen=True)
class Agreement:
    """What may be compared, and what differs.

    ``parts``: in full. ``across``: through enrichment alone. ``differences``: a sentence for each thing that keeps runs from
    being compared in full. ``notes``: those, and what else is worth knowing, such as looks that could not be read.
    """

    parts: tuple[Part, ...]
    across: tuple[Across, ...]
    differences: tuple[str, ...]
    notes: tuple[str, ...]
    same_probe: bool
    other_regions: dict[str, frozenset[int]] = field(default_factory=dict)
    """Enrichment → the runs whose masks are not those of the first run, so that theirs is of something else."""

    def comparable(self, key: Key, run: int, other: int) -> bool:
        """May this number of two runs be compared? Those of no method, such as the user's own, always."""
        pair = {run, other}
        if not key.method or run == other:
            return True
        if pair & self.other_regions.get(key.metric, frozenset()):
            return False
        full = any((p.method, p.layer) == (key.method, key.layer) and pair <= set(p.runs) for p in self.parts)
        across = any(a.method == key.method and pair <= a.layers.keys() for a in self.across)
        return full or (across and key.metric in ENRICHMENTS)


def agreement(runs: Sequence[Run]) -> Agreement:
    """Compare each run with the first: probe fingerprint, preprocessing, target, model, method, layer and grid must agree.

    A run whose probe or target differs takes part in nothing but the trainer's own numbers. One whose model, layer or grid
    differs takes part in enrichment, which is in units of chance.
    """
    first = runs[0]
    differences: list[str] = []
    notes: list[str] = []
    same_target, same_model = [0], [0]  # of one probe and target; of one architecture, too
    same_probe = True
    for index, run in enumerate(runs[1:], 1):
        probe = _probe_difference(first, run)
        target = _difference("target", first, run)
        same_probe &= probe is None
        for why in filter(None, (probe, target)):
            differences.append(f"The maps of {run.name!r} are not compared with those of {first.name!r}: {why}.")
        if probe is not None or target is not None:
            continue
        same_target.append(index)
        if model := _difference("model", first, run):
            differences.append(f"{run.name!r} is compared with {first.name!r} through enrichment only: {model}.")
            continue
        same_model.append(index)
        if other := _difference("reference", first, run):
            notes.append(f"Drift of {run.name!r} is not measured as that of {first.name!r}: {other}.")
    parts: list[Part] = []
    if len(same_model) > 1 or len(runs) == 1:
        parts, differing = _parts(runs, same_model)
        differences += differing
    across = _across(runs, same_target, parts)
    regions = {
        metric: frozenset(i for i in same_target if _equal(first, runs[i], name) is False) for metric, name in REGIONS
    }
    for (metric, name), others in zip(REGIONS, regions.values(), strict=True):
        differences += [
            f"{number(metric).title} of {runs[i].name!r} is not compared: its {name} are not those of {first.name!r}."
            for i in sorted(others)
        ]
    if len(runs) > 1 and not parts:
        rest = "only enrichment and numbers" if across else "only numbers"
        notes.append(f"No maps can be compared; {rest} that the trainer logged itself are shown.")
    return Agreement(
        tuple(parts), across, tuple(differences), (*differences, *notes, *_run_notes(runs)), same_probe, regions
    )


def _parts(runs: Sequence[Run], indices: Sequence[int]) -> tuple[list[Part], list[str]]:
    offered = {index: _offers(runs[index]) for index in indices}
    pairs = dict.fromkeys(pair for index in indices for pair in offered[index])
    parts, notes = [], []
    for method, layer in pairs:
        having = [index for index in indices if (method, layer) in offered[index]]
        grid = offered[having[0]][method, layer]
        alike = [index for index in having if offered[index][method, layer] == grid]
        for index in having:
            if index not in alike:
                theirs = _size(offered[index][method, layer])
                notes.append(
                    f"{method} on {layer} of {runs[index].name!r} is not compared: "
                    f"its grid is {theirs}, that of {runs[having[0]].name!r} is {_size(grid)}."
                )
        if len(having) < len(indices):
            lacking = ", ".join(repr(runs[index].name) for index in indices if index not in having)
            notes.append(f"{method} on {layer} is not in {lacking}.")
        if len(alike) > 1 or len(runs) == 1:
            parts.append(Part(method, layer, grid, tuple(alike)))
    return parts, notes


def _across(runs: Sequence[Run], same_probe: Sequence[int], parts: Sequence[Part]) -> tuple[Across, ...]:
    """Methods that several runs of one probe and target measured, where no part holds them all; each run's last layer."""
    across = []
    for method in dict.fromkeys(method for index in same_probe for method in runs[index].methods):
        layers = {i: runs[i].layers[-1] for i in same_probe if method in runs[i].methods and runs[i].layers}
        together = any(part.method == method and set(layers) <= set(part.runs) for part in parts)
        if len(layers) > 1 and not together:
            across.append(Across(method, layers))
    return tuple(across)


def _offers(run: Run) -> dict[tuple[str, str], tuple[int, int] | None]:
    """The grid of each (method, layer) of a run."""
    grids = run.manifest.get("grids") or {}
    sizes = {layer: tuple(int(side) for side in grids[layer]) for layer in run.layers if grids.get(layer)}
    pairs = [(method, layer) for method in run.methods for layer in run.layers]
    return {pair: (size[0], size[1]) if (size := sizes.get(pair[1])) else None for pair in pairs}


def _probe_difference(first: Run, run: Run) -> str | None:
    """In what two probes differ, in words; None where the fingerprints, over pixels as the models get them, are equal."""
    ours, theirs = first.manifest.get("probe") or {}, run.manifest.get("probe") or {}
    if ours.get("fingerprint") == theirs.get("fingerprint"):
        return None
    prints = f"probe fingerprint {short(theirs.get('fingerprint'))} against {short(ours.get('fingerprint'))}"
    differing = [
        f"{_worded(theirs.get(key))} against {_worded(ours.get(key))} {word}"
        for key, word in (("n", "images"), ("image_size", "pixels"))
        if theirs.get(key) != ours.get(key)
    ]
    return f"{prints} ({', '.join(differing or _finer_differences(first, run))})"


def _finer_differences(first: Run, run: Run) -> list[str]:
    ours, theirs = first.manifest.get("probe") or {}, run.manifest.get("probe") or {}
    if ours.get("ids") != theirs.get("ids"):
        return ["other image names"]
    same_pictures = _equal(first, run, "pictures")
    if same_pictures is None:
        return ["the same image names, but other pixels, labels or preprocessing"]
    differing = [] if same_pictures else ["the same image names, but other pictures"]
    if _equal(first, run, "labels") is False:
        differing.append("other labels")
    if differing:
        return differing
    scales = [
        f"{key} {_numbers(theirs.get(key))} against {_numbers(ours.get(key))}"
        for key in ("mean", "std")
        if theirs.get(key) != ours.get(key)
    ]
    return [f"the same pictures, preprocessed otherwise{': ' if scales else ''}{', '.join(scales)}"]


def _equal(first: Run, run: Run, name: str) -> bool | None:
    """Are two probes' arrays equal? None where one has none."""
    ours, theirs = first.probe.get(name), run.probe.get(name)
    return None if ours is None or theirs is None else bool(np.array_equal(ours, theirs))


def _difference(key: str, first: Run, run: Run) -> str | None:
    ours, theirs = first.manifest.get(key), run.manifest.get(key)
    return None if ours == theirs else f"{key} {_worded(theirs)} against {_worded(ours)}"


def _run_notes(runs: Sequence[Run]) -> list[str]:
    notes = [f"{run.name!r}: {warning}" for run in runs for warning in run.warnings]
    notes += [remark for run in runs for remark in remarks(run)]
    withheld = ", ".join(repr(run.name) for run in runs if run.manifest.get("store_images") is False)
    if withheld:
        notes.append(
            f"The pixels of the probe images are not stored (store_images=False) in {withheld}: maps lie on plain grey."
        )
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


def _numbers(values: Any) -> str:
    return "(" + ", ".join(f"{v:.4g}" for v in values) + ")" if isinstance(values, list) else "unknown"


def _size(grid: tuple[int, int] | None) -> str:
    return f"{grid[0]}×{grid[1]}" if grid else "unknown"
