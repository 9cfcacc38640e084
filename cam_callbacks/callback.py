"""When to look: the callback for Lightning's Trainer. No maths here."""

from __future__ import annotations

import importlib.util
import os
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytorch_lightning
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn

from cam_callbacks import lightning_trainer, processes
from cam_callbacks.delivery import WAIT, Sink
from cam_callbacks.delivery.sink import SinkOptions
from cam_callbacks.keys import ALERT, fired, plain_key
from cam_callbacks.lightning_batches import early_probe, loaded_probe, mismatch, naming_a_batch
from cam_callbacks.loggers.registry import sinks_of
from cam_callbacks.look.alerts import names_of
from cam_callbacks.look.judgement import Rule
from cam_callbacks.look.options import LookOptions
from cam_callbacks.picture_step import picture_step_of
from cam_callbacks.probe import ProbeSet
from cam_callbacks.records import Alert, Record, RecordStore
from cam_callbacks.watcher import Watcher, WatchOptions, enabled
from cam_engine.capture import Forward
from cam_engine.sharding import is_sharded

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
    the last layer that has a spatial grid. Pictures go to an attached TensorBoardLogger, MLFlowLogger or WandbLogger, numbers to
    every logger and to ``trainer.callback_metrics`` (``ModelCheckpoint(monitor="cam/on_target_enrichment/gradcam",
    mode="max")`` works), records to disk. The training itself is never changed.

    Args:
        probe: A :class:`ProbeSet`, or ``"val"``: 16 class-balanced images of the validation data, ``"train"``: of the
            training data, through the trainer's own pipeline (docs/probe.md). A probe that does not hold a cue cannot show it.
        methods: Names from :func:`cam_engine.available_methods`.
        layers: ``"auto"``, a dotted name, a glob, or a list of those, relative to the explained model.
        target: ``"label"``: what is true of each image, as the task has it, which is recognised: its class, its most certain one of
            several, its largest one in a segmentation, the value of a regression (docs/works_with.md); ``"predicted"``;
            ``"all"``, the mean of several true labels; a class index, or a callable ``(outputs) -> Tensor (B,)``.
        every_n_epochs: Look again when so many epochs have passed (or override :meth:`should_look`); monitors keep the last values.
        reference: What drift is measured against: ``"settled"``, ``"first"``, the index of a look, or a baseline: a folder of
            another run's records, an MLflow run id, or a checkpoint of this model.
        folder: Where records go. By default ``<log_dir>/cam`` of an attached TensorBoardLogger or CSVLogger, else
            ``<default_root_dir>/cam_records/<run name>``, the name that MLflow, W&B or another logger has for the run; a
            ``fast_dev_run`` keeps none.
        name: Tells several of these callbacks on one trainer apart; stands in metric keys.
        model: Dotted name of the LightningModule's attribute to explain, where not the LightningModule itself.
        forward: ``(model, images) -> outputs``, or ``(model, images, batch)``, for a model with a call of its own (docs/probe.md).
        output: Key or index of the class scores in what the model returns, or a callable.
        reshape: Callable that turns a layer's output into (B, C, h, w).
        max_images: How many probe images are drawn into loggers; numbers and records cover the whole probe.
        images_every_n_looks: Draw each n-th look only.
        report_every_n_looks: Write the run's page and film strips to MLflow after every n-th look too; 0: at the end only.
        alerts: Rules to judge each look by (:mod:`cam_callbacks.look.alerts`): names, or ``{"name": "focus_moved", "above": 3.0}``;
            None is all, [] none. Each logs ``cam/alert/<name>``, 0 or 1.
        on_alert: Called with each :class:`~cam_callbacks.records.Alert` when it is raised, on rank 0.
        metrics: Numbers beside the default ones, by name (docs/metrics.md); ``"all"`` is all that need no extra forward.
        stop_on_alert: End the training at an alert: True for any, or the names of those that end it.
        on_error: ``"warn"``: an error of this callback skips the look and training goes on; after three in a row there are
            no more looks in this fit. ``"raise"`` for tests.
        batch_size: Images explained at once; halved where memory runs out.
        on: Where to look: ``"fit"``, ``"validate"`` and ``"test"``, for ``trainer.fit``, ``.validate`` and ``.test``.
        store_images: False keeps the probe's pixels out of records, loggers and pages; maps and numbers remain.
        max_overhead: The share of the training's time that looks may take, such as 0.05; the first is always taken. None: no limit.
        wait: Seconds that the end of a fit waits at most, for all loggers together; after an exception or an interrupt 3.
        exchange: Parts that two probe images exchange to see which of them the prediction follows, such as ``["object",
            "background", "frame"]``; ``"auto"`` is those that the probe allows, [] none. Classifiers only.
        exchange_pairs: Donors for each image; None: 64 mixtures a part and 192 at the last look, or 32 where these would take
            more than 3 % of the time and two seconds.
        boxes: File of boxes that a person drew on this probe (``cam-callbacks annotate``, or "Draw boxes" on the page).
        calibration: File that ``cam-callbacks calibrate`` made of accepted runs: alerts are then raised by its thresholds.
        hooks: ``"run"``: forward hooks run in a look, what they keep is put back. ``"rest"``: those that are not torch's rest.

    A second ``fit`` by the same trainer goes on with the records; one by another trainer starts a new series. The environment
    variable ``CAM_CALLBACKS_DISABLED=1`` switches it off.

    >>> watch = CAMCallback(probe, methods="gradcam")
    >>> trainer = Trainer(max_epochs=2, callbacks=[watch], **quiet)
    >>> trainer.fit(module, loader, loader)
    >>> [record.epoch for record in watch.store], "cam/drift_ref/gradcam" in trainer.callback_metrics
    ([0, 1], True)
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
        exchange: str | Sequence[str] = "auto",
        exchange_pairs: int | None = None,
        calibration: str | os.PathLike[str] | None = None,
        boxes: str | os.PathLike[str] | None = None,
        hooks: str = "run",
    ) -> None:
        super().__init__()
        if isinstance(probe, str) and probe not in ("val", "train"):
            raise ValueError(f'probe= takes a ProbeSet, "val" or "train", not {probe!r}.')
        if not isinstance(probe, (str, ProbeSet)):
            raise TypeError(f'probe= takes a ProbeSet, "val" or "train", not {type(probe).__name__}.')
        if every_n_epochs < 1 or images_every_n_looks < 1 or max_images < 0 or report_every_n_looks < 0:
            raise ValueError(
                "every_n_epochs= and images_every_n_looks= must be at least 1, max_images= and report_every_n_looks= at least 0."
            )
        look = LookOptions(
            methods=methods, layers=layers, target=target, reference=reference, name=name, forward=forward, output=output,
            reshape=reshape, batch_size=batch_size, alerts=alerts, metrics=metrics, store_images=store_images,
            exchange=exchange, exchange_pairs=exchange_pairs, calibration=calibration, hooks=hooks,
        )  # fmt: skip
        self.options = WatchOptions(look, max_images, max_overhead, on_alert, on_error, wait)
        self.name, self.folder, self.model = name, folder, model
        self.every_n_epochs = every_n_epochs
        self.images_every_n_looks, self.report_every_n_looks = images_every_n_looks, report_every_n_looks
        self.stop_on_alert = names_of(stop_on_alert, look.rules)
        self.on = (on,) if isinstance(on, str) else tuple(on)
        if not self.on or not set(self.on) <= {"fit", "validate", "test"}:
            raise ValueError(f'on= takes "fit", "validate" and "test", not {on!r}.')
        self.boxes = boxes
        self._probe = probe if isinstance(probe, str) else self._marked(probe)
        self._enabled = enabled()
        self._trainer: weakref.ref[Any] | None = None  # whose run the watcher watches
        self._set_up = False
        self._look_is_due = False
        self._fired: set[str] = set()  # keys of alerts
        self._compared = False  # the probe with a batch of the training
        self._unlogged = False  # there are values that monitors have not got yet
        self._record: Record | None = None  # the look of this validation, until the validation's numbers are known
        # Built here, so that what does not fit the probe is an error at once and not after an epoch.
        self.watcher = self._new_watcher()

    @property
    def probe(self) -> ProbeSet | str:
        """The images that are looked at; ``"val"`` or ``"train"`` until they are chosen."""
        return self._probe if self.watcher.monitor is None else self.watcher.monitor.probe

    @property
    def failed_looks(self) -> int:
        """How many looks failed and were skipped."""
        return self.watcher.failed_looks

    @property
    def store(self) -> RecordStore | None:
        """The records of this run, during and after a fit; None before."""
        return self.watcher.store

    @property
    def state_key(self) -> str:
        # Until setup has said in our words that twins need names, they must not look like twins to the Trainer's
        # constructor.
        unset = "" if self._set_up else f"@{id(self)}"
        return f"CAMCallback[{self.name}]{unset}" if self.name else f"CAMCallback{unset}"

    def should_look(self, trainer: Any) -> bool:
        """Is this validation one to look at? Asked at the start of each, on every process alike; override it to choose."""
        last = self.watcher.last_epoch
        # The epoch of the last look may hold more validations, and one that comes again may have been left in between.
        return last is None or not 0 < trainer.current_epoch - last < self.every_n_epochs

    # -- hooks
    # ---------------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._set_up = True
        if not self._enabled or stage not in self.on:
            if self._enabled and self._trainer is None and stage in ("validate", "test"):
                named = getattr(stage, "value", stage)
                rank_zero_info(f'CAMCallback looks at a fit; for trainer.{named} pass CAMCallback(on=("{named}",)).')
            return
        lightning_trainer.refuse_twins(self, [c for c in trainer.callbacks if isinstance(c, CAMCallback)])
        if self._trainer is None or self._trainer() is not trainer:  # another trainer is another run
            self._trainer, self.watcher, self._compared = weakref.ref(trainer), self._new_watcher(), False
        self.watcher.start_clock()
        self._unlogged, self._record = True, None  # monitors must find their keys, look or not
        lightning_trainer.expect_equal_values(self.name)
        if why := lightning_trainer.not_looked_at(trainer):
            self.watcher.rest(f"{why} The training goes on.")

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin already, for an error or a message before the first epoch; the first look begins where this cannot."""

        def begin() -> None:
            if self.watcher.monitor is not None and lightning_trainer.can_begin(trainer, pl_module):
                self._ready(trainer, pl_module)

        if self._watching(trainer) and not self.watcher.resting:
            with self.watcher.failures.guarded("could not be set up", setup=True):
                if self.watcher.monitor is None:
                    probes = processes.everywhere(lambda: early_probe(trainer, pl_module, str(self._probe)))
                    if probes[0] is not None:
                        self.watcher.watch(self._marked(probes[0]))
                processes.together(begin)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._look_is_due = self._watching(trainer) and self.should_look(trainer)

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        due, self._look_is_due = self._look_is_due, False
        if due and self.watcher.may_look():
            self._unlogged = True
            self._record = self.watcher.look(
                lambda: self._ready(trainer, pl_module), trainer.current_epoch, trainer.global_step,
                picture_step_of(trainer), lightning_trainer.validates_last(trainer),
                lambda: self._marked(loaded_probe(trainer, pl_module, str(self._probe), batch)),
            )  # fmt: skip
            self._compare(batch)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self._watching(trainer) and self._unlogged:
            self._unlogged = False
            values = self.watcher.values()
            alerts = {key: value for key, value in values.items() if key.startswith(plain_key(ALERT, self.name))}
            for key, value in values.items():  # monitors find every alert; loggers get those that have fired
                pl_module.log(
                    key, value, on_step=False, on_epoch=True, batch_size=1, add_dataloader_idx=False,
                    logger=bool(trainer.loggers) and key not in alerts,  # without one Lightning would warn of each key
                )  # fmt: skip
            with self.watcher.failures.guarded("could not log an alert"):
                lightning_trainer.log_metrics(trainer, fired(alerts, self.name, self._fired))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        record, self._record = self._record, None
        if record is None:
            return
        if any(alert.name in self.stop_on_alert for alert in record.alerts):  # judged alike on every process
            trainer.should_stop = True
        with self.watcher.failures.guarded("could not deliver a look"):
            others = {k: float(v) for k, v in trainer.callback_metrics.items() if not k.startswith(plain_key("", None))}
            self.watcher.annotate(record, others, lambda: self._sinks(trainer))

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

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        if not self._watching(trainer):
            return
        if self._unlogged and not trainer.fast_dev_run:
            warnings.warn(
                "CAMCallback never looked: validation did not run in this fit. Give the Trainer a validation dataloader, or check "
                "limit_val_batches, val_check_interval and check_val_every_n_epoch.",
                stacklevel=2,
            )
        self.watcher.close()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage != "fit":
            self.watcher.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.watcher.close(after_error=True)

    def state_dict(self) -> dict[str, Any]:
        return self.watcher.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.watcher.load_state_dict(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        # The trainer stays behind, and the model: Lightning attaches its `log` and `log_dict` in each fit.
        return {k: v for k, v in vars(self).items() if k not in ("log", "log_dict")} | {"_trainer": None}

    # -- pieces
    # --------------------------------------------------------------------------------------------------------------

    def _watching(self, trainer: Any) -> bool:
        return self._enabled and not trainer.sanity_checking and trainer.state.fn in self.on

    def _compare(self, batch: Any) -> None:
        """Warn, once a run, where the probe's pixels are of another kind than those that the model gets."""
        probe, compared, self._compared = self.probe, self._compared, True
        if compared or isinstance(probe, str) or self.options.look.forward is not None or processes.rank() != 0:
            return  # a forward= may normalise by itself
        with self.watcher.failures.guarded("could not compare the probe with the first validation batch"):
            if differs := mismatch(probe, batch, given=isinstance(self._probe, ProbeSet)):
                warnings.warn(f"{self.watcher.who}: {differs}", stacklevel=2)

    def _new_watcher(self) -> Watcher:
        who = "CAMCallback" if self.name is None else f"CAMCallback {self.name}"
        given = self._probe if isinstance(self._probe, ProbeSet) else None
        return Watcher(who, self.options, given, rank_zero_info)

    def _marked(self, probe: ProbeSet) -> ProbeSet:
        return probe if self.boxes is None else probe.with_boxes(self.boxes)

    def _ready(self, trainer: Any, pl_module: Any) -> nn.Module:
        """The module that is explained, in a run that has begun. Talks to no other process."""
        model = lightning_trainer.explained_module(
            trainer, pl_module, self.model, self.options.look.forward is not None
        )
        if not self.watcher.begun:
            run, folder = lightning_trainer.run_of(trainer, self.folder, self.name)
            with naming_a_batch(trainer, pl_module, self.probe):
                known = None if is_sharded(model) else model  # its forward takes all processes: the first look
                self.watcher.begin(run, folder, known, lightning_trainer.tracking_uri(trainer))
        return model

    def _sinks(self, trainer: Any) -> list[Sink]:
        options = SinkOptions(every_n_looks=self.images_every_n_looks, report_every_n_looks=self.report_every_n_looks)
        return sinks_of(trainer.loggers, options, self.watcher.failures.guarded)
