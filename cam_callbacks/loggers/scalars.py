"""A record's numbers, for a logger that no trainer feeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from cam_callbacks.drawing import Drawing
from cam_callbacks.keys import fired
from cam_callbacks.loggers.mlflow import MLflowSink
from cam_callbacks.records import Record, RecordStore


class ScalarSink:
    """Numbers for one logger. ``write`` takes the finite ones, and those of an alert once it has fired."""

    def __init__(self, name: str, write: Callable[[Mapping[str, float], Record], None]) -> None:
        self.name = name
        self.write = write
        self.address: dict[str, Any] | None = None
        self._fired: set[str] = set()

    def deliver(self, record: Record, drawing: Drawing) -> None:
        self.write(fired(finite(record.metrics), drawing.manifest.get("name"), self._fired), record)

    def finish(self, store: RecordStore, drawing: Drawing) -> None:
        """Numbers need no summary."""


def mlflow_sinks(run: bool | str, tracking_uri: str | None) -> list[ScalarSink | MLflowSink]:
    """Numbers and pictures for an MLflow run: that of an id, or with True the one that is active.

    Raises:
        ValueError: None is active.
    """
    import mlflow as library
    from mlflow.entities import Metric

    if not isinstance(run, str):
        active = library.active_run()
        if active is None:
            raise ValueError("mlflow=True: no run is active; start one, or pass mlflow= a run id.")
        run = str(active.info.run_id)
    run_id = run
    client = library.MlflowClient(tracking_uri)

    def write(values: Mapping[str, float], record: Record) -> None:
        now = int(record.time * 1000)
        metrics = [Metric(key, value, now, record.epoch) for key, value in values.items()]
        client.log_batch(run_id, metrics=metrics)

    return [ScalarSink(f"mlflow:{run_id}:scalars", write), MLflowSink(client, run_id)]


def tensorboard_numbers(writer: Any, extra: Callable[[], Mapping[str, float]] = dict) -> ScalarSink:
    """Numbers for a ``SummaryWriter``, and beside them what ``extra`` returns."""

    def write(values: Mapping[str, float], record: Record) -> None:
        for key, value in {**values, **extra()}.items():
            writer.add_scalar(key, value, record.epoch)
        writer.flush()

    return ScalarSink("tensorboard:scalars", write)


def finite(values: Mapping[str, Any] | None) -> dict[str, float]:
    """Those that are finite."""
    floats = {key: float(value) for key, value in (values or {}).items()}
    return {key: value for key, value in floats.items() if math.isfinite(value)}
