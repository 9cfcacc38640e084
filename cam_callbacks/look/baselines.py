"""Named baselines: the maps that a run's drift is measured against, from another run's records or from a checkpoint."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cam_callbacks.records import Maps, Record, RecordError, RecordStore

POLICIES = ("settled", "first")
Kind = Literal["policy", "look", "folder", "mlflow", "checkpoint"]

_RUN_ID = re.compile(r"(?:runs:/)?[0-9a-f]{32}(?:/.+)?")


@dataclass(frozen=True, eq=False)
class Baseline:
    """``maps[method, layer]`` (N, h, w), and the classes (N,) that were predicted with them, where known."""

    name: str
    maps: Maps
    predictions: NDArray[np.int64] | None


def kind_of(reference: str | int | os.PathLike[str]) -> Kind:
    """What ``reference=`` names.

    Raises:
        ValueError: Nothing that could be a reference.
    """
    if isinstance(reference, int) and not isinstance(reference, bool):
        if reference < 0:
            raise ValueError(f"reference={reference}: looks are counted from 0.")
        return "look"
    text = str(reference) if isinstance(reference, int) else os.fspath(reference)
    if text in POLICIES:
        return "policy"
    if Path(text).is_file():
        return "checkpoint"
    if len(RecordStore(text)):
        return "folder"
    if _RUN_ID.fullmatch(text):
        return "mlflow"
    raise ValueError(
        'reference= takes "settled", "first", the index of a look, a folder of records, an MLflow run id or a checkpoint '
        f"file; {text!r} is none: there is no such file, and as a folder it holds none of our records."
    )


def from_folder(folder: str, fingerprint: str, target: str | int, targets: NDArray[np.int64] | None) -> Baseline:
    """The last look in a folder of records. ``targets`` (N,): the classes that this run explains, where they are fixed.

    Raises:
        ValueError: It is of another probe or target, or cannot be read.
    """
    store = RecordStore(folder)
    try:
        manifest, record = store.manifest, store[-1]
    except RecordError as error:
        raise ValueError(f"the baseline {folder!r} cannot be read: {error}") from error
    _check(folder, manifest, fingerprint, target)
    _check_targets(folder, record, targets)
    return Baseline(folder, record.maps, record.predictions)


def from_mlflow(
    run_id: str,
    fingerprint: str,
    target: str | int,
    targets: NDArray[np.int64] | None,
    tracking_uri: str | None = None,
) -> Baseline:
    """The last look in an MLflow run's artifacts.

    Raises:
        ValueError: No such run, no records in it, or they are of another probe or target.
    """
    from cam_callbacks.compare import load_run

    run = load_run(run_id, tracking_uri)
    _check(run_id, run.manifest, fingerprint, target)
    _check_targets(run_id, run.records[-1], targets)
    return Baseline(run_id, run.records[-1].maps, run.records[-1].predictions)


def series_of(baseline: Baseline, key: tuple[str, str], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The baseline's maps of a method and layer, (N, h, w).

    Raises:
        ValueError: It has none, or of another grid.
    """
    if key not in baseline.maps:
        have = ", ".join("/".join(k) for k in baseline.maps)
        raise ValueError(f"the baseline {baseline.name!r} has no maps of {'/'.join(key)}; it has {have}.")
    maps = baseline.maps[key]
    if maps.shape != shape:
        raise ValueError(
            f"the baseline {baseline.name!r} has maps of {'/'.join(key)} of shape {maps.shape}, this run {shape}: numbers of "
            "different grids are never mixed."
        )
    return maps


def _check(name: str, manifest: dict[str, object], fingerprint: str, target: str | int) -> None:
    probe = manifest.get("probe")
    theirs = probe.get("fingerprint", "") if isinstance(probe, dict) else ""
    if theirs != fingerprint:
        raise ValueError(
            f"the baseline {name!r} looked at a probe with fingerprint {theirs[:12]}, this run's has {fingerprint[:12]}: "
            "drift is measured between maps of the same images only."
        )
    if manifest.get("target") != target:
        raise ValueError(
            f"the baseline {name!r} explained target={manifest.get('target')!r}, this run explains target={target!r}: "
            "their maps show different things."
        )


def _check_targets(name: str, record: Record, targets: NDArray[np.int64] | None) -> None:
    """Two lists of classes are both called "custom"."""
    if record.targets is None or targets is None:
        return
    if different := np.flatnonzero(record.targets != targets).tolist():
        raise ValueError(
            f"the baseline {name!r} explained another class than this run in {len(different)} of {len(targets)} images, "
            f"first in image {different[0]}: their maps show different things."
        )
