"""A calibration from the records of trainings that were accepted."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping

from cam_callbacks.calibration import Calibration, CalibrationError, Series, largest
from cam_callbacks.compare.run import LoadError, Run
from cam_callbacks.compare.select import Spec, select_runs
from cam_callbacks.look.alerts import make_rules
from cam_callbacks.records import Record

log = logging.getLogger(__name__)


def calibrate(
    runs: Spec | Run | Iterable[Spec | Run], alpha: float = 0.05, tracking_uri: str | None = None
) -> Calibration:
    """Thresholds from accepted runs, by which any alarm in a whole healthy run is raised with a chance of at most ``alpha``.

    The promise holds for a training that could as well have been one of these: same data, probe, network, length and settings;
    only chance differs (:mod:`cam_callbacks.calibration`). With m runs the chance is at least 1 / (m + 1): 19 runs for 0.05.

    Args:
        runs: Record folders, folders above them, MLflow run ids, ``experiment:NAME``, or loaded runs.
        alpha: The chance.
        tracking_uri: MLflow's; by default the one MLflow is set to.

    Raises:
        CalibrationError: No run with judged looks, runs of different probes, or an ``alpha`` that is no chance.

    >>> from cam_callbacks import calibrate
    >>> calibration = calibrate(["runs/one", "runs/two"])
    >>> calibration.runs, round(calibration.level, 2)
    (('one', 'two'), 0.33)
    >>> calibration.save("thresholds.json").name  # for CAMCallback(probe, calibration="thresholds.json")
    'thresholds.json'
    """
    named = [runs] if isinstance(runs, (str, os.PathLike, Run)) else list(runs)
    try:
        selection = select_runs(named, tracking_uri)
    except LoadError as error:
        raise CalibrationError(str(error)) from error
    for line in selection.left_out:
        log.warning("cam-callbacks: left out of the calibration: %s", line)
    accepted = [run for run in selection.runs if any(record.judged for record in run.records)]
    if not accepted:
        raise CalibrationError("none of these runs has looks with judgements; records of version 0.1 hold none.")
    probes = {str((run.manifest.get("probe") or {}).get("fingerprint", "")) for run in accepted}
    if len(probes) > 1:
        raise CalibrationError(
            f"these {len(accepted)} runs looked at {len(probes)} different probes, so they are no repetitions of one training."
        )
    rules = make_rules(None)
    running = {rule.name: rule.looks for rule in rules}
    reached = [largest([_statistics(record) for record in run.records], running) for run in accepted]
    series = dict.fromkeys(s for of_run in reached for s in of_run)
    return Calibration(
        alpha=alpha,
        looks=max(len(run.records) for run in accepted),
        runs=tuple(run.name for run in accepted),
        largest={s: tuple(of_run.get(s, float("nan")) for of_run in reached) for s in series},
        spreads={rule.name: rule.spread for rule in rules},
        probe=probes.pop(),
    )


def _statistics(record: Record) -> Mapping[Series, float]:
    return {(j.rule, j.method, j.layer): j.statistic for j in record.judged if j.state != "remark"}
