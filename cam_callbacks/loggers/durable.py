"""Lightning's MLFlowLogger, whose server may be down."""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient
from pytorch_lightning.loggers import MLFlowLogger
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_only

from cam_callbacks.delivery.budget import END, WAIT, WAIT_AFTER_ERROR
from cam_callbacks.delivery.outbox import QUEUED, Outbox, new_folder
from cam_callbacks.failures import one_line

log = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]

START_WAIT = 3.0  # seconds for the server to make the run, before the training goes on without


class DurableClient(MlflowClient):
    """An MLflow client whose every call that writes to a run is queued on disk, and sent in the background.

    What reads asks the server, as ever. Run ids are those of the server, or ``queue.run["id"]`` for the queue's own run.
    """

    def __init__(self, queue: Outbox) -> None:
        super().__init__(queue.tracking_uri)
        self.queue = queue

    def log_metric(
        self,
        run_id: str,
        key: str,
        value: float,
        timestamp: int | None = None,
        step: int | None = None,
        *_: Any,
        **__: Any,
    ) -> None:
        timestamp = int(time.time() * 1000) if timestamp is None else timestamp
        self.log_batch(run_id, metrics=[Metric(key, value, timestamp, step or 0)])

    def log_param(self, run_id: str, key: str, value: Any, synchronous: bool | None = None) -> Any:
        self.log_batch(run_id, params=[Param(key, str(value))])
        return value

    def set_tag(self, run_id: str, key: str, value: Any, synchronous: bool | None = None) -> None:
        self.log_batch(run_id, tags=[RunTag(key, str(value))])

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
        synchronous: bool | None = None,
    ) -> None:
        batch = {
            "metrics": [
                {"key": m.key, "value": float(m.value), "timestamp": int(m.timestamp), "step": int(m.step)}
                for m in metrics
            ],
            "params": [[p.key, p.value] for p in params],
            "tags": [[t.key, t.value] for t in tags],
        }
        self._queue("log_batch", run_id, {name: values for name, values in batch.items() if values})

    def log_artifact(self, run_id: str, local_path: PathLike, artifact_path: PathLike | None = None) -> None:
        self._queue("log_artifact", run_id, {"artifact_path": artifact_path}, Path(local_path))

    def log_artifacts(self, run_id: str, local_dir: PathLike, artifact_path: PathLike | None = None) -> None:
        self._queue("log_artifacts", run_id, {"artifact_path": artifact_path}, Path(local_dir))

    def set_terminated(self, run_id: str, status: str | None = None, end_time: int | None = None) -> None:
        end_time = int(time.time() * 1000) if end_time is None else end_time
        self._queue("set_terminated", run_id, {"status": status, "end_time": end_time})

    def update_run(self, run_id: str, status: str | None = None, name: str | None = None) -> None:
        self._queue("update_run", run_id, {"status": status, "name": name})

    def delete_tag(self, run_id: str, key: str) -> None:
        self._queue("delete_tag", run_id, {"key": key})

    def _queue(self, call: str, run_id: str, arguments: dict[str, Any], files: Path | None = None) -> None:
        if run_id not in (self.queue.run["id"], self.queue.run["run_id"]):
            arguments = arguments | {"run_id": run_id}
        try:
            self.queue.append(call, arguments, files)
        except OSError as error:
            log.warning("cam-callbacks: %s could not be queued in %s (%s)", call, self.queue.folder, one_line(error))


