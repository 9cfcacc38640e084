"""Looks in a loop of one's own: plain PyTorch, Lightning Fabric, any trainer that calls back."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import nn

from cam_callbacks.delivery import WAIT
from cam_callbacks.loggers.scalars import finite
from cam_callbacks.look.options import LookOptions
from cam_callbacks.own_loggers import OwnLoggers
from cam_callbacks.probe import ProbeSet
from cam_callbacks.records import Alert, Record, RecordStore
from cam_callbacks.watcher import Watcher, WatchOptions


class CAMLoop:
    """A :class:`CAMMonitor` with loggers, and the manners of :class:`CAMCallback`: an error of a look ends no training.

    Args:
        probe: The images.
        folder: Where the records go.
        tensorboard: A ``SummaryWriter``, or the folder of one; None writes none.
        mlflow: A run id, or True for the active run; None leaves MLflow alone.
        tracking_uri: MLflow's; by default its own setting.
        wandb: What ``wandb.init()`` returned, or True for the active run; None leaves W&B alone.
        max_images: How many probe images are drawn.
        on_error: ``"warn"``, or ``"raise"`` for tests.
        on_alert: Called with each :class:`~cam_callbacks.records.Alert` when it is raised, on rank 0.
        max_overhead: The share of the time that looks may take; None: no limit.
        wait: Seconds that :meth:`close` waits at most for loggers.
        run: Name of the run, for people; by default that of the folder.
        **options: ``methods``, ``layers``, ``target``, …: those of :class:`cam_callbacks.CAMMonitor` that say how to look.

    >>> from cam_callbacks.loop import CAMLoop
    >>> with CAMLoop(probe, "looks", tensorboard="runs/board", methods="gradcam") as watch:
    ...     for epoch in range(2):
    ...         record = watch.look(model, epoch)  # after a training's epoch
    >>> record.epoch, len(watch.store)
    (1, 2)
    """

    def __init__(
        self,
        probe: ProbeSet,
        folder: str | os.PathLike[str],
        *,
        tensorboard: Any = None,
        mlflow: bool | str | None = None,
        tracking_uri: str | None = None,
        wandb: Any = None,
        max_images: int = 16,
        on_error: str = "warn",
        on_alert: Callable[[Alert], object] | None = None,
        max_overhead: float | None = None,
        wait: float = WAIT,
        run: str | None = None,
        **options: Any,
    ) -> None:
        choice = WatchOptions(LookOptions(**options), max_images, max_overhead, on_alert, on_error, wait)
        self.loggers = OwnLoggers(tensorboard, mlflow, tracking_uri, wandb)
        self.watcher = Watcher("CAMLoop", choice, probe)
        self.watcher.begin(run or Path(folder).name, folder, tracking_uri=tracking_uri)

    @property
    def store(self) -> RecordStore:
        """The records."""
        assert self.watcher.store is not None
        return self.watcher.store

    @property
    def failed_looks(self) -> int:
        """How many looks failed and were skipped."""
        return self.watcher.failed_looks

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
            The record, or None where the look failed (a warning says why) or would have been beyond ``max_overhead``.
        """
        record = self.watcher.look(model, epoch, step) if self.watcher.may_look() else None
        if record is not None:
            self.watcher.annotate(record, finite(metrics), lambda: self.loggers.sinks(self.watcher))
        return record

    def close(self, after_error: bool = False) -> None:
        """Wait for the loggers to take what is left, after an error no more than seconds; say what they did not."""
        self.watcher.close(after_error)
        self.loggers.close()

    def __enter__(self) -> CAMLoop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(after_error=error is not None)
