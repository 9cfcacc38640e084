"""Calls to one MLflow run, on disk until its server has taken them.

    run.json             where the run is, or how to make it
    00000000.json        one call and its arguments
    00000001/            the files of a call that sends some

Every call can be repeated without harm (identical points and tags are stored once, a file takes the place of itself), so
that a process killed between a call and the removal of its file shows nothing twice.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cam_callbacks.delivery.background import Background
from cam_callbacks.delivery.lock import alone
from cam_callbacks.delivery.places import remember
from cam_callbacks.failures import one_line
from cam_callbacks.mlflow_server import check_reachable, without_password
from cam_callbacks.records.files import LARGEST_TEXT, read_file, write_atomically

log = logging.getLogger(__name__)

RUN = "run.json"
QUEUED = "queued-"  # begins the id of a run that the server has yet to make
QUEUE_TAG = "cam_callbacks.queue"  # finds the run again that was made just before a crash
MOST_METRICS = 1000  # that MLflow takes in one call
_CALL = re.compile(r"(\d{8,})\.json")
_REFUSED = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}  # will be refused again


class Outbox:
    """A queue of calls in a folder, delivered in order by a thread in the background.

    Args:
        folder: Its own; made where it is missing.
        run: ``tracking_uri``; ``run_id``, or None and ``experiment_name``, ``artifact_location`` and ``tags`` of the run to
            make. None opens a queue that is there already.
        tracking_uri: Where to deliver, if not to what the folder says (which holds no password).
    """

    def __init__(self, folder: Path, run: dict[str, Any] | None = None, tracking_uri: str | None = None) -> None:
        self.folder = folder.absolute()
        self.run: dict[str, Any] = run or json.loads(read_file(self.folder / RUN, LARGEST_TEXT))
        self.run.setdefault("id", f"{QUEUED}{uuid.uuid4().hex}")
        self.tracking_uri = tracking_uri or self.run["tracking_uri"]
        self.background = Background(f"cam-callbacks {self.folder.name}", self.deliver)
        self._client: Any = None
        self._lock = threading.Lock()
        self._next = max(self.waiting(), default=-1) + 1
        self._warned = False
        if run is not None:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # parameters and tags may be anybody's secret
            self._write_run()
            remember([without_password(self.tracking_uri)])

    def waiting(self) -> list[int]:
        """Numbers of the calls not delivered yet, ascending."""
        names = (entry.name for entry in self.folder.iterdir()) if self.folder.is_dir() else ()
        return sorted(int(match[1]) for match in map(_CALL.fullmatch, names) if match)

    def append(self, call: str, arguments: dict[str, Any], files: Path | None = None) -> None:
        """Queue a call; ``files`` is copied, a file or a folder. Returns when it is on disk.

        Raises:
            OSError: The disk is full, or the files are not there.
        """
        with self._lock:
            number, self._next = self._next, self._next + 1
        if files is not None:
            kept = self._files(number) / files.name
            kept.parent.mkdir(parents=True)
            if files.is_dir():
                shutil.copytree(files, kept)
            else:
                shutil.copy2(files, kept)
        content = {"call": call, "file": None if files is None else files.name, "arguments": arguments}
        # Numbers are many and small: a killed process loses none of them without fsync either, only a power cut may.
        write_atomically(self._path(number), json.dumps(content).encode(), flush=call != "log_batch")
        self.background.wake()

    def deliver(self) -> None:
        """Send everything that waits, and raise at the first failure."""
        try:
            check_reachable(self.tracking_uri)
            if self._client is None:
                from mlflow.tracking import MlflowClient

                self._client = MlflowClient(self.tracking_uri)
            with alone(self.folder / ".lock"):  # a training may still be at it while somebody calls sync
                run_id = self.ensure_run()
                for numbers, call in self._calls():
                    try:
                        self._send(call, run_id)
                    except TypeError as error:  # arguments that the call does not take
                        self._set_aside(numbers, error)
                        continue
                    for number in numbers:
                        self._remove(number)
        except Exception as error:
            if not self._warned:
                log.warning(
                    "cam-callbacks: MLflow at %s takes nothing at present (%s). What is logged is kept in %s, and sent later.",
                    without_password(self.tracking_uri), one_line(error), self.folder,
                )  # fmt: skip
            self._warned = True
            raise
        self._warned = False

    def ensure_run(self) -> str:
        """The id of the run, which is made where there is none."""
        if self.run["run_id"] is None:
            experiment = self._client.get_experiment_by_name(self.run["experiment_name"])
            if experiment is not None and experiment.lifecycle_stage != "deleted":
                experiment_id = experiment.experiment_id
            else:
                experiment_id = self._client.create_experiment(
                    self.run["experiment_name"], artifact_location=self.run["artifact_location"]
                )
            mark = self.run["id"]
            marked = self._client.search_runs([experiment_id], f"tags.`{QUEUE_TAG}` = '{mark}'", max_results=1)
            made = (
                marked[0]
                if marked
                else self._client.create_run(experiment_id, tags=self.run["tags"] | {QUEUE_TAG: mark})
            )
            self.run |= {"run_id": made.info.run_id, "experiment_id": experiment_id}
            self._write_run()
        return str(self.run["run_id"])

    def flush(self, wait: float) -> bool:
        """Wait at most so many seconds until all is delivered; say what is left then. Was it all?"""
        if self.background.flush(wait) and not self.waiting():
            return True
        log.warning(
            "cam-callbacks: %d calls to MLflow are not delivered yet; deliver them later with: cam-callbacks sync %s",
            len(self.waiting()), self.folder,
        )  # fmt: skip
        return False

    def _calls(self) -> Iterator[tuple[list[int], dict[str, Any]]]:
        """What waits, in order; batches of metrics that follow each other as one."""
        together: list[int] = []
        metrics: list[Any] = []
        for number in self.waiting():
            try:
                call = json.loads(self._path(number).read_text(encoding="utf-8"))
                arguments = dict(call["arguments"])
                only_metrics = call["call"] == "log_batch" and set(arguments) == {"metrics"}
                self._check(number, call)
            except (ValueError, KeyError, TypeError) as error:
                self._set_aside([number], error)
                continue
            call["number"] = number
            if together and (not only_metrics or len(metrics) + len(arguments["metrics"]) > MOST_METRICS):
                yield together, {"call": "log_batch", "arguments": {"metrics": metrics}}
                together, metrics = [], []
            if only_metrics:
                together.append(number)
                metrics = metrics + arguments["metrics"]
            else:
                yield [number], call
        if together:
            yield together, {"call": "log_batch", "arguments": {"metrics": metrics}}

    def _check(self, number: int, call: dict[str, Any]) -> None:
        """Raise ValueError, KeyError or TypeError where this can never be sent."""
        from mlflow.entities import Metric

        for metric in call["arguments"].get("metrics", ()):
            Metric(**metric)
        if call["call"] in ("log_artifact", "log_artifacts"):
            path = self._file(number, call)
            if path.is_dir() != (call["call"] == "log_artifacts") or not path.exists():
                raise ValueError(f"{path.name} is not there")
            if any(each.is_symlink() for each in (path.parent, path, *path.rglob("*"))):
                raise ValueError(f"{path.name} is a link or holds one, which may lead anywhere")

    def _send(self, call: dict[str, Any], run_id: str) -> None:
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.exceptions import MlflowException

        arguments = dict(call["arguments"])
        run_id = arguments.pop("run_id", run_id)
        try:
            if call["call"] == "log_batch":
                self._client.log_batch(
                    run_id,
                    metrics=[Metric(**m) for m in arguments.get("metrics", ())],
                    params=[Param(*p) for p in arguments.get("params", ())],
                    tags=[RunTag(*t) for t in arguments.get("tags", ())],
                )
            elif call["call"] in ("log_artifact", "log_artifacts"):
                path = self._file(call["number"], call)
                getattr(self._client, call["call"])(run_id, str(path), **arguments)
            elif call["call"] in ("set_terminated", "delete_tag", "update_run"):
                getattr(self._client, call["call"])(run_id, **arguments)
        except MlflowException as error:
            if error.error_code not in _REFUSED:
                raise
            log.warning("cam-callbacks: MLflow refused %s (%s)", call["call"], one_line(error))

    def _set_aside(self, numbers: list[int], error: Exception) -> None:
        """Keep what can never be sent, as it is, where it holds up nothing."""
        for number in numbers:
            log.warning("cam-callbacks: %s is damaged and left out (%s)", self._path(number), one_line(error))
            self._path(number).rename(self._path(number).with_suffix(".damaged"))

    def _remove(self, number: int) -> None:
        self._path(number).unlink(missing_ok=True)
        shutil.rmtree(self._files(number), ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.json"

    def _files(self, number: int) -> Path:
        return self.folder / f"{number:08d}"

    def _file(self, number: int, call: dict[str, Any]) -> Path:
        """What a call sends; inside the queue, whatever the call says."""
        return self._files(number) / Path(call["file"]).name

    def _write_run(self) -> None:
        secret = {name: self.run.get(name) for name in ("tracking_uri", "artifact_location")}
        run = self.run | {name: uri and without_password(uri) for name, uri in secret.items()}
        write_atomically(self.folder / RUN, json.dumps(run, indent=1).encode(), private=True)


def new_folder(root: Path) -> Path:
    """A folder for one queue, of its own also where several trainings start at once."""
    return root / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{uuid.uuid4().hex[:6]}"
