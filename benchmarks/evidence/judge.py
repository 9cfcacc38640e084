"""What is said of a run that was looked at, by our rules and by the rivals, into ``judged.json`` of its folder.

Ours is kept as the statistic of each rule at each look, so that thresholds can be tried without looking again. There are
four views: with masks, without, without masks and nuisance, and with masks where looks have no time for more than a few
mixtures. No probe is looked at anew for them: the tests of other parts and the maps are the same, so only what needs masks
is left out; what goes by the pairs is judged again from their recorded outcomes, in every view.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from cam_callbacks import Record, RecordStore
from cam_callbacks.calibration import Series
from cam_callbacks.look.evidence import LookEvidence, is_at_chance, named_right
from cam_callbacks.look.exchange_rules import (
    BackgroundDecides,
    DetailDecides,
    FollowsChanged,
    FrameDecides,
    NuisanceDecides,
)
from cam_callbacks.look.exchanged import Exchanged
from cam_callbacks.look.exchanging import FEW_MIXTURES, few_of, pairs_of
from cam_callbacks.look.judgement import Rule
from cam_callbacks.look.memory import exchanged_at_reference
from cam_callbacks.records.files import to_json, write_atomically
from cam_engine.exchange import count_followed, object_share
from evidence import clusters, groups, version_0_1
from evidence.alarms import Look
from evidence.plans import Training
from evidence.train import folder_of

VERSION = 4  # raise it where a run is judged otherwise than before

View = Literal["with masks", "without masks", "without either", "few mixtures"]
VIEWS: dict[View, tuple[str, ...]] = {  # the parts that are tested without a map
    "with masks": ("object", "background", "nuisance", "frame", "detail"),
    "without masks": ("nuisance", "frame", "detail"),
    "without either": ("frame", "detail"),
    "few mixtures": few_of(("object", "background", "nuisance", "frame", "detail")),
}
NEED_MASKS = ("background_decides", "off_target")
NEEDS: dict[View, tuple[str, ...]] = {
    "with masks": (),
    "without masks": NEED_MASKS,
    "without either": (*NEED_MASKS, "nuisance_decides"),
    "few mixtures": (),
}
PAIRED: tuple[Rule, ...] = (BackgroundDecides(), NuisanceDecides(), FrameDecides(), DetailDecides(), FollowsChanged())


def run(training: Training, out: Path) -> dict[str, Any]:
    """Judge a run, unless that was done since it was looked at."""
    folder = folder_of(training, out)
    path = folder / "judged.json"
    if is_done(training, out):
        return json.loads(path.read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    started, store = time.perf_counter(), RecordStore(folder / "records")
    records, labels = list(store), store.probe["labels"]
    share = records[-1].aggregates["object_share"]
    judged = {
        "version": VERSION,
        "looked": _looked(folder),
        "views": {view: to_plain(seen(records, labels, view)) for view in VIEWS},
        "object_share": {name: share[name] for name in ("mean", "low", "high")},
        "accuracy on the probe": float((records[-1].predictions == labels).mean()),
        "version 0.1": {
            "with masks": version_0_1.raised(records),
            "without masks": version_0_1.raised(records, masks=False),
        },
        "groups": groups.spread_of(folder / "predictions.npz"),
        "eigengap": clusters.of_training(training, out),
    }
    judged["seconds"] = round(time.perf_counter() - started, 1)
    write_atomically(path, to_json(judged, indent=1).encode())
    return judged


def is_done(training: Training, out: Path) -> bool:
    """Is this look judged by this code?"""
    folder = folder_of(training, out)
    path = folder / "judged.json"
    if not path.is_file():
        return False
    known = json.loads(path.read_text(encoding="utf-8"))
    return known["version"] == VERSION and known["looked"] == _looked(folder)


def seen(records: Sequence[Record], labels: Any, view: View) -> list[Look]:
    """The statistics of every look in one view."""
    few = pairs_of(len(labels), labels.tolist(), FEW_MIXTURES) if view == "few mixtures" else None
    exchanged = [exchanged_of(record, VIEWS[view], few) for record in records[:-1]]
    exchanged.append(exchanged_of(records[-1], VIEWS["with masks" if view == "few mixtures" else view]))
    by_maps = [statistics(record) for record in records]
    looks = [look | now for look, now in zip(by_maps, by_pairs(exchanged, records, labels), strict=True)]
    return [{series: value for series, value in look.items() if series[0] not in NEEDS[view]} for look in looks]


def statistics(record: Record) -> Look:
    """What every rule found at a look."""
    return {(j.rule, j.method, j.layer): j.statistic for j in record.judged if j.state != "remark"}


def by_pairs(exchanged: Sequence[Exchanged | None], records: Sequence[Record], labels: Any) -> list[Look]:
    """The statistics of what goes by the pairs at each look, had it exchanged this."""
    then, found = None, []
    for record, tested in zip(records, exchanged, strict=True):
        evidence = LookEvidence(
            record.look,
            settled=any(of["settled"] for of in record.reference.values()),
            at_chance=is_at_chance(record.predictions, labels),
            right=named_right(record.predictions, labels),
            exchanged=tested,
            then=then,
        )
        found.append({(rule.name, "", ""): rule.judge(evidence).statistic for rule in PAIRED})
        then = exchanged_at_reference(then, evidence, "settled")
    return found


def exchanged_of(record: Record, parts: Sequence[str], only: Any = None) -> Exchanged | None:
    """The exchange tests of a look, counted again. ``only``: (P, 2), of these pairs."""
    pairs, predictions = record.exchange_pairs, record.predictions
    if pairs is None or predictions is None:
        return None
    chosen = slice(None)
    if only is not None:
        wanted = {tuple(pair) for pair in only.tolist()}
        chosen = [i for i, pair in enumerate(pairs.tolist()) if tuple(pair) in wanted]
    whole = {
        part: count_followed(part, pairs[chosen], predictions, record.exchanged[part][chosen])
        for part in parts
        if part in record.exchanged
    }
    both = {"object", "background"} <= whole.keys()
    return Exchanged(pairs[chosen], whole, share=object_share(whole["object"], whole["background"]) if both else None)


def to_plain(looks: Sequence[Look]) -> list[list[Any]]:
    """For each series its rule, method, layer, and the statistic of every look."""
    series = dict.fromkeys(series for look in looks for series in look)
    return [[*each, [look.get(each, math.nan) for look in looks]] for each in series]


def from_plain(plain: Sequence[Any]) -> list[Look]:
    """Undo :func:`to_plain`; what is null in JSON is NaN."""
    columns: Mapping[Series, Sequence[float | None]] = {(rule, m, layer): values for rule, m, layer, values in plain}
    looks = max(map(len, columns.values()), default=0)
    return [
        {series: math.nan if (value := values[i]) is None else value for series, values in columns.items()}
        for i in range(looks)
    ]


def _looked(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "looks.json").read_text(encoding="utf-8"))
