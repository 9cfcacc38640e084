"""When to look, in a training with ultralytics. Nothing of ultralytics is imported: its trainer is met by duck typing."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cam_callbacks import processes
from cam_callbacks.loggers.scalars import finite
from cam_callbacks.look.options import LookOptions
from cam_callbacks.own_loggers import OwnLoggers
from cam_callbacks.probe import ProbeSet
from cam_callbacks.records import RecordStore
from cam_callbacks.watcher import Watcher, WatchOptions, enabled
from cam_callbacks.yolo_data import probe_from_yolo

__all__ = ["Watch", "attach", "probe_from_yolo"]

STATE = "state.pt"


def attach(
    yolo: Any,
    probe: ProbeSet | str = "val",
    methods: str | Sequence[str] = ("eigencam", "layercam"),
    layers: str | Sequence[str] = "auto",
    *,
    target: str | int | Sequence[int] | Callable[[Any], Tensor] = "label",
    output: str | int | Callable[[Any], Any] | None = None,
    folder: str | os.PathLike[str] | None = None,
    tensorboard: bool = True,
    mlflow: bool | str | None = None,
    tracking_uri: str | None = None,
    wandb: Any = None,
    every_n_epochs: int = 1,
    reference: str = "settled",
    max_images: int = 8,
    on_error: str = "warn",
    batch_size: int | None = None,
) -> Watch:
    """Watch every training that ``yolo.train(...)`` starts from here on.

    After each epoch's validation the averaged (EMA) weights, those that ultralytics saves, are looked at through the
    probe. Records go to disk, pictures and numbers to TensorBoard, MLflow and W&B. The training is not changed.

    Args:
        yolo: An ultralytics ``YOLO`` (or ``RTDETR``, or a trainer): anything with ``add_callback``.
        probe: A :class:`ProbeSet`, as from :func:`probe_from_yolo`, or ``"val"``: 16 pictures of the training's
            validation data, with boxes unless it is a classification.
        methods: Names from :func:`cam_engine.available_methods`. By default LayerCAM stands where CAMCallback has GradCAM,
            which averages over a whole level and so loses small objects.
        layers: ``"auto"``: all inputs of the detection head, each with numbers of its own; or names, globs.
        target: ``"label"``: of a detector the classes of the probe's boxes
            (:class:`cam_callbacks.look.detection.ProbeBoxTarget`); or as for :class:`CAMMonitor`.
        output: Key or index of the scores in what the model returns, or a callable, where they are not found.
        folder: Where records go; by default ``<save_dir>/cam``.
        tensorboard: Write to ``save_dir``, beside what ultralytics may write there itself.
        mlflow: A run id; or True for the run that is active when the training starts, as ultralytics' own MLflow
            integration starts one; None leaves MLflow alone.
        tracking_uri: Of that run; by default MLflow's own setting.
        wandb: What ``wandb.init()`` returned, or True for the run that is active at the first look; None leaves W&B alone.
        every_n_epochs, reference, max_images, batch_size: As for :class:`CAMCallback`.
        on_error: ``"warn"``: an error skips the look and the training goes on; ``"raise"`` for tests.

    Returns:
        A handle with ``store``, ``failed_looks`` and ``detach()``.

    >>> from ultralytics import YOLO
    >>> from cam_callbacks.ultralytics import attach
    >>> yolo = YOLO("yolov8n.yaml")
    >>> watch = attach(yolo, methods="eigencam", folder="looks")  # then: yolo.train(data=…)
    >>> watch.store is None, watch.failed_looks
    (True, 0)
    """
    if every_n_epochs < 1:
        raise ValueError(f"every_n_epochs={every_n_epochs} must be at least 1.")
    look = LookOptions(
        methods=methods, layers=layers, target=target, output=output, reference=reference, batch_size=batch_size
    )
    options = WatchOptions(look, max_images=max_images, on_error=on_error)
    watch = Watch(probe, options, folder, every_n_epochs, tensorboard, mlflow, tracking_uri, wandb)
    if enabled():
        watch.attach(yolo)
    return watch


class Watch:
    """What :func:`attach` returns: the callbacks of one or more trainings with ultralytics.

    ``store``: the records of the training that runs or ran last, None before. ``failed_looks``: how many looks failed.

    >>> from ultralytics import YOLO
    >>> from cam_callbacks.ultralytics import attach
    >>> watch = attach(YOLO("yolov8n.yaml"))
    >>> watch.detach()  # trainings that start from here on are not watched
    """

    def __init__(
        self,
        probe: ProbeSet | str,
        options: WatchOptions,
        folder: str | os.PathLike[str] | None,
        every_n_epochs: int,
        tensorboard: bool,
        mlflow: bool | str | None,
        tracking_uri: str | None,
        wandb: Any = None,
    ) -> None:
        if not isinstance(probe, ProbeSet) and probe != "val":
            raise ValueError(f'probe= takes a ProbeSet or "val", not {probe!r}.')
        self.probe, self.options, self.folder, self.every_n_epochs = probe, options, folder, every_n_epochs
        self.tensorboard, self.mlflow, self.tracking_uri, self.wandb = tensorboard, mlflow, tracking_uri, wandb
        self.watcher = self._new_watcher()  # a wrong argument is an error at once and not after an epoch
        self._loggers = OwnLoggers()
        self._sources: list[Any] = []
        self._trained = False  # an epoch was trained since the last look

    @property
    def failed_looks(self) -> int:
        return self.watcher.failed_looks

    @property
    def store(self) -> RecordStore | None:
        return self.watcher.store

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
        self.watcher, self._trained = self._new_watcher(), False
        board = str(trainer.save_dir) if self.tensorboard else None
        self._loggers = OwnLoggers(board, self.mlflow, self.tracking_uri, self.wandb)

    def _on_train_epoch_end(self, trainer: Any) -> None:
        self._trained = True

    def _on_fit_epoch_end(self, trainer: Any) -> None:
        # The event fires once more after the last validation, of the best weights: no epoch was trained since.
        trained, self._trained = self._trained, False
        if not trained or trainer.epoch % self.every_n_epochs or not self.watcher.may_look():
            return
        step = (trainer.epoch + 1) * len(trainer.train_loader)
        record = self.watcher.look(lambda: self._ready(trainer), trainer.epoch, step)
        if self.watcher.monitor is not None:
            self.watcher.monitor.release()  # the copy
        if record is not None:
            with self.watcher.failures.guarded("could not deliver a look"):
                self.watcher.annotate(record, finite(trainer.metrics), lambda: self._loggers.sinks(self.watcher))
                self._keep_state()

    def _on_train_end(self, trainer: Any) -> None:
        self.watcher.close()
        self._loggers.close()

    # -- pieces
    # --------------------------------------------------------------------------------------------------------------

    def _new_watcher(self) -> Watcher:
        return Watcher("cam-callbacks", self.options, self.probe if isinstance(self.probe, ProbeSet) else None)

    def _keep_state(self) -> None:
        """What a training that is interrupted and resumed goes on with."""
        if processes.rank() == 0 and self.store is not None:
            torch.save(self.watcher.state_dict(), self.store.folder / STATE)

    def _ready(self, trainer: Any) -> nn.Module:
        """The model that is explained, in a run that has begun."""
        # A copy, as ultralytics makes for its checkpoint: heads keep the anchors of the last size in attributes, and
        # nothing of a look may stay in what is validated and saved.
        model = deepcopy(trainer.ema.ema).float()
        if self.watcher.monitor is None:
            self.watcher.watch(_probe_of(trainer))
        if not self.watcher.begun:
            save_dir = Path(trainer.save_dir)
            folder = Path(self.folder) if self.folder is not None else save_dir / "cam"
            if trainer.start_epoch > 0 and (folder / STATE).is_file():
                self.watcher.load_state_dict(_state(folder / STATE))
            self.watcher.begin(save_dir.name, folder, model)
        return model


def _probe_of(trainer: Any) -> ProbeSet:
    """Pictures of the validation data: of a classification as its validation reads them, else letterboxed, with boxes."""
    if trainer.args.task != "classify":
        return probe_from_yolo(trainer.data, size=int(trainer.args.imgsz))
    names = trainer.data["names"]
    return ProbeSet.from_dataset(trainer.test_loader.dataset, class_names=[str(names[i]) for i in sorted(names)])


def _state(path: Path) -> dict[str, Any]:
    """What a training that was interrupted left; the first versions kept the monitor's part alone."""
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state if "monitor" in state else {"failed_looks": 0, "values": {}, "epoch": None, "monitor": state}
