"""Named baselines: the maps that a run's drift is measured against, from another run's records or from a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cam_callbacks import processes
from cam_callbacks.look.explaining import Explained, explain_share, joined
from cam_callbacks.look.noise_floor import ceiling
from cam_callbacks.look.options import LookOptions
from cam_callbacks.look.reference import kind_of
from cam_callbacks.look.subject import Subject
from cam_callbacks.look.target import fixed_classes
from cam_callbacks.look.tracking import Series, Track
from cam_callbacks.probe import ProbeSet
from cam_callbacks.records import Maps, Record, RecordError, RecordStore
from cam_engine.guard import weights_kept
from cam_engine.loading import load_checkpoint


@dataclass(frozen=True, eq=False)
class Baseline:
    """``maps[method, layer]`` (N, h, w), and the classes (N,) that were predicted with them, where known."""

    name: str
    maps: Maps
    predictions: NDArray[np.int64] | None

    def track(self, series: Series, shape: tuple[int, ...], seed: int) -> Track:
        """What a series is measured against, whose own maps are of ``shape`` (N, h, w). ``seed``: of the ceiling's pairs.

        Raises:
            ValueError: The baseline has no maps of that series, or of another grid.
        """
        if series not in self.maps:
            have = ", ".join("/".join(key) for key in self.maps)
            raise ValueError(f"the baseline {self.name!r} has no maps of {'/'.join(series)}; it has {have}.")
        maps = self.maps[series]
        if maps.shape != shape:
            raise ValueError(
                f"the baseline {self.name!r} has maps of {'/'.join(series)} of shape {maps.shape}, this run {shape}: numbers "
                "of different grids are never mixed."
            )
        return Track(
            reference_set=True, reference=maps, reference_predictions=self.predictions, ceiling=ceiling(maps, seed)
        )


def from_folder(folder: str, options: LookOptions, probe: ProbeSet) -> Baseline:
    """The last look in a folder of records.

    Raises:
        ValueError: It is of another probe or target, or cannot be read.
    """
    store = RecordStore(folder)
    try:
        manifest, record = store.manifest, store[-1]
    except RecordError as error:
        raise ValueError(f"the baseline {folder!r} cannot be read: {error}") from error
    return _checked(folder, manifest, record, options, probe)


def find(options: LookOptions, subject: Subject, probe: ProbeSet, tracking_uri: str | None) -> Baseline:
    """The baseline that ``reference=`` names, an MLflow run or a checkpoint.

    Raises:
        LookError: As :func:`from_mlflow` and :func:`from_checkpoint`.
    """
    name = str(options.reference)
    if kind_of(name) == "mlflow":
        return from_mlflow(name, options, probe, tracking_uri)
    return from_checkpoint(name, subject, probe)


def from_mlflow(run_id: str, options: LookOptions, probe: ProbeSet, tracking_uri: str | None = None) -> Baseline:
    """The last look in an MLflow run's artifacts, which one process fetches for all.

    Raises:
        LookError: No such run, no records in it, or they are of another probe or target.
    """
    from cam_callbacks.compare import load_run

    def fetch() -> Baseline | None:
        if processes.rank() != 0:
            return None
        run = load_run(run_id, tracking_uri)
        return _checked(run_id, run.manifest, run.records[-1], options, probe)

    baseline = processes.everywhere(fetch)[0]
    assert baseline is not None
    return baseline


def from_checkpoint(path: str, subject: Subject, probe: ProbeSet) -> Baseline:
    """The maps of a checkpoint's weights, which are put into the model and taken out again.

    Raises:
        LookError: The weights do not fit, or explaining failed.
        ValueError: The model is sharded, and takes no whole weights.
    """
    if subject.batches.plan.sharded:
        raise ValueError(
            f"reference={path!r}: the weights of a checkpoint cannot be put into a model that is spread over processes; look at it "
            "with cam-callbacks replay, and pass the folder of its records as reference=."
        )

    def explained_share() -> Explained:
        with weights_kept(subject.given):
            load_checkpoint(subject.given, path)
            return explain_share(subject, probe.images)

    explained = joined(subject.batches.plan.everywhere(explained_share))
    return Baseline(path, explained.maps, explained.predictions)


def _checked(name: str, manifest: dict[str, Any], record: Record, options: LookOptions, probe: ProbeSet) -> Baseline:
    """The maps of a record, if they show the same as this run's will."""
    _check(name, manifest, probe.fingerprint, options.target_name)
    _check_targets(name, record, fixed_classes(options.target, probe))
    return Baseline(name, record.maps, record.predictions)


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
