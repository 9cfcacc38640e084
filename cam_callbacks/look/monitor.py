"""A look at the probe set, step by step → one Record. Knows no trainer and no logger."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cam_callbacks import processes
from cam_callbacks.clock import Clock
from cam_callbacks.keys import plain_key
from cam_callbacks.look import alerts as alerting
from cam_callbacks.look import baselines
from cam_callbacks.look.as_before import entered
from cam_callbacks.look.batches import Batches
from cam_callbacks.look.evidence import LookEvidence, is_at_chance, named_right
from cam_callbacks.look.exchanged import Exchanged, aggregates_of, metrics_of, predicted_of
from cam_callbacks.look.exchanging import MIXTURES, Exchange
from cam_callbacks.look.explaining import Explained
from cam_callbacks.look.judgement import Rule
from cam_callbacks.look.manifest import manifest_of, probe_arrays
from cam_callbacks.look.measuring import Measurer
from cam_callbacks.look.memory import Memory, check_state, exchanged_at_reference
from cam_callbacks.look.neutral import neutral_values
from cam_callbacks.look.options import LookOptions
from cam_callbacks.look.reference import kind_of, measured_against
from cam_callbacks.look.seen import Seen, see, to_bytes
from cam_callbacks.look.subject import Subject, coarse_words, subject_of
from cam_callbacks.look.target import Target
from cam_callbacks.look.task import Task
from cam_callbacks.look.tracking import Series, Track
from cam_callbacks.picture_step import PictureStep
from cam_callbacks.plan import network_of, plan_of
from cam_callbacks.probe import ProbeSet
from cam_callbacks.records import Alert, Record, RecordStore, own_store
from cam_engine.capture import Forward
from cam_engine.layers import LayerSpec


class CAMMonitor:
    """Looks at a probe set through a model, again and again, and measures how its focus moves.

    Args:
        probe: The images.
        methods: Names from :func:`cam_engine.available_methods`.
        layers: As for :class:`cam_engine.CAM`; what ``"auto"`` and globs stand for is settled at the first look. Of a
            detector ``"auto"`` is all inputs of its head.
        target: ``"label"``: what is true of each image, as the task has it (:mod:`cam_callbacks.look.recognise`; falls back to
            ``"predicted"`` where nothing is known), ``"predicted"``, ``"all"`` (the mean of several true labels), a class index
            or that of a predicted value, one for each image, or a callable ``(outputs) -> Tensor (B,)``.
        reference: ``"settled"``, ``"first"``, the index of a look, or a baseline: a folder of records or an MLflow run id (its
            last look), or a checkpoint of this model.
        folder: Where records go, or a new one beside it where it holds those of another run; None keeps nothing on disk.
        name: Stands in metric keys, ``cam/<name>/…``, where several monitors watch one training.
        run: Name of the run, for people.
        forward: ``(model, images) -> outputs``, or ``(model, images, batch)``, for a model called in a way of its own.
        output: Key or index of the class scores in what the model returns, or a callable.
        reshape: Callable that turns a layer's output into (B, C, h, w), for layouts that are not recognised.
        batch_size: Images explained at once.
        seed: Of the noise for the noise floor, of the pairs for the ceiling, of sign flips and bootstrap.
        alerts: Rules of :mod:`cam_callbacks.look.alerts`: names, ``{"name": "focus_moved", "above": 3.0}``, or objects; None is all
            of them, [] none.
        on_alert: Called with each :class:`Alert` when it is raised, by the process that writes.
        metrics: Numbers beside the default ones, by name (:func:`cam_engine.metrics.available_metrics`); ``"all"`` is all that
            need no extra forward.
        tracking_uri: MLflow's, for a baseline by run id; by default the one MLflow is set to.
        store_images: False keeps the probe's pixels (patients, faces, customers) out of records, and so out of loggers and
            pages: maps lie on plain grey. Ids, labels, masks and numbers remain.
        exchange: Parts that two images exchange to see which one the prediction follows
            (:func:`cam_engine.exchange.available_parts`); ``"auto"`` is those that the probe allows, [] none. Classifiers only.
        exchange_pairs: Donors for each image; None: as many as make 64 mixtures a part, at the last look of a fit 192.
        calibration: File of thresholds from accepted runs (``cam-callbacks calibrate``).
        hooks: ``"run"``: forward hooks run in a look, and their state is put back; ``"rest"``: those that are not torch's rest.

    >>> monitor = CAMMonitor(probe, methods="gradcam", folder="looks")
    >>> record = monitor.look(model, epoch=3)
    >>> record.maps["gradcam", "3"].shape, round(record.metrics["cam/entropy/gradcam"], 2)
    ((6, 16, 16), 0.81)
    """

    def __init__(
        self,
        probe: ProbeSet,
        methods: str | Sequence[str] = ("eigencam", "gradcam"),
        layers: LayerSpec = "auto",
        target: Target = "label",
        reference: str | int | os.PathLike[str] = "settled",
        folder: str | os.PathLike[str] | None = None,
        name: str | None = None,
        run: str | None = None,
        *,
        forward: Forward | None = None,
        output: Any = None,
        reshape: Callable[[Tensor], Tensor] | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        alerts: Sequence[str | Mapping[str, Any] | Rule] | None = None,
        on_alert: Callable[[Alert], object] | None = None,
        metrics: str | Sequence[str] = (),
        tracking_uri: str | None = None,
        store_images: bool = True,
        exchange: str | Sequence[str] = "auto",
        exchange_pairs: int | None = None,
        calibration: str | os.PathLike[str] | None = None,
        hooks: str = "run",
    ) -> None:
        if not isinstance(probe, ProbeSet):
            raise TypeError(
                f"probe must be a ProbeSet, not {type(probe).__name__}; ProbeSet(images, labels) makes one."
            )
        self.probe = probe
        self._asked = LookOptions(
            methods=methods, layers=layers, target=target, reference=reference, name=name, forward=forward, output=output,
            reshape=reshape, batch_size=batch_size, seed=seed, alerts=alerts, metrics=metrics, store_images=store_images,
            exchange=exchange, exchange_pairs=exchange_pairs, calibration=calibration, hooks=hooks,
        )  # fmt: skip
        self.options = self._asked.on(probe)
        self.on_alert = on_alert
        self.layer_names: tuple[str, ...] = ()
        self.batches = Batches(batch_size)
        self._memory = Memory()
        self.task: Task | None = None
        self._measure_on(probe)
        self._calibration = self.options.calibrated
        self._subject: Subject | None = None
        self._baseline: baselines.Baseline | None = None
        if kind_of(reference) == "folder":  # the others wait for a model or a server
            self._baseline = baselines.from_folder(str(reference), self.options, probe)
        self.begin(run, folder, tracking_uri)

    def begin(
        self, run: str | None = None, folder: str | os.PathLike[str] | None = None, tracking_uri: str | None = None
    ) -> None:
        """Write from now on to this folder, as a run of this name: where both are known later than the probe."""
        self.run = run or (Path(folder).name if folder is not None else "run")
        self.store = None if folder is None else RecordStore(folder)
        self.tracking_uri = tracking_uri

    @property
    def looks(self) -> int:
        """How many looks there were."""
        return self._memory.looks

    @property
    def tracks(self) -> Mapping[Series, Track]:
        """What is remembered about each method and layer."""
        return self._memory.tracks

    def resolve(self, model: nn.Module) -> tuple[str, ...]:
        """Settle which layers are watched, by one forward of one image; they stay the same for the rest of the run."""
        with entered(model, self.options):
            return self._subject_of(model).layers

    def look(
        self,
        model: nn.Module,
        epoch: int | None = None,
        step: int | None = None,
        *,
        clock: Clock | None = None,
        picture_step: PictureStep = "epoch",
        mixtures: int = MIXTURES,
        seen: Seen | None = None,
    ) -> Record:
        """Look once: explain every probe image, measure, and write the record.

        Args:
            model: As it is now; left exactly as it was.
            epoch: By default the number of this look.
            step: Optimizer steps so far; by default the epoch.
            clock: Measures the looks' share of the time, ``cam/overhead``; without one there is no such number.
            picture_step: What pictures of this run are stepped by: ``"epoch"``, or ``"look"`` where an epoch has several.
            mixtures: Of each part that two images exchange, where ``exchange_pairs`` does not say; 0: no test.
            seen: What :meth:`see` kept in another process; of the model only its layers and its task are then asked.

        Raises:
            LookError: Explaining or writing failed, or ``on_alert``, on any process.
        """
        started = time.perf_counter() - (0.0 if seen is None else seen.seconds)
        look, options = self.looks, self.options
        epoch, model = look if epoch is None else epoch, network_of(model)
        self.batches.plan = plan = plan_of(model)
        with processes.together(lambda: entered(model, options)):
            subject = plan.together(lambda: self._subject_of(model))
            probe = subject.task.probe
            seen = seen or see(subject, self._exchange, self._measurer.metrics, options.seed, mixtures)
            explained, exchanged, gap = seen.explained, seen.exchanged, seen.gap
            tracks = measured_against(
                self._tracks_before(subject, explained), explained.maps, explained.predictions, look, options.policy, options.seed,
                seen.floors,
            )  # fmt: skip
        measured = self._measurer.measure(
            explained, tracks, look, scored=seen.scored, gap=gap, split_by_flips=subject.task.by_prediction,
            signed=subject.task.signed,
        )  # fmt: skip
        labels = None if probe.labels is None else probe.labels.numpy()
        evidence = LookEvidence(
            look=look, settled=any(track.settled for track in tracks.values()), exchanged=exchanged, gap=gap,
            then=self._memory.exchanged, at_chance=is_at_chance(explained.predictions, labels),
            right=named_right(explained.predictions, labels),
        )  # fmt: skip
        rules = options.rules
        states, alerts, judged = alerting.judge(
            rules, self._memory.alerts, measured.series, evidence, epoch, probe.ids, self._calibration
        )
        seconds = processes.from_rank_0(time.perf_counter() - started)
        record = Record(
            look=look,
            epoch=epoch,
            step=epoch if step is None else step,
            metrics=measured.metrics
            | ({} if exchanged is None else metrics_of(exchanged, subject.layers, options.name))
            | alerting.flags(rules, alerts, options.name)
            | self._costs(seconds, clock, exchanged),
            maps=explained.maps,
            per_image=measured.per_image,
            aggregates=measured.aggregates | ({} if exchanged is None else aggregates_of(exchanged, subject.layers)),
            predictions=explained.predictions,
            confidences=explained.confidences,
            scores=explained.scores,
            targets=explained.targets,
            reference=measured.reference,
            seconds=seconds,
            time=time.time(),
            t_maps=measured.t_maps,
            alerts=alerts,
            judged=judged,
            exchange_pairs=None if exchanged is None else exchanged.pairs,
            exchanged={} if exchanged is None else predicted_of(exchanged, subject.layers),
        )
        # Rank 0's part is done "together" too: where it fails, no other process may go on by itself.
        writes = self.store is not None and processes.rank() == 0
        processes.together(lambda: self.write(record, picture_step) if writes else None)
        remembered = {series: replace(track, previous=explained.maps[series]) for series, track in tracks.items()}
        then = exchanged_at_reference(self._memory.exchanged, evidence, options.policy)
        exchanges = exchanged is not None if mixtures else self._memory.exchanges
        self._memory = Memory(look + 1, remembered, states, then, exchanges)
        processes.together(lambda: alerting.announce(record, self.on_alert) if processes.rank() == 0 else None)
        return record

    def see(self, model: nn.Module, **more: Any) -> bytes:
        """All that :meth:`look` would ask of the model, and ``more`` beside it, for a file that :func:`seen.from_bytes` reads."""
        started = time.perf_counter()
        self.batches.plan = plan = plan_of(model)
        with processes.together(lambda: entered(model, self.options)):
            subject = plan.together(lambda: self._subject_of(model))
            seen = see(subject, self._exchange, self._measurer.metrics, self.options.seed, MIXTURES)
            return to_bytes(seen, started, **more)

    def write(self, record: Record, picture_step: PictureStep) -> None:
        """Write a record, and before the first one what all have in common."""
        assert self.store is not None and self._subject is not None
        if record.look == 0 or not self.store.manifest:
            task = self._subject.task
            manifest = manifest_of(
                record, self.options, self.probe, task, run=self.run, model=type(self._subject.given).__name__,
                layers=self.layer_names, picture_step=picture_step,
            )  # fmt: skip
            self.store = own_store(self.store, manifest)
            self.store.write_probe(probe_arrays(task.probe, self.options.store_images))
        self.store.write(record)

    def mixtures_at(self, clock: Clock, most: float | None, last: bool) -> int:
        """Of each part that two images exchange: what a look now has time for (:meth:`Exchange.mixtures_at`)."""
        maps = len(self.options.method_names) * max(1, len(self.layer_names))
        return self._exchange.mixtures_at(clock, most, maps, self.looks == 0, last)

    def neutral(self) -> dict[str, float]:
        """What to log under every key while there has been no value yet."""
        parts = () if self._memory.exchanges is False else self._exchange.parts
        return neutral_values(self.options, self.layer_names, self.probe, parts)

    def coarse(self, record: Record) -> str | None:
        """What to say of layers whose maps hardly show a place; None where there is none. Takes a forward where there is one."""
        if (subject := self._subject) is None:
            return None

        with entered(subject.given, self.options):
            return self.batches.plan.step(lambda: coarse_words(subject, self.probe.images, record.maps))

    def release(self) -> None:
        """Let go of the model; the next look may be at another."""
        self._subject = None

    def state_dict(self) -> dict[str, Any]:
        """Tensors and primitives only, for a checkpoint."""
        return {
            "layer_names": list(self.layer_names),
            "fingerprint": self.probe.fingerprint,
            "methods": list(self.options.method_names),
            "folder": None if self.store is None else str(self.store.folder),
            **self._memory.to_plain(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken.

        Raises:
            ValueError: It belongs to another probe or other methods.
        """
        check_state(state, self.probe.fingerprint, list(self.options.method_names))
        self._memory = Memory.from_plain(state)
        self.layer_names, self._subject = tuple(state["layer_names"]), None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_subject": None}  # the model is its trainer's

    # -- pieces
    # --------------------------------------------------------------------------------------------------------------

    def _subject_of(self, model: nn.Module) -> Subject:
        if self._subject is None or not self._subject.is_of(model):
            self._subject = subject_of(model, self.probe, self._asked, self.layer_names, self.batches, self.task)
            self.layer_names = self._subject.layers
            if self.task is None:
                self.task = self._subject.task
                if self.task.probe is not self.probe:
                    self._measure_on(self.task.probe)
        return self._subject

    def _measure_on(self, probe: ProbeSet) -> None:
        """Measure on these labels and regions: those that the probe came with, or that its task has."""
        options = self.options
        self._measurer = Measurer(probe, options.metrics_on(probe), options.name, options.seed)
        self._exchange = Exchange(probe, options.exchange, options.exchange_pairs, options.seed)

    def _tracks_before(self, subject: Subject, explained: Explained) -> dict[Series, Track]:
        """What the looks before this one left; before the first one a new track for each series, or the baseline's."""
        tracks, seed = self.tracks, self.options.seed
        if self.options.policy == "baseline" and not tracks:
            base = self._baseline = self._baseline or baselines.find(
                self.options, subject, self.probe, self.tracking_uri
            )
            return {series: base.track(series, maps.shape, seed) for series, maps in explained.maps.items()}
        return {series: tracks.get(series, Track()) for series in explained.maps}

    def _costs(self, seconds: float, clock: Clock | None, exchanged: Exchanged | None) -> dict[str, float]:
        """Under their keys what of a look's costs is logged: rank 0's."""
        name, costs = self.options.name, {plain_key("seconds", self.options.name): seconds}
        if clock is None:
            return costs
        share = clock.spend(seconds, *((0.0, 0) if exchanged is None else (exchanged.seconds, exchanged.asked)))
        return costs | {plain_key("overhead", name): processes.from_rank_0(share)}
