"""The looks of one training, for whichever trainer says when: begin → look → annotate → close."""

from __future__ import annotations

import logging
import math
import os
import shlex
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from cam_callbacks import processes
from cam_callbacks.clock import Clock
from cam_callbacks.compare.verdict import verdict_of
from cam_callbacks.delivery import WAIT, Delivery, Sink
from cam_callbacks.delivery.budget import END, WAIT_AFTER_ERROR
from cam_callbacks.failures import Failures
from cam_callbacks.keys import plain_key
from cam_callbacks.look.monitor import CAMMonitor
from cam_callbacks.look.neutral import neutral_values
from cam_callbacks.look.options import LookOptions
from cam_callbacks.picture_step import PictureStep
from cam_callbacks.probe import ProbeSet
from cam_callbacks.records import Alert, Record, RecordStore
from cam_callbacks.run_folder import take_up

log = logging.getLogger(__name__)

DISABLED = "CAM_CALLBACKS_DISABLED"


@dataclass(frozen=True)
class WatchOptions:
    """What can be chosen about a watched training, whatever its trainer; each means what it does in :class:`CAMCallback`."""

    look: LookOptions = field(default_factory=LookOptions)
    max_images: int = 16
    max_overhead: float | None = None
    on_alert: Callable[[Alert], object] | None = None
    on_error: str = "warn"
    wait: float = WAIT

    def __post_init__(self) -> None:
        if self.max_images < 0:
            raise ValueError(f"max_images={self.max_images} must be at least 0.")
        if self.max_overhead is not None and not 0 < self.max_overhead <= 1:
            raise ValueError(f"max_overhead={self.max_overhead} is a share of the training's time: above 0, at most 1.")


