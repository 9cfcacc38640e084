"""Looks in a loop of one's own: plain PyTorch, Lightning Fabric, any trainer that calls back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from torch import nn

from cam_callbacks import processes
from cam_callbacks.delivery import WAIT, Delivery, Sink
from cam_callbacks.failures import Failures
from cam_callbacks.keys import plain_key
from cam_callbacks.loggers.scalars import finite, mlflow_sinks, tensorboard_numbers
from cam_callbacks.loggers.tensorboard import TensorBoardSink
from cam_callbacks.look.monitor import CAMMonitor
from cam_callbacks.probe import ProbeSet
from cam_callbacks.records import Record, RecordStore


class CAMLoop:
    """A :class:`CAMMonitor` with loggers, and the manners of :class:`CAMCallback`: an error of a look ends no training.

    >>> with CAMLoop(probe, "looks", tensorboard="runs/one") as watch:   # doctest: +SKIP
    ...     for epoch in range(10):
    ...         train(model)
    ...         watch.look(model, epoch)

    Args:
        probe: The images.
        folder: Where the records go.
        tensorboard: A ``SummaryWriter``, or the folder of one; None writes none.
        mlflow: A run id, or True for the active run; None leaves MLflow alone.
        tracking_uri: MLflow's; by default its own setting.
        max_images: How many probe images are drawn.
        on_error: ``"warn"``, or ``"raise"`` for tests.
        wait: Seconds that :meth:`close` waits at most for loggers.
        **options: As for :class:`CAMMonitor`.
    """

    def __init__(
        self,
        probe: ProbeSet,
        folder: str | os.PathLike[str],
        *,
        tensorboard: Any = None,
        mlflow: bool | str | None = None,
        tracking_uri: str | None = None,
        max_images: int = 16,
        on_error: str = "warn",
        wait: float = WAIT,
        **options: Any,
    ) -> None:
        self.monitor = CAMMonitor(probe, folder=folder, **options)
        self.failures = Failures("CAMLoop", on_error)
        self.tensorboard, self.mlflow, self.tracking_uri = tensorboard, mlflow, tracking_uri
        self.max_images, self.wait = max_images, wait
        self._own_writer: Any = None
        self._delivery: Delivery | None = None

    @property
    def store(self) -> RecordStore:
        """The records."""
        assert self.monitor.store is not None
        return self.monitor.store

    def look(
        self,
        model: nn.Module,
        epoch: int | None = None,
        step: int | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> Record | None:
        """Look, write the record, and let the loggers have it in the background. On every process, where there are several.

        Args:
            model: As it is now; left exactly as it was.
            epoch: By default the number of this look.
            step: Optimizer steps so far; by default the epoch.
            metrics: Your own numbers of this epoch, kept with the record.

        Returns:
            The record, or None where the look failed: a warning says why.
        """
        if self.failures.resting:
            return None
        record = None
        with self.failures.guarded("look skipped", look=True):
            record = self.monitor.look(model, epoch, step)
        if record is not None and processes.rank() == 0:
            with self.failures.guarded("could not deliver a look"):
                if metrics:
                    self.store.annotate(record.look, finite(metrics))
                if self._delivery is None:
                    self._delivery = Delivery(self.store, self._sinks(), self.max_images)
                self._delivery.offer()
        return record

    def close(self) -> None:
        """Wait for the loggers to take what is left; say what they did not."""
        with self.failures.guarded("could not deliver everything"):
            delivery, self._delivery = self._delivery, None
            if delivery is not None:
                delivery.finish(self.wait)
        if self._own_writer is not None:
            self._own_writer.close()

    def __enter__(self) -> CAMLoop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _sinks(self) -> list[Sink]:
        sinks: list[Sink] = []
        if self.tensorboard is not None:
            with self.failures.guarded("TensorBoard is left out"):
                writer = self.tensorboard
                if isinstance(writer, (str, os.PathLike)):
                    from torch.utils.tensorboard import SummaryWriter

                    writer = self._own_writer = SummaryWriter(os.fspath(writer))
                sinks += [tensorboard_numbers(writer, self._failed), TensorBoardSink(writer)]
        if self.mlflow:
            with self.failures.guarded("MLflow is left out"):
                sinks += mlflow_sinks(self.mlflow, self.tracking_uri)
        return sinks

    def _failed(self) -> dict[str, float]:
        return {plain_key("failed_looks", self.monitor.name): float(self.failures.looks)}
