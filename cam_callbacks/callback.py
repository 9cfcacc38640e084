"""When to look: the callback for Lightning's Trainer. No maths here."""

from __future__ import annotations

import importlib.util
import math
import operator
import os
import re
import shutil
import time
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn

from cam_callbacks import processes
from cam_callbacks.background import Background
from cam_callbacks.clock import Clock
from cam_callbacks.delivery import WAIT, Delivery, Ledger, Sink
from cam_callbacks.failures import Failures
from cam_callbacks.keys import check_name, plain_key
from cam_callbacks.loggers.mlflow import MLflowSink, check_reachable
from cam_callbacks.loggers.tensorboard import TensorBoardSink
from cam_callbacks.look.alerts import Rule, make_rules
from cam_callbacks.look.monitor import CAMMonitor, Target, check_arguments, neutral, shown_layers
from cam_callbacks.probe import ProbeSet, loader_dataset
from cam_callbacks.records import Alert, Record, RecordStore, free_folder
from cam_engine.capture import Forward
from cam_engine.guard import random_streams
from cam_engine.metrics import get_metrics

DISABLED = "CAM_CALLBACKS_DISABLED"
NAME_WAIT = 3.0  # seconds for an MLflow server to tell a run's name

if TYPE_CHECKING:
    Base = pytorch_lightning.Callback
elif importlib.util.find_spec("lightning") is not None:
    import lightning.pytorch

    # The two packages' classes are unrelated; a class that inherits from both works in both trainers.
    class Base(pytorch_lightning.Callback, lightning.pytorch.Callback):
        """Callback of both packages."""
else:
    Base = pytorch_lightning.Callback


