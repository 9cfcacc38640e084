"""When to look, in a training with ultralytics. Nothing of ultralytics is imported: its trainer is met by duck typing."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cam_callbacks import processes
from cam_callbacks.delivery import Delivery, Sink
from cam_callbacks.failures import Failures
from cam_callbacks.keys import plain_key
from cam_callbacks.loggers.scalars import finite, mlflow_sinks, tensorboard_numbers
from cam_callbacks.loggers.tensorboard import TensorBoardSink
from cam_callbacks.look.monitor import CAMMonitor, Target
from cam_callbacks.probe import ProbeSet
from cam_callbacks.records import RecordStore
from cam_callbacks.yolo_data import probe_from_yolo

__all__ = ["Watch", "attach", "probe_from_yolo"]

log = logging.getLogger(__name__)

STATE = "state.pt"
DISABLED = "CAM_CALLBACKS_DISABLED"


def attach(
    yolo: Any,
    probe: ProbeSet | str = "val",
    methods: str | Sequence[str] = ("eigencam", "layercam"),
    layers: str | Sequence[str] = "auto",
    *,
    target: str | int | Sequence[int] | Callable[[Any], Tensor] = "label",
    folder: str | os.PathLike[str] | None = None,
    tensorboard: bool = True,
    mlflow: bool | str | None = None,
    tracking_uri: str | None = None,
    every_n_epochs: int = 1,
    reference: str = "settled",
    max_images: int = 8,
    on_error: str = "warn",
    batch_size: int | None = None,
) -> Watch:
    """Watch every training that ``yolo.train(...)`` starts from here on.

    After each epoch's validation the averaged (EMA) weights, those that ultralytics saves, are looked at through the
    probe. Records go to disk, pictures and numbers to TensorBoard and MLflow. The training is not changed.

    Args:
        yolo: An ultralytics ``YOLO`` (or ``RTDETR``, or a trainer): anything with ``add_callback``.
        probe: A :class:`ProbeSet`, as from :func:`probe_from_yolo`, or ``"val"``: 16 pictures of the training's
            validation data.
        methods: Names from :func:`cam_engine.available_methods`. By default LayerCAM stands where CAMCallback has GradCAM,
            which averages over a whole level and so loses small objects.
        layers: ``"auto"``: all inputs of the detection head, each with numbers of its own; or names, globs.
        target: ``"label"``: of a detector the classes of the probe's boxes
            (:class:`cam_callbacks.look.detection.ProbeBoxTarget`); or as for :class:`CAMMonitor`.
        folder: Where records go; by default ``<save_dir>/cam``.
        tensorboard: Write to ``save_dir``, beside what ultralytics may write there itself.
        mlflow: A run id; or True for the run that is active when the training starts, as ultralytics' own MLflow
            integration starts one; None leaves MLflow alone.
        tracking_uri: Of that run; by default MLflow's own setting.
        every_n_epochs, reference, max_images, batch_size: As for :class:`CAMCallback`.
        on_error: ``"warn"``: an error skips the look and the training goes on; ``"raise"`` for tests.

    Returns:
        A handle with ``store``, ``failed_looks`` and ``detach()``.
    """
    watch = Watch(
        probe, methods, layers, target, folder, tensorboard, mlflow, tracking_uri, every_n_epochs, reference,
        max_images, on_error, batch_size,
    )  # fmt: skip
    if os.environ.get(DISABLED, "").lower() not in ("1", "true", "yes"):
        watch.attach(yolo)
    return watch


class Watch:
    """What :func:`attach` returns: the callbacks of one or more trainings with ultralytics.

    ``store``: the records of the training that runs or ran last, None before. ``failed_looks``: how many looks failed.
    """

    def __init__(
        self,
        probe: ProbeSet | str,
        methods: str | Sequence[str],
        layers: str | Sequence[str],
        target: str | int | Sequence[int] | Callable[[Any], Tensor],
        folder: str | os.PathLike[str] | None,
        tensorboard: bool,
        mlflow: bool | str | None,
        tracking_uri: str | None,
        every_n_epochs: int,
        reference: str,
        max_images: int,
        on_error: str,
        batch_size: int | None,
    ) -> None:
        if not isinstance(probe, ProbeSet) and probe != "val":
            raise ValueError(f'probe= takes a ProbeSet or "val", not {probe!r}.')
        if every_n_epochs < 1 or max_images < 0:
            raise ValueError("every_n_epochs= must be at least 1, max_images= at least 0.")
        self.probe, self.methods, self.layers, self.target = probe, methods, layers, target
        self.folder, self.tensorboard, self.mlflow, self.tracking_uri = folder, tensorboard, mlflow, tracking_uri
        self.every_n_epochs, self.reference, self.max_images = every_n_epochs, reference, max_images
        self.batch_size = batch_size
        self.failures = Failures("cam-callbacks", on_error)
        self._sources: list[Any] = []
        self._monitor: CAMMonitor | None = None
        self._delivery: Delivery | None = None
        self._writer: Any = None
        self._trained = False  # an epoch was trained since the last look
        if isinstance(probe, ProbeSet):
            self._new_monitor(probe)  # a wrong argument is an error at once and not after an epoch

    @property
    def failed_looks(self) -> int:
        return self.failures.looks

    @property
    def store(self) -> RecordStore | None:
        return None if self._monitor is None else self._monitor.store

    def attach(self, source: Any) -> None:
        """Register on a model or trainer."""
        self._sources.append(source)
        for event, function in self._callbacks.items():
            source.add_callback(event, function)

    def detach(self) -> None:
        """Watch no further training."""
        for source in self._sources:
            for event, function in self._callbacks.items():
                if function in source.callbacks.get(event, []):
                    source.callbacks[event].remove(function)
        self._sources.clear()

    @property
    def _callbacks(self) -> dict[str, Callable[[Any], None]]:
        return {
            "on_train_start": self._on_train_start,
            "on_train_epoch_end": self._on_train_epoch_end,
            "on_fit_epoch_end": self._on_fit_epoch_end,
            "on_train_end": self._on_train_end,
            "teardown": self._on_train_end,  # after an error or an interrupt, too
        }

    # -- events
    # --------------------------------------------------------------------------------------------------------------

    def _on_train_start(self, trainer: Any) -> None:
        self._monitor = self._delivery = self._writer = None
        self._trained = False
        self.failures.looks = self.failures.in_a_row = 0

    def _on_train_epoch_end(self, trainer: Any) -> None:
        self._trained = True

    def _on_fit_epoch_end(self, trainer: Any) -> None:
        # The event fires once more after the last validation, of the best weights: no epoch was trained since.
        if not self._trained:
            return
        self._trained = False
        if trainer.epoch % self.every_n_epochs or self.failures.resting:
            return
        with self.failures.guarded("look skipped", look=True):
            self._look(trainer)

    def _on_train_end(self, trainer: Any) -> None:
        with self.failures.guarded("could not deliver everything"):
            if self._delivery is not None:
                self._delivery.finish()
        self._delivery = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    # -- pieces
    # --------------------------------------------------------------------------------------------------------------

    def _look(self, trainer: Any) -> None:
        # A copy, as ultralytics makes for its checkpoint: heads keep the anchors of the last size in attributes, and
        # nothing of a look may stay in what is validated and saved.
        model = deepcopy(trainer.ema.ema).float()
        monitor = self._monitor or self._begin(trainer, model)
        step = (trainer.epoch + 1) * len(trainer.train_loader)
        record = monitor.look(model, trainer.epoch, step)
        if processes.rank() != 0:
            return
        assert monitor.store is not None
        monitor.store.annotate(record.look, finite(trainer.metrics))
        torch.save(monitor.state_dict(), monitor.store.folder / STATE)
        if self._delivery is None:
            self._delivery = Delivery(monitor.store, self._sinks(trainer), self.max_images)
        self._delivery.offer()

    def _begin(self, trainer: Any, model: nn.Module) -> CAMMonitor:
        probe = self.probe
        if not isinstance(probe, ProbeSet):
            probe = probe_from_yolo(trainer.data, size=int(trainer.args.imgsz))
        monitor = self._new_monitor(probe)
        monitor.resolve(model)
        monitor.run = f"{Path(trainer.save_dir).name}"
        folder = Path(self.folder) if self.folder is not None else Path(trainer.save_dir) / "cam"
        if trainer.start_epoch > 0 and (folder / STATE).is_file():
            monitor.load_state_dict(torch.load(folder / STATE, weights_only=True))
        else:
            folder = _unused(folder)
        monitor.store = RecordStore(folder)
        log.info(
            "cam-callbacks: watching %s at layers %s, %d probe images, records in %s",
            ", ".join(monitor.methods), ", ".join(monitor.layer_names), len(probe), folder,
        )  # fmt: skip
        self._monitor = monitor
        return monitor

    def _new_monitor(self, probe: ProbeSet) -> CAMMonitor:
        target: Target = self.target
        return CAMMonitor(probe, self.methods, self.layers, target, self.reference, batch_size=self.batch_size)

    def _sinks(self, trainer: Any) -> list[Sink]:
        sinks: list[Sink] = []
        if self.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = writer = SummaryWriter(str(trainer.save_dir))

            failed = plain_key("failed_looks", None)
            numbers = tensorboard_numbers(writer, lambda: {failed: float(self.failed_looks)})
            sinks += [numbers, TensorBoardSink(writer)]
        if self.mlflow:
            with self.failures.guarded("MLflow is left out"):
                sinks += mlflow_sinks(self.mlflow, self.tracking_uri)
        return sinks


def _unused(folder: Path) -> Path:
    """A new run never mixes with the records of an older one."""
    base, number = folder, 2
    while len(RecordStore(folder)):
        folder, number = base.with_name(f"{base.name}-{number}"), number + 1
    return folder
