"""The runs that a user names: folders, MLflow run ids, whole log folders and experiments."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cam_callbacks.compare.from_mlflow import experiment_runs
from cam_callbacks.compare.load import LoadError, Run, UnreadableRun, load_run, records_folders, with_unique_names
from cam_callbacks.records import RecordError

EXPERIMENT = "experiment:"
Spec = str | os.PathLike[str]


@dataclass(frozen=True)
class Selection:
    """The runs that could be read, each with a name of its own, and a line for each that could not."""

    runs: list[Run]
    left_out: tuple[str, ...]


def select_runs(
    specs: Iterable[Run | Spec], tracking_uri: str | None = None, last: int | None = None, query: str | None = None
) -> Selection:
    """Read runs. One that has no look yet, or is damaged throughout, is left out and said; the others are there.

    Args:
        specs: Each a loaded run; what :func:`~cam_callbacks.compare.load_run` takes; a folder above several folders of
            records, which stands for all of them; or ``experiment:NAME``, the runs of an MLflow experiment with records.
        tracking_uri: MLflow's; by default the one MLflow is set to.
        last: Of each experiment and of each folder of several runs only so many, the newest; oldest first.
        query: Which of an experiment's runs, in MLflow's language: ``"params.lr = '0.1' and metrics.val_acc > 0.9"``.

    Raises:
        LoadError: A name that means nothing: no such folder, run, experiment; or nothing of what was named can be read.
    """
    specs = list(specs)
    if last is not None and last < 1:
        raise LoadError(f"last={last}: at least 1 run is needed.")
    if query is not None and not any(isinstance(spec, str) and spec.startswith(EXPERIMENT) for spec in specs):
        raise LoadError(f"query= chooses among the runs of an experiment; name one as {EXPERIMENT}NAME.")
    runs: list[Run] = []
    left_out: list[str] = []
    for spec in specs:
        for one in [spec] if isinstance(spec, Run) else _expanded(os.fspath(spec), tracking_uri, last, query):
            try:
                runs.append(one if isinstance(one, Run) else load_run(one, tracking_uri))
            except (UnreadableRun, RecordError) as error:
                left_out.append(str(error))
    if not runs:
        raise LoadError(" ".join(left_out) or "no runs were named.")
    return Selection(with_unique_names(runs), tuple(left_out))


def _expanded(spec: str, tracking_uri: str | None, last: int | None, query: str | None) -> list[str]:
    """The runs that one word stands for, oldest first where there are several."""
    if spec.startswith(EXPERIMENT):
        return experiment_runs(spec.removeprefix(EXPERIMENT), tracking_uri, last, query)
    if not Path(spec).is_dir():
        return [spec]
    folders = records_folders(Path(spec))
    if len(folders) > 1 and last is not None:
        folders = sorted(sorted(folders, key=_written)[-last:])
    return [str(folder) for folder in folders] if len(folders) > 1 else [spec]


def _written(folder: Path) -> int:
    return folder.stat().st_mtime_ns
