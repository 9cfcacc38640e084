"""The runs that a user names: folders, MLflow run ids, whole log folders and experiments."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cam_callbacks.compare.from_mlflow import experiment_runs, load_mlflow_run
from cam_callbacks.compare.run import LoadError, Run, UnreadableRun, read_folder, with_unique_names
from cam_callbacks.records import LOOK, MANIFEST, PROBE, RecordError
from cam_callbacks.run_ids import parse_run_id

EXPERIMENT = "experiment:"
_DEPTH = 6  # folders below the one that was named
Spec = str | os.PathLike[str]


@dataclass(frozen=True)
class Selection:
    """The runs that could be read, each with a name of its own, and a line for each that could not."""

    runs: list[Run]
    left_out: tuple[str, ...]


def load_run(spec: str | os.PathLike[str], tracking_uri: str | None = None) -> Run:
    """Read one run.

    Args:
        spec: A folder of records; a folder above exactly one such folder (a TensorBoard log folder); an MLflow run
            id; or ``<run id>/<artifact path>`` where a run holds the records of several callbacks.
        tracking_uri: MLflow's; by default the one MLflow is set to (``MLFLOW_TRACKING_URI``).

    Raises:
        LoadError: No such folder or run, no records, or no look yet.
        RecordError: The manifest is damaged, or written by a newer version.

    >>> from cam_callbacks.compare import load_run
    >>> run = load_run("runs/one")
    >>> run.records[-1].epoch, round(run.records[-1].metrics["cam/entropy/gradcam"], 2)
    (1, 0.81)
    """
    text = os.fspath(spec)
    if Path(text).is_dir():
        return read_folder(_records_folder(Path(text)), source=text)
    if (parsed := parse_run_id(text)) is not None:
        return load_mlflow_run(*parsed, source=text, tracking_uri=tracking_uri)
    raise LoadError(f"no folder {text!r} (and an MLflow run id has 32 hexadecimal digits).")


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

    >>> from cam_callbacks.compare import select_runs
    >>> selection = select_runs(["runs"])
    >>> [run.name for run in selection.runs], selection.left_out
    (['one', 'two'], ())
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


def records_folders(folder: Path) -> list[Path]:
    """The folder itself if it holds records, else those below it that do, sorted.

    Raises:
        LoadError: None.
    """
    if (folder / MANIFEST).is_file():
        return [folder]
    folders = sorted(folders_below(folder))
    if not folders:
        raise LoadError(f"no records in {str(folder)!r} or below it (a folder of records has a {MANIFEST}).")
    return folders


def _records_folder(folder: Path) -> Path:
    folders = records_folders(folder)
    if len(folders) > 1:
        listed = ", ".join(map(str, folders[:10])) + (", …" if len(folders) > 10 else "")
        raise LoadError(f"{str(folder)!r} holds {len(folders)} folders of records; name one of them: {listed}")
    return folders[0]


def folders_below(folder: Path) -> Iterator[Path]:
    """Folders of records in a folder, at most six levels down; none inside another, and links are not followed."""
    for parent, folders, files in os.walk(folder):
        if MANIFEST in files and (PROBE in files or any(LOOK.fullmatch(file) for file in files)):
            yield Path(parent)
            folders.clear()
        if len(Path(parent).relative_to(folder).parts) >= _DEPTH:
            folders.clear()