class CAMCallback(Base):
    """Shows at every validation where the model looks, and logs in numbers how its focus moves.

    ``Trainer(callbacks=[CAMCallback()])`` alone watches 16 images of the validation set with EigenCAM and GradCAM at
    the last layer that has a spatial grid. Pictures go to an attached TensorBoardLogger and MLFlowLogger, numbers to
    every logger and to ``trainer.callback_metrics`` (``ModelCheckpoint(monitor="cam/on_target_enrichment/gradcam",
    mode="max")`` works), records to disk. The training itself is never changed.

    Args:
        probe: A :class:`ProbeSet`, or ``"val"``: 16 class-balanced images of the trainer's validation dataset.
        methods: Names from :func:`cam_engine.available_methods`.
        layers: ``"auto"``, a dotted name, a glob, or a list of those, relative to the explained model.
        target: ``"label"`` (``"predicted"`` on a probe without labels), ``"predicted"``, a class index, or a callable
            ``(outputs) -> Tensor (B,)``.
        every_n_epochs: Look again when this many epochs have passed. Between looks monitors keep seeing the last values.
        reference: What drift is measured against: ``"settled"``, ``"first"``, the index of a look, or a baseline: a folder of
            another run's records, an MLflow run id, or a checkpoint of this model.
        folder: Where records go. By default ``<log_dir>/cam`` of an attached TensorBoardLogger, else
            ``<default_root_dir>/cam_records/<run name>``.
        name: Tells several of these callbacks on one trainer apart; stands in metric keys.
        model: Dotted name of the LightningModule's attribute to explain, where not the LightningModule itself.
        forward: ``(model, images) -> outputs`` for a model that is not called with the images alone.
        output: Key or index of the class scores in what the model returns, or a callable.
        reshape: Callable that turns a layer's output into (B, C, h, w).
        max_images: How many probe images are drawn into loggers; numbers and records cover the whole probe.
        images_every_n_looks: Draw each n-th look only.
        report_every_n_looks: Write the run's page and film strips to MLflow after every n-th look, beside the end of the fit;
            0: at the end only.
        alerts: Rules to judge each look by (:mod:`cam_callbacks.look.alerts`): names, or dictionaries such as
            ``{"name": "diffuse", "above": 0.9}``; None is all of them, [] none. Each logs ``cam/alert/<name>``, 0 or 1.
        on_alert: Called with each :class:`~cam_callbacks.records.Alert` when it is raised, on rank 0.
        metrics: Numbers beside the default ones, by name (docs/metrics.md); ``"all"`` is all that need no extra forward.
        stop_on_alert: End the training at an alert: True for any, or the names of those that end it.
        on_error: ``"warn"``: an error of this callback skips the look and training goes on; after three in a row there are
            no more looks in this fit. ``"raise"`` for tests.
        batch_size: Images explained at once; halved where memory runs out.
        on: Where to look: ``"fit"``, ``"validate"`` and ``"test"``, for ``trainer.fit``, ``.validate`` and ``.test``.
        store_images: False keeps the probe's pixels out of records, loggers and pages; maps and numbers remain.
        max_overhead: The share of the training's time that looks may take, such as 0.05; a look that would take more is left
            out, and monitors keep seeing the last values. None: no limit. The first look is always taken.
        wait: Seconds that the end of a fit waits at most for loggers to take what is left.

    A second ``fit`` by the same trainer goes on with the records; one by another trainer starts a new series.

    The environment variable ``CAM_CALLBACKS_DISABLED=1`` switches it off.
    """

    def __init__(
        self,
        probe: ProbeSet | str = "val",
        methods: str | Sequence[str] = ("eigencam", "gradcam"),
        layers: str | Sequence[str] = "auto",
        target: str | int | Sequence[int] | Callable[[Any], Tensor] = "label",
        every_n_epochs: int = 1,
        reference: str | int = "settled",
        folder: str | os.PathLike[str] | None = None,
        name: str | None = None,
        model: str | None = None,
        forward: Forward | None = None,
        output: str | int | Callable[[Any], Any] | None = None,
        reshape: Callable[[Tensor], Tensor] | None = None,
        max_images: int = 16,
        images_every_n_looks: int = 1,
        report_every_n_looks: int = 10,
        on_error: str = "warn",
        batch_size: int | None = None,
        alerts: Sequence[str | Mapping[str, Any] | Rule] | None = None,
        on_alert: Callable[[Alert], object] | None = None,
        stop_on_alert: bool | Sequence[str] = False,
        metrics: str | Sequence[str] = (),
        max_overhead: float | None = None,
        on: Sequence[str] = ("fit",),
        store_images: bool = True,
        wait: float = WAIT,
    ) -> None:
        super().__init__()
        if isinstance(probe, str) and probe != "val":
            raise ValueError(f'probe= takes a ProbeSet or "val", not {probe!r}.')
        if not isinstance(probe, (str, ProbeSet)):
            raise TypeError(f'probe= takes a ProbeSet or "val", not {type(probe).__name__}.')
        if every_n_epochs < 1 or images_every_n_looks < 1 or max_images < 0 or report_every_n_looks < 0:
            raise ValueError(
                "every_n_epochs= and images_every_n_looks= must be at least 1, max_images= and report_every_n_looks= at least 0."
            )
        self.probe = self._given = probe
        self.methods = check_arguments(methods, target, reference, batch_size)
        self.layers, self.target, self.reference = layers, target, reference
        self.every_n_epochs = every_n_epochs
        self.folder = folder
        self.name = check_name(name)
        self.model = model
        self.forward, self.output, self.reshape = forward, output, reshape
        self.max_images, self.images_every_n_looks = max_images, images_every_n_looks
        self.report_every_n_looks = report_every_n_looks
        self.failures = Failures("CAMCallback" if name is None else f"CAMCallback {name}", on_error)
        self.batch_size = batch_size
        self.alerts, self.on_alert = alerts, on_alert
        self.metrics = metrics
        self._measured = get_metrics(metrics)
        self.stop_on_alert = _stopping(stop_on_alert, [rule.name for rule in make_rules(alerts)])
        if max_overhead is not None and not 0 < max_overhead <= 1:
            raise ValueError(f"max_overhead={max_overhead} is a share of the training's time: above 0, at most 1.")
        self.max_overhead, self.wait = max_overhead, wait
        self.store_images = store_images
        self.on = (on,) if isinstance(on, str) else tuple(on)
        if not self.on or not set(self.on) <= {"fit", "validate", "test"}:
            raise ValueError(f'on= takes "fit", "validate" and "test", not {on!r}.')
        self._clock = Clock()
        self._refused = False
        self._monitor: CAMMonitor | None = None
        self._delivery: Delivery | None = None
        self._restored: dict[str, Any] | None = None
        self._values: dict[str, float] = {}
        self._unlogged = False  # also at the first validation of a fit, look or not: monitors must find their keys
        self._due = False
        self._last_epoch: int | None = None
        self._record: Record | None = None
        self._validated = False
        self._set_up = False
        self._began = False
        self._fitted_by: weakref.ref[Any] | None = None
        self._enabled = os.environ.get(DISABLED, "").lower() not in ("1", "true", "yes")
        # Built here, so that what does not fit the probe is an error at once and not after an epoch.
        if isinstance(probe, ProbeSet):
            self._build(probe)

    @property
    def failed_looks(self) -> int:
        """How many looks failed and were skipped."""
        return self.failures.looks

    @property
    def store(self) -> RecordStore | None:
        """The records of this run, during and after a fit; None before."""
        return None if self._monitor is None else self._monitor.store

    @property
    def state_key(self) -> str:
        # Until setup has said in our words that twins need names, they must not look like twins to the Trainer's
        # constructor.
        unset = "" if self._set_up else f"@{id(self)}"
        return f"CAMCallback[{self.name}]{unset}" if self.name else f"CAMCallback{unset}"

    # -- hooks
    # ---------------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._set_up = True
        if not self._enabled or stage not in self.on:
            return
        self._unlogged, self._validated = True, False
        self.failures.in_a_row = 0
        self._clock = Clock()
        self._refuse_shards(trainer)
        self._refuse_twins(trainer)
        fitted_by = None if self._fitted_by is None else self._fitted_by()
        if self._began and fitted_by is not trainer:
            self._forget()
        self._began, self._fitted_by = True, weakref.ref(trainer)
        with self.failures.guarded("could not be set up"):
            if self._monitor is None:
                probe = self._probe_in_setup(trainer)
                if probe is not None:
                    self._build(probe)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if not self._enabled or self._refused or _has_lazy_parameters(pl_module):
            return
        with self.failures.guarded("could not be set up"):
            processes.everywhere(lambda: None if self._monitor is None else self._begin(trainer, pl_module))

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        passed = self.every_n_epochs if self._last_epoch is None else trainer.current_epoch - self._last_epoch
        # The epoch of the last look may hold more validations, and one that comes again may have been left in between.
        may_look = self._watching(trainer) and not self.failures.resting and not self._refused
        self._due = may_look and not 0 < passed < self.every_n_epochs
        self._validated |= self._watching(trainer)

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if not self._due:
            return
        self._due = False
        if self.max_overhead is not None and not processes.from_rank_0(self._clock.affords(self.max_overhead)):
            return
        self._last_epoch = trainer.current_epoch
        self._record = None
        self._unlogged = True
        with self.failures.guarded("look skipped", look=True):
            processes.everywhere(lambda: self._begin(trainer, pl_module))
            assert self._monitor is not None
            self._monitor.picture_step = "epoch" if _validates_once(trainer) else "look"
            record = self._monitor.look(self._explained(pl_module), trainer.current_epoch, trainer.global_step)
            seconds, overhead = processes.from_rank_0((record.seconds, self._clock.spend(record.seconds)))
            record.metrics.update(
                {plain_key("seconds", self.name): seconds, plain_key("overhead", self.name): overhead}
            )
            self._record = record
            self._values |= {k: v for k, v in record.metrics.items() if math.isfinite(v)}
            if record.look == 0:
                self._say(
                    f"a look costs about {record.seconds:.2f} s (the first one, which also measures the noise floor)"
                )

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if not self._watching(trainer) or not self._unlogged:
            return
        self._unlogged = False
        if self._monitor is None:
            unknown = neutral(
                self.methods,
                self.layers,
                self.name,
                make_rules(self.alerts),
                self._measured,
                self.target == "predicted",
            )
        else:
            unknown = self._monitor.neutral()
        unknown[plain_key("overhead", self.name)] = 0.0
        values = unknown | self._values | {plain_key("failed_looks", self.name): float(self.failed_looks)}
        for key, value in values.items():
            pl_module.log(key, value, on_step=False, on_epoch=True, batch_size=1, add_dataloader_idx=False)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not self._watching(trainer) or self._record is None:
            return
        record, self._record = self._record, None
        new = [alert for alert in record.alerts if alert.new]
        if any(alert.name in self.stop_on_alert for alert in record.alerts):  # judged alike on every process
            trainer.should_stop = True
        if self.on_alert is not None and processes.rank() == 0:
            with self.failures.guarded("on_alert failed"):
                for alert in new:
                    self.on_alert(alert)
        with self.failures.guarded("could not deliver a look"):
            if self.store is None or processes.rank() != 0:
                return
            logged = {k: float(v) for k, v in trainer.callback_metrics.items() if not k.startswith(plain_key("", None))}
            self.store.annotate(record.look, logged)
            if self._delivery is None:
                self._delivery = Delivery(self.store, self._sinks(trainer), self.max_images)
            self._delivery.offer()

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        self.on_validation_start(trainer, pl_module)

    def on_test_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.on_validation_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.on_validation_epoch_end(trainer, pl_module)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        self.on_validation_end(trainer, pl_module)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if self._enabled and stage != "fit" and stage in self.on:
            self._finish()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        if not self._enabled:
            return
        if not self._validated and not trainer.fast_dev_run:
            warnings.warn(
                "CAMCallback never looked: validation did not run in this fit. Give the Trainer a validation dataloader, or check "
                "limit_val_batches, val_check_interval and check_val_every_n_epoch.",
                stacklevel=2,
            )
        self._finish()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if self._enabled:
            self._finish()

    def state_dict(self) -> dict[str, Any]:
        if self._monitor is None:
            return {}
        return {
            "failed_looks": self.failed_looks,
            "values": dict(self._values),
            "epoch": self._last_epoch,
            "monitor": self._monitor.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict or None
        if self._restored is not None:
            self.failures.looks, self._values = self._restored["failed_looks"], dict(self._restored["values"])
            self._last_epoch = self._restored["epoch"]

    def __getstate__(self) -> dict[str, Any]:
        # Loggers and trainer stay behind, and the model: Lightning attaches its `log` and `log_dict` in each fit.
        state = {k: v for k, v in vars(self).items() if k not in ("log", "log_dict")}
        return state | {"_delivery": None, "_fitted_by": None}

    # -- pieces
    # --------------------------------------------------------------------------------------------------------------

    def _watching(self, trainer: Any) -> bool:
        return self._enabled and not trainer.sanity_checking and trainer.state.fn in self.on

    def _build(self, probe: ProbeSet) -> None:
        self.probe = probe
        target: Target = self.target
        self._monitor = CAMMonitor(
            probe,
            self.methods,
            self.layers,
            target,
            self.reference,
            name=self.name,
            forward=self.forward,
            output=self.output,
            reshape=self.reshape,
            batch_size=self.batch_size,
            store_images=self.store_images,
            alerts=self.alerts,
            metrics=self.metrics,
        )
        if target == "label" and probe.labels is None:
            self._say(
                "the probe has no labels, so the predicted class is explained; a prediction that flips will look like drift"
            )

    def _forget(self) -> None:
        """Another trainer is another run: a new series of looks, in a folder of its own."""
        self._monitor = self._delivery = self._restored = self._record = self._last_epoch = None
        self._values, self.failures.looks = {}, 0
        self.probe = self._given
        if isinstance(self.probe, ProbeSet):
            self._build(self.probe)

    def _begin(self, trainer: Any, pl_module: Any) -> None:
        """Settle probe, layers and folder, take up a resumed state, and say what is watched. Once; talks to no other process."""
        if self._monitor is None:
            self._build(
                ProbeSet.from_dataset(
                    loader_dataset(trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders)
                )
            )
        monitor = self._monitor
        assert monitor is not None
        if monitor.store is not None and self._restored is None:
            return
        if self._restored is not None:
            self._go_on(monitor, self._restored["monitor"])
        monitor.tracking_uri = next((_uri(f) for f in trainer.loggers if _is(f, "MLFlowLogger")), None)
        monitor.resolve(self._explained(pl_module))
        run, folder = self._place(trainer)
        monitor.run = run
        monitor.store = RecordStore(self._take_up(folder))
        self._restored = None
        self._say(
            f"watching {', '.join(monitor.methods)} at layer {', '.join(monitor.layer_names)}, "
            f"{len(monitor.probe)} probe images, records in {monitor.store.folder}"
        )

    def _go_on(self, monitor: CAMMonitor, state: dict[str, Any]) -> None:
        """Take up the looks before the resume; where they are of another kind, begin a new series."""
        try:
            monitor.load_state_dict(state)
        except ValueError as error:
            if self.failures.on_error == "raise":
                raise
            warnings.warn(f"CAMCallback: a new series of looks begins with this resume: {error}", stacklevel=2)
            self._restored, self._values, self.failures.looks = None, {}, 0

    def _place(self, trainer: Any) -> tuple[str, Path]:
        """Name of the run and folder of its records."""
        boards = [logger for logger in trainer.loggers if _is(logger, "TensorBoardLogger") and logger.log_dir]
        flows = [logger for logger in trainer.loggers if _is(logger, "MLFlowLogger")]
        root = Path(trainer.default_root_dir)
        if flows:
            run = _mlflow_run_name(flows[0])
        elif boards:
            run = f"{boards[0].name}/{boards[0].version}"
        else:
            run = time.strftime("%Y-%m-%d_%H-%M-%S")
        if self.folder is not None:
            return run, Path(self.folder)
        folder = Path(boards[0].log_dir) / "cam" if boards else root / "cam_records" / _folder_name(run)
        return run, folder / self.name if self.name else folder

    def _take_up(self, folder: Path) -> Path:
        """The folder to write to: a resumed run goes on with its records, a new run never mixes with an older one's."""
        if processes.rank() != 0:
            return folder
        if self._restored is None:
            return free_folder(folder)
        state = self._restored["monitor"]
        before = None if state["folder"] is None else Path(state["folder"])
        store = RecordStore(folder)
        if before is not None and before != folder and before.is_dir() and not len(store):
            folder.mkdir(parents=True, exist_ok=True)
            for path in before.iterdir():
                if path.is_file() and not path.name.startswith("."):
                    shutil.copy2(path, folder / path.name)
        for look in store.looks:  # looks after the checkpoint are made again
            if look >= state["looks"]:
                store.remove(look)
        Ledger(folder).forget_from(state["looks"])
        return folder

    def _explained(self, pl_module: Any) -> nn.Module:
        """The module that is explained."""
        if self.model is not None:
            try:
                found = operator.attrgetter(self.model)(pl_module)
            except AttributeError:
                raise ValueError(
                    f"model={self.model!r}: {type(pl_module).__name__} has no such attribute; its modules are "
                    f"{', '.join(shown_layers(pl_module))}."
                ) from None
            if not isinstance(found, nn.Module):
                raise TypeError(f"model={self.model!r} is a {type(found).__name__}, not a torch.nn.Module.")
            return found
        if self.forward is None and not _has_forward(pl_module):
            children = [
                (name, child) for name, child in pl_module.named_children() if any(True for _ in child.parameters())
            ]
            if len(children) == 1:
                return children[0][1]
            raise ValueError(
                f"{type(pl_module).__name__} defines no forward; say what to explain with model=, one of "
                f"{', '.join(repr(name) for name, _ in children)}, or pass forward=."
            )
        return pl_module

    def _probe_in_setup(self, trainer: Any) -> ProbeSet | None:
        """The probe from the validation dataset, if there is one before the loop has loaded its data; else at the first look."""
        source = getattr(trainer.fit_loop.epoch_loop.val_loop, "_data_source", None)
        if source is None or not source.is_defined():
            return None
        try:
            with random_streams():  # a loader's making may draw, as random_split does, and will draw again in the loop
                dataset = loader_dataset(source.dataloader())
        except Exception:  # such as a dataset made in the module's own setup(), which runs after this one
            return None
        return ProbeSet.from_dataset(dataset)

    def _sinks(self, trainer: Any) -> list[Sink]:
        sinks: list[Sink] = []
        boards = 0
        every = self.images_every_n_looks
        for logger in trainer.loggers:
            with self.failures.guarded(f"no pictures for {type(logger).__name__}"):
                if _is(logger, "TensorBoardLogger"):
                    boards += 1
                    name = "tensorboard" if boards == 1 else f"tensorboard-{boards}"
                    sinks.append(TensorBoardSink(logger.experiment, every, name))
                elif _is(logger, "MLFlowLogger"):
                    sinks.append(MLflowSink(logger.experiment, logger.run_id, every, self.report_every_n_looks))
        return sinks

    def _refuse_shards(self, trainer: Any) -> None:
        """No process holds the whole model where its parameters are spread over all: one cannot look alone."""
        strategy = type(trainer.strategy).__name__
        stage = (getattr(trainer.strategy, "config", None) or {}).get("zero_optimization", {}).get("stage")
        self._refused = strategy in ("FSDPStrategy", "ModelParallelStrategy") or stage == 3
        if self._refused and processes.rank() == 0:
            warnings.warn(
                f"CAMCallback does not look in this training: {strategy} spreads the model's parameters over processes. "
                "The training goes on; cam-callbacks replay looks at its checkpoints.",
                stacklevel=2,
            )

    def _refuse_twins(self, trainer: Any) -> None:
        ours = [c for c in trainer.callbacks if isinstance(c, CAMCallback)]
        twins = [c for c in ours if c.name == self.name]
        if len(twins) > 1:
            raise ValueError(
                f"{len(twins)} CAMCallbacks on one trainer share name={self.name!r}, and so their metric keys and records; "
                'give each its own name, such as CAMCallback(..., name="late").'
            )
        if self.folder is not None and [c.folder and Path(c.folder) for c in ours].count(Path(self.folder)) > 1:
            raise ValueError(
                f"several CAMCallbacks on one trainer write to folder={str(self.folder)!r}; give each its own, or none: "
                "then each takes one under its name."
            )

    def _finish(self) -> None:
        with self.failures.guarded("could not deliver everything"):
            delivery, self._delivery = self._delivery, None  # the next fit may have other loggers
            if delivery is not None:
                delivery.finish(self.wait)

    def _say(self, message: str) -> None:
        rank_zero_info(f"CAMCallback{f' {self.name}' if self.name else ''}: {message}")


def _stopping(given: bool | Sequence[str], known: Sequence[str]) -> frozenset[str]:
    """Names of the alerts that end a training."""
    if isinstance(given, bool):
        return frozenset(known) if given else frozenset()
    names = [given] if isinstance(given, str) else list(given)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"stop_on_alert= names {', '.join(unknown)}; this callback's alerts are {', '.join(known)}.")
    return frozenset(names)