class Watcher:
    """Looks at one training, and ends it never: an error of ours is a warning.

    Args:
        who: Stands at the start of every warning and message.
        options: What was chosen.
        probe: The images; None where :meth:`begin` brings them.
        info: Takes messages for the user.

    An adapter calls, on every process alike:

    >>> watcher = Watcher("MyTrainer", WatchOptions(LookOptions("gradcam")), probe)   # doctest: +SKIP
    >>> watcher.begin("first try", "looks")                                           # doctest: +SKIP
    >>> if watcher.may_look():                                                        # doctest: +SKIP
    ...     record = watcher.look(model, epoch, step)
    ...     watcher.annotate(record, {"val_acc": 0.9})
    >>> watcher.close()                                                               # doctest: +SKIP
    """

    def __init__(
        self, who: str, options: WatchOptions, probe: ProbeSet | None = None, info: Callable[[str], object] = log.info
    ) -> None:
        self.who, self.options, self._info = who, options, info
        self.failures = Failures(who, options.on_error)
        self.monitor: CAMMonitor | None = None
        self.last_epoch: int | None = None  # of the last look that was tried
        self.begun = False
        self._clock = Clock()
        self._rests = False
        self._values: dict[str, float] = {}
        self._resumed: Mapping[str, Any] | None = None
        self._told = False  # what the task is
        self._delivery: Delivery | None = None
        self._charged = 0.0  # of what the delivery took
        self._unsaid = False  # is there a look since the last verdict?
        if probe is not None:
            self.watch(probe)

    @property
    def store(self) -> RecordStore | None:
        """The records of this run; None until it has begun."""
        return None if self.monitor is None else self.monitor.store

    @property
    def failed_looks(self) -> int:
        """How many looks failed and were skipped."""
        return self.failures.looks

    # -- the course of a run
    # --------------------------------------------------------------------------------------------------------------

    def watch(self, probe: ProbeSet) -> None:
        """The images, where they were not known before.

        Raises:
            ValueError: The options do not fit them.
        """
        self.monitor = CAMMonitor(probe, **vars(self.options.look))

    def begin(
        self,
        run: str,
        folder: str | os.PathLike[str] | None,
        model: nn.Module | None = None,
        tracking_uri: str | None = None,
    ) -> None:
        """Settle the folder, and the layers of ``model``; take up a resumed state; say what is watched.

        Talks to no other process, so that it may fail on one: :func:`cam_callbacks.processes.together`.

        Args:
            run: Name of the run, for people.
            folder: Where its records go, unless those of another run are there; None keeps nothing on disk.
            model: Without one, the first look settles the layers.
            tracking_uri: MLflow's, for a baseline that is a run there.
        """
        monitor = self.monitor
        if monitor is None:
            raise ValueError("there is no probe to look at; pass Watcher(probe=), or call watch() before begin().")
        if self._resumed is not None:
            self._go_on(monitor, self._resumed["monitor"])
        if model is not None:
            monitor.resolve(model)
        resumed = None if self._resumed is None else self._resumed["monitor"]
        if folder is not None:
            folder = take_up(Path(folder), resumed) if processes.rank() == 0 else Path(folder)
        monitor.begin(run, folder, tracking_uri)
        self._resumed, self.begun = None, True
        layers = (
            f"layer {', '.join(monitor.layer_names)}" if monitor.layer_names else "layers that the first look settles"
        )
        self._say(
            f"watching {', '.join(monitor.options.method_names)} at {layers}, {len(monitor.probe)} probe images, "
            f"{'no records' if folder is None else f'records in {folder}'}"
        )
        self._tell_task(monitor)

    def _tell_task(self, monitor: CAMMonitor) -> None:
        """What is explained, once a run, as soon as a forward has told."""
        if monitor.task is None or self._told:
            return
        self._told = True
        self._say(monitor.task.words)
        if self.options.look.target == "label" and monitor.task.by_prediction:
            self._say(
                "the probe has no labels, so the predicted class is explained; a prediction that flips will look like drift"
            )

    def start_clock(self) -> None:
        """A training starts: what looks take is counted from here, and looks that failed before are no reason to rest."""
        self._clock = Clock()
        self.failures.start_anew()

    def rest(self, why: str) -> None:
        """Take no look at all, and warn why; monitors see neutral values."""
        self._rests = True
        if processes.rank() == 0:
            warnings.warn(f"{self.who} does not look in this training: {why}", stacklevel=3)

    @property
    def resting(self) -> bool:
        """Is another look pointless: after :meth:`rest`, or too many that failed one after the other?"""
        return self._rests or self.failures.resting

    def may_look(self) -> bool:
        """Is a look possible, neither at rest nor beyond ``max_overhead``? Every process has to ask."""
        self._charge_delivery()
        most = self.options.max_overhead
        return not self.resting and (most is None or processes.from_rank_0(self._clock.affords(most, extras=False)))

    def look(
        self,
        model: nn.Module | Callable[[], nn.Module],
        epoch: int | None = None,
        step: int | None = None,
        picture_step: PictureStep = "epoch",
        last: bool = False,
        probe: Callable[[], ProbeSet] | None = None,
    ) -> Record | None:
        """Look, and write the record; None, a warning and another failed look where that fails.

        Args:
            model: As it is now; or what returns it and may fail, or begin the run first.
            probe: Makes the images where none are known yet; every process gets those of rank 0.
            epoch, step, picture_step: As for :meth:`CAMMonitor.look`.
            last: It is the last look of a fit, on which its verdict stands: more pairs exchange parts.
        """
        END.goes_on()
        self.last_epoch = epoch
        self._charge_delivery()
        record = None
        with self.failures.guarded("look skipped", look=True):
            if self.monitor is None and probe is not None:
                self.watch(processes.everywhere(probe)[0])
            explained = processes.together(lambda: model if isinstance(model, nn.Module) else model())
            if self.monitor is None or not self.begun:
                raise RuntimeError("the run has not begun; call begin() before look().")
            mixtures = processes.from_rank_0(self.monitor.mixtures_at(self._clock, self.options.max_overhead, last))
            record = self.monitor.look(
                explained, epoch, step, clock=self._clock, picture_step=picture_step, mixtures=mixtures
            )
            self._values |= {k: v for k, v in record.metrics.items() if math.isfinite(v)}
            self._tell_task(self.monitor)
            if record.look == 0:
                if coarse := self.monitor.coarse(record):
                    self._say(coarse)
                self._say(
                    f"a look costs about {record.seconds:.2f} s (the first one, which also measures the noise floor)"
                )
        if self.failures.resting:
            self._say("no more looks in this training, for too many have failed one after the other")
        return record

    def values(self) -> dict[str, float]:
        """What monitors see: the last finite value of every key, or a neutral one while there has been none."""
        look, monitor = self.options.look, self.monitor
        neutral = neutral_values(look) if monitor is None else monitor.neutral()
        neutral[plain_key("overhead", look.name)] = 0.0
        return neutral | self._values | {plain_key("failed_looks", look.name): float(self.failed_looks)}

    def annotate(
        self,
        record: Record,
        user_metrics: Mapping[str, float],
        sinks: Callable[[], Sequence[Sink]] = tuple,
    ) -> None:
        """The look is complete: tell of its new alerts, put the trainer's numbers beside it, and offer it to the loggers.

        Args:
            record: What :meth:`look` returned.
            user_metrics: The trainer's own numbers of that validation.
            sinks: Makes them, once, when the first look is delivered.
        """
        if processes.rank() != 0:
            return
        started = time.perf_counter()
        if self.options.on_alert is not None:
            with self.failures.guarded("on_alert failed"):
                for alert in record.alerts:
                    if alert.new:
                        self.options.on_alert(alert)
        with self.failures.guarded("could not deliver a look"):
            if self.store is None:  # nothing is kept
                return
            if user_metrics:
                self.store.annotate(record.look, user_metrics)
            if self._delivery is None:
                self._delivery = Delivery(self.store, sinks(), self.options.max_images)
            self._delivery.offer()
        self._unsaid = True
        self._clock.charge(time.perf_counter() - started)

    def _charge_delivery(self) -> None:
        if self._delivery is not None:
            taken = self._delivery.seconds
            self._clock.charge(taken - self._charged)
            self._charged = taken

    def close(self, after_error: bool = False) -> None:
        """Wait for the loggers to take what is left; say what they did not, what the records say of the run, and where the pictures
        are if no logger shows them. A later look may have other loggers.

        Args:
            after_error: The training ends by an exception or an interrupt: seconds at most, for a checkpoint may be due after us.
        """
        delivery, self._delivery, self._charged = self._delivery, None, 0.0
        started, most = time.perf_counter(), self.options.wait
        if delivery is not None:
            with (
                self.failures.guarded("could not deliver everything"),
                END.within(min(most, WAIT_AFTER_ERROR) if after_error else most) as seconds,
            ):
                delivery.finish(seconds)
        if self._unsaid and self.store is not None:
            self._unsaid = False
            with self.failures.guarded("could not say what the records say"):
                self._info(f"{self.who}: {verdict_of(self.store)}")
        if delivery is not None:
            self._clock.charge(time.perf_counter() - started)
            self._say(
                f"watching took {self._clock.spent:.1f} s of {self._clock.elapsed:.0f} s, delivery to loggers included"
            )
            if not delivery.pending():  # to no logger at all
                folder = shlex.quote(str(delivery.store.folder))
                self._say(f"no logger here shows pictures; see them with: cam-callbacks report {folder}")
        if self.monitor is not None:
            self.monitor.release()

    # -- resuming
    # --------------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Tensors and primitives only, for a checkpoint; {} where nothing is watched yet."""
        if self.monitor is None:
            return {}
        return {
            "failed_looks": self.failed_looks,
            "values": dict(self._values),
            "epoch": self.last_epoch,
            "monitor": self.monitor.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; :meth:`begin` does, and is due again."""
        if not state:
            return
        self._resumed, self.begun = state, False
        self.failures.looks, self._values = state["failed_looks"], dict(state["values"])
        self.last_epoch = state["epoch"]

    def _go_on(self, monitor: CAMMonitor, state: Mapping[str, Any]) -> None:
        """Take up the looks before the resume; where they are of another kind, begin a new series."""
        try:
            monitor.load_state_dict(state)
        except ValueError as error:
            if self.failures.on_error == "raise":
                raise
            warnings.warn(f"{self.who}: a new series of looks begins with this resume: {error}", stacklevel=2)
            self._resumed, self._values, self.failures.looks = None, {}, 0

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_delivery": None}  # loggers stay behind

    def _say(self, message: str) -> None:
        self._info(f"{self.who}: {message}")


def enabled() -> bool:
    """Not so where the environment variable ``CAM_CALLBACKS_DISABLED`` is set."""
    return os.environ.get(DISABLED, "").lower() not in ("1", "true", "yes")
