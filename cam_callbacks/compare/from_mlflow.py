"""Records of a run that lie in MLflow as its artifacts."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import url2pathname

from cam_callbacks.compare.run import LoadError, Run, UnreadableRun, read_folder
from cam_callbacks.records import MANIFEST
from cam_callbacks.text_table import printable

RECORDS = "cam/records"  # where a run's are, unless its callback has a name
MOST = 500  # runs of an experiment that are read without being asked for
_RECORDS_TAG = re.compile(r"cam\.(.+\.)?records")
# By default MLflow tries for four minutes to reach a server that is down; here somebody waits in front of a terminal.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def load_mlflow_run(run_id: str, path: str | None, *, source: str, tracking_uri: str | None = None) -> Run:
    """Read a run from its artifacts, by way of a temporary folder.

    Args:
        run_id: MLflow's.
        path: The artifact folder of the records; None looks for the one below ``cam/``.
        source: What the user wrote, for messages.
        tracking_uri: By default the one MLflow is set to.

    Raises:
        LoadError: No such run, server or database; no records in the run, or those of several callbacks.
    """
    with _client(tracking_uri, f"run {run_id}") as (client, uri):
        run = client.get_run(run_id)
        here = _on_this_disk(run.info.artifact_uri, path or RECORDS)
        if here is None:
            path = path or _records_path(client, run_id, uri)
            here = _on_this_disk(run.info.artifact_uri, path)
        if here is not None:  # no need of a copy
            return read_folder(here, source, name=run.info.run_name, params=dict(run.data.params))
        with tempfile.TemporaryDirectory(prefix="cam-compare-") as temporary:
            local = Path(client.download_artifacts(run_id, path, temporary))
            if not (local / "manifest.json").is_file():
                raise LoadError(f"the artifacts {path!r} of MLflow run {run_id} hold no manifest.json.")
            return read_folder(local, source, name=run.info.run_name, params=dict(run.data.params))


def experiment_runs(name: str, tracking_uri: str | None, last: int | None, query: str | None) -> list[str]:
    """Ids of the runs of an experiment that have records, oldest first; of ``last``, the newest so many.

    Raises:
        LoadError: No such experiment, server or database; a query that MLflow does not understand; no run.
    """
    with _client(tracking_uri, f"experiment {name!r}") as (client, uri):
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            known = ", ".join(repr(e.name) for e in client.search_experiments(max_results=10))
            raise LoadError(f"no MLflow experiment {name!r} at {uri!r}; there are {known}.")
        run_ids: list[str] = []
        page: Any = None
        while page is None or (page.token and len(run_ids) < (last or MOST)):
            page = client.search_runs(
                [experiment.experiment_id], query or "", order_by=["attributes.start_time DESC"],
                page_token=page and page.token,
            )  # fmt: skip
            run_ids += [run.info.run_id for run in page if any(map(_RECORDS_TAG.fullmatch, run.data.tags))]
    if not run_ids:
        which = f" that match {query!r}" if query else ""
        raise LoadError(f"the MLflow experiment {name!r} has no runs with records{which}.")
    if last is None and len(run_ids) > MOST:
        raise LoadError(
            f"the MLflow experiment {name!r} has more than {MOST} runs with records; choose with --last or --query."
        )
    return run_ids[:last][::-1]


@contextmanager
def _client(tracking_uri: str | None, what: str) -> Iterator[tuple[Any, str]]:
    """A patient client and its URI; what goes wrong on it is a LoadError that names ``what`` was read."""
    with patient():
        import mlflow
        from mlflow.exceptions import MlflowException

        uri = tracking_uri or mlflow.get_tracking_uri()
        _check_database(uri)
        try:
            yield mlflow.MlflowClient(tracking_uri=uri), uri
        except (MlflowException, OSError) as error:
            reason = printable(str(error))[:300]
            raise LoadError(f"MLflow {what} cannot be read at {uri!r}: {reason}") from error


def _on_this_disk(artifact_uri: str, folder: str) -> Path | None:
    """The folder of a run's artifacts, where MLflow keeps them in one that this process can read."""
    scheme, separator, rest = artifact_uri.partition("://")
    if separator and (scheme != "file" or not rest.startswith("/")):
        return None
    here = Path(url2pathname(rest) if separator else artifact_uri.removeprefix("file:")) / folder
    return here if (here / MANIFEST).is_file() else None


def _records_path(client: Any, run_id: str, uri: str) -> str:
    below = [item.path for item in client.list_artifacts(run_id, "cam") if item.is_dir]
    if RECORDS in below:
        return RECORDS
    named = [f"{path}/records" for path in below if _has(client, run_id, path)]
    if not named:
        raise UnreadableRun(
            f"MLflow run {run_id} at {uri!r} has no artifacts under {RECORDS}: no look was logged to it yet."
        )
    if len(named) > 1:
        listed = ", ".join(f"{run_id}/{path}" for path in named)
        raise LoadError(f"MLflow run {run_id} holds the records of {len(named)} callbacks; name one of them: {listed}")
    return named[0]


def _has(client: Any, run_id: str, path: str) -> bool:
    return any(item.is_dir and item.path == f"{path}/records" for item in client.list_artifacts(run_id, path))


def _check_database(uri: str) -> None:
    """A database that is not there would be made by asking it, and the answer would be a puzzle."""
    if uri.startswith("sqlite:///"):
        file = Path(uri.removeprefix("sqlite:///").partition("?")[0])
        if not file.is_file():
            raise LoadError(f"no MLflow database {str(file)!r}; say where the runs are with --tracking-uri.")


@contextmanager
def patient() -> Iterator[None]:
    """Set MLflow's patience to that of a person, unless the user has set it."""
    added = {key: value for key, value in _PATIENCE.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)
