"""Calls to one MLflow run, kept in a folder (:mod:`cam_callbacks.delivery.call_files`) until its server has taken them.
``run.json`` beside them says where the run is, or how to make it.

Every call can be repeated without harm (identical points and tags are stored once, a file takes the place of itself), so
that a process killed between a call and the removal of its file shows nothing twice. No call holds up those behind it.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cam_callbacks.delivery.background import Background, keep_off_random_streams
from cam_callbacks.delivery.call_files import CallFiles
from cam_callbacks.delivery.lock import alone
from cam_callbacks.delivery.mlflow_calls import Call, described, halves, is_lasting, is_refusal, send_call
from cam_callbacks.delivery.places import remember
from cam_callbacks.failures import one_line
from cam_callbacks.mlflow_server import check_reachable, check_run, check_sent, without_password
from cam_callbacks.records.files import LARGEST_TEXT, read_file

log = logging.getLogger(__name__)

RUN = "run.json"
QUEUED = "queued-"  # begins the id of a run that the server has yet to make
QUEUE_TAG = "cam_callbacks.queue"  # finds the run again that was made just before a crash
MOST_METRICS = 1000  # that MLflow takes in one call
TRIES = 3  # of a call that is too much for the server, before it is set aside
NO_SERVER = "what answers there makes no run: it is no MLflow server"
MOST_HELD = 5  # calls one after the other that fail: then it is the server


class HeldUpError(RuntimeError):
    """The server took what else there was, and not these calls, which are offered again."""


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
        self.calls = CallFiles(self.folder)
        self._client: Any = None
        self._warned = False
        self._tries: Counter[int] = Counter()
        if run is not None:
            self._write_run()
            remember([without_password(self.tracking_uri)])

    def waiting(self) -> list[int]:
        """Numbers of the calls not delivered yet, ascending."""
        return self.calls.waiting()

    def refused(self) -> list[str]:
        """What the server will never take, each with the reason."""
        return self.calls.refused()

    def append(self, call: str, arguments: dict[str, Any], files: Path | None = None) -> None:
        """Queue a call; ``files`` is copied, a file or a folder. Returns when it is on disk, or in memory where that refuses.

        Raises:
            OSError: The files are not there, or there is room for them nowhere.
        """
        self.calls.append(call, arguments, files)
        self.background.wake()

    def deliver(self) -> None:
        """Send everything that waits, in order.

        Raises:
            HeldUpError: Some calls were not taken, the others were.
            Exception: The server does not answer, or as if it were ill; what was not sent waits.
        """
        try:
            check_reachable(self.tracking_uri)
            if self._client is None:
                from mlflow.tracking import MlflowClient

                self._client = MlflowClient(self.tracking_uri)
                keep_off_random_streams()  # of what that has imported
            with alone(self.folder / ".lock"):  # a training may still be at it while somebody calls sync
                run_id = self.ensure_run()
                check_run(self._client, run_id)
                self._deliver(run_id)
        except Exception as error:
            if not self._warned:
                takes = "does not take everything" if isinstance(error, HeldUpError) else "takes nothing at present"
                log.warning(
                    "cam-callbacks: MLflow at %s %s (%s). What is logged is kept in %s, and sent later.",
                    without_password(self.tracking_uri), takes, one_line(error), self.folder,
                )  # fmt: skip
            self._warned = True
            raise
        self._warned = False

    def _deliver(self, run_id: str) -> None:
        held: dict[str, Exception] = {}
        in_a_row = 0
        for numbers, call in self._calls():
            refused: list[tuple[Call, Exception]] = []
            failure: Exception | None = None
            try:
                refused = self._send(call, run_id)
            except TypeError as error:  # arguments that the call does not take
                for number in numbers:
                    self.calls.set_aside(number, error)
                continue
            except Exception as error:
                failure = error
            check_sent(self._client, run_id)  # was it the server that took or refused this?
            in_a_row = 0 if failure is None else in_a_row + 1
            if failure is not None:
                self._tries[numbers[0]] += 1
                if in_a_row > MOST_HELD:
                    raise failure
                if not is_lasting(failure) or self._tries[numbers[0]] < TRIES:
                    held[described(call)] = failure
                    continue
                refused = [(call, failure)]
            if refused:
                self.calls.keep_refused(numbers[0], refused)
            for number in numbers:
                self.calls.remove(number, files=not refused)
        if held:
            named = "; ".join(f"{what}: {one_line(error)}" for what, error in list(held.items())[:MOST_HELD])
            raise HeldUpError(f"{len(held)} calls wait: {named}")

    def _send(self, call: Call, run_id: str) -> list[tuple[Call, Exception]]:
        """Send a call; a batch that is refused by halves, until what is refused stands alone. That is returned."""
        try:
            send_call(self._client, run_id, call, self.calls.file(call))
        except Exception as error:
            parts = halves(call)
            if not is_refusal(error) and not (parts and is_lasting(error)):
                raise
            return [alone for part in parts for alone in self._send(part, run_id)] if parts else [(call, error)]
        return []

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
            if not experiment_id:
                raise ConnectionError(NO_SERVER)
            mark = self.run["id"]
            marked = self._client.search_runs([experiment_id], f"tags.`{QUEUE_TAG}` = '{mark}'", max_results=1)
            made = (
                marked[0]
                if marked
                else self._client.create_run(experiment_id, tags=self.run["tags"] | {QUEUE_TAG: mark})
            )
            if not made.info.run_id:
                raise ConnectionError(NO_SERVER)
            self.run |= {"run_id": made.info.run_id, "experiment_id": experiment_id}
            self._write_run()
        return str(self.run["run_id"])

    def flush(self, wait: float) -> bool:
        """Wait at most so many seconds until all is delivered; say what is left then. Was it all?"""
        if self.background.flush(wait) and not self.waiting():
            return True
        if not self.calls.to_disk():
            log.warning(
                "cam-callbacks: %s cannot be written to; what MLflow has not taken when this process ends is lost",
                self.folder,
            )
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
                call = self.calls.read(number)
            except (ValueError, KeyError, TypeError) as error:
                self.calls.set_aside(number, error)
                continue
            arguments = call["arguments"]
            only_metrics = call["call"] == "log_batch" and set(arguments) == {"metrics"}
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

    def _write_run(self) -> None:
        secret = {name: self.run.get(name) for name in ("tracking_uri", "artifact_location")}
        run = self.run | {name: uri and without_password(uri) for name, uri in secret.items()}
        self.calls.write(RUN, json.dumps(run, indent=1).encode())


def new_folder(root: Path) -> Path:
    """A folder for one queue, of its own also where several trainings start at once."""
    return root / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{uuid.uuid4().hex[:6]}"
