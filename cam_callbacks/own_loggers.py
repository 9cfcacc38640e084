"""TensorBoard, MLflow and W&B of one's own, for trainers that hand out no logger."""

from __future__ import annotations

import os
from typing import Any

from cam_callbacks.delivery import Sink
from cam_callbacks.keys import plain_key
from cam_callbacks.loggers.scalars import mlflow_sinks, tensorboard_numbers
from cam_callbacks.loggers.tensorboard import TensorBoardSink
from cam_callbacks.loggers.wandb import WandbSink
from cam_callbacks.watcher import Watcher


class OwnLoggers:
    """Takes numbers and pictures of a watcher's looks.

    Args:
        tensorboard: A ``SummaryWriter``, or the folder of one, which is opened when first needed; None writes none.
        mlflow: A run id, or True for the active run; None leaves MLflow alone.
        tracking_uri: MLflow's; by default its own setting.
        wandb: What ``wandb.init()`` returned, or True for the active run; None leaves W&B alone.
    """

    def __init__(
        self,
        tensorboard: Any = None,
        mlflow: bool | str | None = None,
        tracking_uri: str | None = None,
        wandb: Any = None,
    ) -> None:
        self.tensorboard, self.mlflow, self.tracking_uri, self.wandb = tensorboard, mlflow, tracking_uri, wandb
        self._opened: Any = None

    def sinks(self, watcher: Watcher) -> list[Sink]:
        """Those that can be opened; of another the watcher warns."""

        def failed_looks() -> dict[str, float]:
            return {plain_key("failed_looks", watcher.options.look.name): float(watcher.failed_looks)}

        sinks: list[Sink] = []
        if self.tensorboard is not None:
            with watcher.failures.guarded("TensorBoard is left out"):
                writer = self._writer()
                sinks += [tensorboard_numbers(writer, failed_looks), TensorBoardSink(writer)]
        if self.mlflow:
            with watcher.failures.guarded("MLflow is left out"):
                sinks += mlflow_sinks(self.mlflow, self.tracking_uri)
        if self.wandb:
            with watcher.failures.guarded("W&B is left out"):
                sinks.append(WandbSink(self._run(), numbers=True))
        return sinks

    def close(self) -> None:
        """Close the writer that was opened here."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _run(self) -> Any:
        if self.wandb is not True:
            return self.wandb
        import wandb

        if wandb.run is None:
            raise ValueError("wandb=True: no run is active; call wandb.init(), or pass wandb= what it returned.")
        return wandb.run

    def _writer(self) -> Any:
        if not isinstance(self.tensorboard, (str, os.PathLike)):
            return self.tensorboard
        from torch.utils.tensorboard import SummaryWriter

        self._opened = SummaryWriter(os.fspath(self.tensorboard))
        return self._opened