def _is(logger: Any, class_name: str) -> bool:
    """Is this logger of a class of that name? Lightning exists as two packages whose classes are unrelated."""
    return any(cls.__name__ == class_name for cls in type(logger).__mro__)


def _uri(logger: Any) -> str | None:
    """The tracking server of an MLFlowLogger."""
    return getattr(logger, "_tracking_uri", None)


def _validates_once(trainer: Any) -> bool:
    """Is there at most one validation an epoch?"""
    interval = trainer.val_check_batch
    return interval is None or interval >= trainer.num_training_batches


def _mlflow_run_name(logger: Any) -> str:
    """The name that MLflow shows for a logger's run; on other ranks than 0, which have no run, any name will do."""
    if logger.run_id is None:
        return "run"
    client, run_id = logger.experiment, str(logger.run_id)
    found: list[str] = []

    def ask() -> None:
        check_reachable(client.tracking_uri)
        found.append(client.get_run(run_id).data.tags.get("mlflow.runName") or run_id)

    asking = Background("cam-callbacks run name", ask)  # a server that listens and is silent would hold us for minutes
    asking.flush(NAME_WAIT)
    asking.stop()
    return found[0] if found else str(logger._run_name or run_id)


def _folder_name(run: str) -> str:
    """A run's name as that of one folder, inside the one it is put in and not longer than file systems take."""
    return re.sub(r"[/\\\0]", "_", run)[:80].strip(". ") or "run"


def _has_forward(module: nn.Module) -> bool:
    """Did the user define a forward? Those of torch and of the two Lightning packages are placeholders."""
    owner = next(cls for cls in type(module).__mro__ if "forward" in vars(cls))
    return "forward" in vars(module) or owner.__module__.partition(".")[0] not in (
        "torch",
        "pytorch_lightning",
        "lightning",
    )


def _has_lazy_parameters(module: nn.Module) -> bool:
    return any(nn.parameter.is_lazy(p) for p in module.parameters())