class DurableMLFlowLogger(MLFlowLogger):
    """Lightning's ``MLFlowLogger``, which goes on when its server does not: nothing it does waits for the network.

    Every metric, parameter, tag, image and artifact goes to a queue on disk first, and from there to the server, in the
    background and in order. What is not delivered at the end of a fit stays in the queue; ``cam-callbacks sync FOLDER``
    sends it later.

    Where the server does not answer at the start, the run is made when it does. Until then :attr:`run_id` is an id of ours,
    ``queued-…``, which ``experiment`` takes like any other, also later. What reads (``experiment.get_run``) still asks the server.

    Args:
        queue: Folder of queues; each logger makes one in it.
        wait: Seconds that the end of a fit waits at most for the delivery, together with the callback and other such loggers;
            after an exception or an interrupt 3.
        **arguments: And the positional ones: those of ``MLFlowLogger``. ``synchronous`` has no effect.

    >>> from cam_callbacks.loggers import DurableMLFlowLogger
    >>> logger = DurableMLFlowLogger("trials", tracking_uri="sqlite:///trials.db")
    >>> Trainer(max_epochs=1, logger=logger, **quiet).fit(module, loader, loader)
    >>> "val_loss" in logger.experiment.get_run(logger.run_id).data.metrics
    True
    """

    def __init__(
        self,
        experiment_name: str = "lightning_logs",
        run_name: str | None = None,
        tracking_uri: str | None = os.getenv("MLFLOW_TRACKING_URI"),
        *arguments: Any,
        queue: str | os.PathLike[str] = "mlflow_queue",
        wait: float = WAIT,
        **options: Any,
    ) -> None:
        super().__init__(experiment_name, run_name, tracking_uri, *arguments, **options)
        self._queue_folder = Path(queue)
        self._wait = wait
        self._durable: DurableClient | None = None
        self.first_run_id: str | None = None  # what run_id was at the start: what is delivered is remembered under it

    @property
    @rank_zero_experiment
    def experiment(self) -> MlflowClient:
        """The client, for anything else that is to be logged: it queues what it is given."""
        if self._durable is None:
            self._durable = self._start()
        return self._durable

    @property
    def name(self) -> str | None:
        """The experiment's id, or its name while the server has not answered."""
        return self.experiment_id or self._experiment_name

    @property
    def experiment_id(self) -> str | None:
        """The experiment's id; None while the server has not answered."""
        self._take_ids()
        return self._experiment_id

    @property
    def run_id(self) -> str | None:
        """The run's id, as soon as the server has made the run; before that ours."""
        self._take_ids()
        return self._run_id

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any) -> None:
        super().log_hyperparams(params)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        END.goes_on()
        super().log_metrics(metrics, step)

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        if self._durable is None:
            return
        if self._checkpoint_callback:
            self._scan_and_log_checkpoints(self._checkpoint_callback)
        self._durable.set_terminated(str(self.run_id), "FAILED" if status == "failed" else "FINISHED")
        with END.within(min(self._wait, WAIT_AFTER_ERROR) if status == "failed" else self._wait) as seconds:
            self._durable.queue.flush(seconds)

    def __getstate__(self) -> dict[str, Any]:
        if self._durable is not None:
            self._take_ids()
        return vars(self) | {"_durable": None}

    def _take_ids(self) -> None:
        """What the server has answered by now, in the background."""
        client = self.experiment
        if isinstance(client, DurableClient):  # on other ranks than 0 a stand-in
            run = client.queue.run
            self._run_id, self._experiment_id = run["run_id"] or run["id"], run.get("experiment_id")

    def _start(self) -> DurableClient:
        from mlflow.tracking.context.registry import resolve_tags

        tags = dict(self.tags or {})
        if self._run_name is not None:
            tags["mlflow.runName"] = self._run_name
        # A copy of a logger (pickled, or in another process) whose run the server had yet to make: it is the same run.
        waited_for = {"id": self._run_id} if str(self._run_id).startswith(QUEUED) else {}
        queue = Outbox(
            new_folder(self._queue_folder),
            {
                "tracking_uri": self._tracking_uri,
                "run_id": None if waited_for else self._run_id,
                "experiment_name": self._experiment_name,
                "artifact_location": self._artifact_location,
                **waited_for,
                "tags": {str(key): str(value) for key, value in resolve_tags(tags).items()},
            },
        )
        client = DurableClient(queue)
        is_server = self._tracking_uri.startswith("http")
        queue.background.flush(START_WAIT if is_server else 10 * START_WAIT)  # a database being made takes its time
        self.first_run_id = queue.run["run_id"] or queue.run["id"]
        self._run_id, self._initialized = self.first_run_id, True
        END.goes_on()
        return client


if importlib.util.find_spec("lightning") is not None:
    import lightning.pytorch.loggers

    # The two packages' classes are unrelated; to ``isinstance`` this is a logger of both.
    lightning.pytorch.loggers.MLFlowLogger.register(DurableMLFlowLogger)
