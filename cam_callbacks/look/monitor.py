"""One look at the probe set → one Record. Knows no trainer and no logger."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cam_callbacks import processes
from cam_callbacks.keys import check_name, group_keys, metric_key, per_image_key, plain_key
from cam_callbacks.look import alerts as alerting
from cam_callbacks.look import baselines, forwards, tracking
from cam_callbacks.look.detection import View, view_of
from cam_callbacks.look.forwards import classified
from cam_callbacks.probe import ProbeSet
from cam_callbacks.records import Alert, Record, RecordStore, free_folder
from cam_engine import CAM, __version__
from cam_engine.capture import Forward
from cam_engine.guard import weights_kept
from cam_engine.layers import LayerSpec, module_names
from cam_engine.methods import get_method
from cam_engine.metrics import Metric, aggregate, counterfactual_gap, coverage, enrichment, get_metrics, heatmaps

log = logging.getLogger(__name__)

NOISE = 0.1  # of the probe's standard deviation
NOISE_REPEATS = 3
BATCH_SIZE = 32
WITHHELD = 127  # the grey that stands for pixels with store_images=False
MOST_GROUPS = 12  # whose means are logged; records hold those of any number
GROUPED = ("on_target_enrichment", "nuisance_enrichment", "drift_ref")

Target = str | int | Sequence[int] | Callable[[Any], Tensor]
Key = tuple[str, str]

_OF_A_LOOK = {"maps", "reference", "previous", "score", "images", "heatmaps"}


@dataclass(frozen=True)
class _Share:
    """What one process explained: its images' maps, and what the model said of them."""

    maps: dict[Key, NDArray[np.float32]]
    predictions: NDArray[np.int64] | None
    confidences: NDArray[np.float64] | None
    scores: NDArray[np.float64] | None


class CAMMonitor:
    """Looks at a probe set through a model, again and again, and measures how its focus moves.

    Args:
        probe: The images.
        methods: Names from :func:`cam_engine.available_methods`.
        layers: As for :class:`cam_engine.CAM`; what ``"auto"`` and globs stand for is settled at the first look. Of a
            detector ``"auto"`` is all inputs of its head.
        target: ``"label"`` (falls back to ``"predicted"`` on a probe without labels), ``"predicted"``, a class index,
            one for each image, or a callable ``(outputs) -> Tensor (B,)``. Of a detector, ``"label"`` is
            :class:`cam_callbacks.look.detection.ProbeBoxTarget`.
        reference: ``"settled"``, ``"first"``, the index of a look, or a baseline: a folder of records or an MLflow run id (its
            last look), or a checkpoint of this model.
        folder: Where records go, or a new one beside it where it holds those of another run; None keeps nothing on disk.
        name: Stands in metric keys, ``cam/<name>/…``, where several monitors watch one training.
        run: Name of the run, for people.
        forward: ``(model, images) -> outputs`` for a model that is not called with the images alone.
        output: Key or index of the class scores in what the model returns, or a callable.
        reshape: Callable that turns a layer's output into (B, C, h, w), for layouts that are not recognised.
        batch_size: Images explained at once.
        seed: Of the noise for the noise floor, of the pairs for the ceiling, of sign flips and bootstrap.
        alerts: Rules of :mod:`cam_callbacks.look.alerts`: names, ``{"name": "diffuse", "above": 0.9}``, or objects; None is all
            of them, [] none.
        on_alert: Called with each :class:`Alert` when it is raised, by the process that writes.
        metrics: Numbers beside the default ones, by name (:func:`cam_engine.metrics.available_metrics`); ``"all"`` is all that
            need no extra forward.
        tracking_uri: MLflow's, for a baseline by run id; by default the one MLflow is set to.
        store_images: False keeps the probe's pixels (patients, faces, customers) out of records, and so out of loggers and
            pages: maps lie on plain grey. Ids, labels, masks and numbers remain.

    >>> monitor = CAMMonitor(probe, methods="gradcam", folder="looks")   # doctest: +SKIP
    >>> record = monitor.look(model, epoch=3)                             # doctest: +SKIP
    >>> record.metrics["cam/drift_ref/gradcam"]                           # doctest: +SKIP
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
        alerts: Sequence[str | Mapping[str, Any] | alerting.Rule] | None = None,
        on_alert: Callable[[Alert], object] | None = None,
        metrics: str | Sequence[str] = (),
        tracking_uri: str | None = None,
        store_images: bool = True,
    ) -> None:
        if not isinstance(probe, ProbeSet):
            raise TypeError(
                f"probe must be a ProbeSet, not {type(probe).__name__}; ProbeSet(images, labels) makes one."
            )
        self.methods = check_arguments(methods, target, reference, batch_size)
        self.metrics = _measurable(metrics, probe)
        if isinstance(target, Sequence) and not isinstance(target, str) and len(target) != len(probe):
            raise ValueError(f"target= holds {len(target)} classes for the probe's {len(probe)} images.")
        self.probe = probe
        self.layers = layers
        self.target: Target = "predicted" if target == "label" and probe.labels is None else target
        self.reference = reference if isinstance(reference, int) else os.fspath(reference)
        self.tracking_uri = tracking_uri
        self.name = check_name(name)
        self.run = run or (Path(folder).name if folder is not None else "run")
        self.forward, self.output, self.reshape = forward, output, reshape
        self.batch_size = batch_size or BATCH_SIZE
        self.seed = seed
        self.store_images = store_images
        self.store = None if folder is None else RecordStore(folder)
        self.layer_names: tuple[str, ...] = ()
        self.picture_step = "epoch"
        self.looks = 0
        self.rules = alerting.make_rules(alerts)
        self.on_alert = on_alert
        self._tracks: dict[Key, tracking.Track] = {}
        self._alert_states: alerting.States = {}
        self._regions: dict[tuple[int, int], dict[str, NDArray[np.float64]]] = {}
        self._baseline: baselines.Baseline | None = None
        if baselines.kind_of(self.reference) == "folder":  # the others wait for a model or a server
            self._baseline = baselines.from_folder(
                str(self.reference), probe.fingerprint, self._target_name, self._fixed_targets()
            )

    def resolve(self, model: nn.Module) -> tuple[str, ...]:
        """Settle which layers are watched, by one forward of one image; they stay the same for the rest of the run."""
        if not self.layer_names:
            view = self._view(model)
            cam = CAM(
                view.model, self.methods, view.layers, forward=view.forward, output=self.output, reshape=view.reshape
            )
            parameter = next(model.parameters(), None)
            image = self.probe.images[:1]
            self.layer_names = tuple(cam.resolve(image if parameter is None else image.to(parameter)))
        return self.layer_names

    def look(self, model: nn.Module, epoch: int | None = None, step: int | None = None) -> Record:
        """Look once: explain every probe image, measure, and write the record.

        Args:
            model: As it is now; left exactly as it was.
            epoch: By default the number of this look.
            step: Optimizer steps so far; by default the epoch.

        Raises:
            LookError: Explaining or writing failed, or ``on_alert``, on any process.
        """
        started = time.perf_counter()
        if self._policy == "baseline" and self._baseline is None and not self._tracks:
            self._baseline = self._find_baseline(model)
        shares = processes.everywhere(lambda: self._explain(model, self.probe.images, self._targets()))
        maps = _join([s.maps for s in shares])
        predictions, confidences, scores = (
            _concatenate([getattr(s, name) for s in shares]) for name in ("predictions", "confidences", "scores")
        )
        targets = predictions if self.target == "predicted" else self._fixed_targets()
        epoch = self.looks if epoch is None else epoch
        record = Record(
            look=self.looks,
            epoch=epoch,
            step=epoch if step is None else step,
            metrics={},
            maps=maps,
            predictions=predictions,
            confidences=confidences,
            scores=scores,
            targets=targets,
            time=time.time(),
        )
        record = self._measured(record, model)
        record = replace(record, seconds=time.perf_counter() - started)
        record.metrics[plain_key("seconds", self.name)] = record.seconds
        # Rank 0's part is done "everywhere" too: where it fails, no other process may go on by itself.
        writes = self.store is not None and processes.rank() == 0
        processes.everywhere(lambda: self.write(model, record) if writes else None)
        self.looks += 1
        processes.everywhere(lambda: self._announce(record) if processes.rank() == 0 else None)
        return record

    def _announce(self, record: Record) -> None:
        for alert in record.alerts:
            if alert.new:
                log.warning("cam-callbacks: alert: %s", alert)
                if self.on_alert is not None:
                    self.on_alert(alert)

    def write(self, model: nn.Module, record: Record) -> None:
        """Write a record, and before the first one what all have in common."""
        assert self.store is not None
        if record.look == 0 and (free := free_folder(self.store.folder)) != self.store.folder:
            log.warning("cam-callbacks: %s holds the records of another run; these go to %s", self.store.folder, free)
            self.store = RecordStore(free)
        if not self.store.manifest:
            self.store.write_probe(self._probe_arrays())
            self.store.write_manifest(self._manifest(model, record))
        self.store.write(record)

    def neutral(self) -> dict[str, float]:
        """What to log under every key while there has been no value yet."""
        known = [m for m in self.metrics if self._inputs((1, 1)).keys() >= set(m.needs) - _OF_A_LOOK]
        values = neutral(
            self.methods, self.layer_names or self.layers, self.name, self.rules, known, self.target == "predicted"
        )
        if self.probe.counterfactual is not None:
            values[plain_key("counterfactual_gap", self.name)] = 0.0
        return values

    def state_dict(self) -> dict[str, Any]:
        """Tensors and primitives only, for a checkpoint."""
        return {
            "looks": self.looks,
            "layer_names": list(self.layer_names),
            "fingerprint": self.probe.fingerprint,
            "methods": list(self.methods),
            "folder": None if self.store is None else str(self.store.folder),
            "tracks": [{"method": m, "layer": layer, **t.state_dict()} for (m, layer), t in self._tracks.items()],
            "alerts": alerting.to_plain(self._alert_states),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken.

        Raises:
            ValueError: It belongs to another probe or other methods.
        """
        if state["fingerprint"] != self.probe.fingerprint:
            raise ValueError(
                f"the checkpoint's looks are of a probe with fingerprint {state['fingerprint'][:12]}, this one has "
                f"{self.probe.fingerprint[:12]}: their numbers must not be mixed."
            )
        if state["methods"] != list(self.methods):
            raise ValueError(f"the checkpoint's looks are by {state['methods']}, these by {list(self.methods)}.")
        self.looks = state["looks"]
        self.layer_names = tuple(state["layer_names"])
        self._tracks = {
            (t["method"], t["layer"]): tracking.Track.from_state(
                {k: v for k, v in t.items() if k not in ("method", "layer")}
            )
            for t in state["tracks"]
        }
        self._alert_states = alerting.from_plain(state.get("alerts", ()))

    # -- explaining
    # ----------------------------------------------------------------------------------------------------------

    def _view(self, model: nn.Module) -> View:
        return view_of(model, self.probe, self.layers, self.target, self.forward, self.reshape)

    def _targets(self) -> Target:
        if self.target == "label":
            assert self.probe.labels is not None
            return self.probe.labels.tolist()
        return self.target

    def _fixed_targets(self) -> NDArray[np.int64] | None:
        targets = self._targets()
        if callable(targets) or isinstance(targets, str):
            return None
        return np.broadcast_to(np.asarray(targets, dtype=np.int64), (len(self.probe),)).copy()

    def _explain(self, model: nn.Module, images: Tensor, targets: Target) -> _Share:
        """Explain this process's share of ``images``."""
        names, view = self.resolve(model), self._view(model)
        cam = CAM(
            view.model,
            self.methods,
            list(names),
            forward=view.forward,
            output=self.output,
            reshape=view.reshape,
            progress=False,
        )
        targets = targets if view.target is None else view.target
        parts: list[_Share] = []
        mine = processes.share(len(images))
        while mine:
            chunk = mine[: self.batch_size]
            try:
                parts.append(self._explain_batch(cam, view, images, targets, chunk))
                mine = mine[len(chunk) :]
                continue
            except RuntimeError as error:
                if len(chunk) == 1 or not _out_of_memory(error):
                    raise
            # Out here the error is gone, and with it what its frames still held.
            self.batch_size = len(chunk) // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            log.warning("cam-callbacks: out of memory with %d images at once; now %d", len(chunk), self.batch_size)
        return _Share(
            _join([p.maps for p in parts]),
            *(_concatenate([getattr(p, name) for p in parts]) for name in ("predictions", "confidences", "scores")),
        )

    def _explain_batch(self, cam: CAM, view: View, images: Tensor, targets: Any, chunk: list[int]) -> _Share:
        """Explain the images whose indices are in ``chunk``."""
        batch_targets: Any = None if targets == "predicted" else targets
        if isinstance(batch_targets, Sequence):
            batch_targets = [batch_targets[i] for i in chunk]
        elif hasattr(batch_targets, "of_images"):  # a target that knows each image's boxes
            batch_targets = batch_targets.of_images(chunk)
        result = cam(images[chunk], batch_targets, outputs=True)
        predictions, confidences = classified(cam.scores_of(result.outputs))
        scores = None if result.scores is None else result.scores.double().cpu().numpy()
        maps = {key: view.within_image(m, result.outputs).float().cpu().numpy() for key, m in result.raw.items()}
        return _Share(maps, predictions, confidences, scores)

    # -- measuring: from here on every process computes the same from what was gathered
    # ---------------------------------------

    def _measured(self, record: Record, model: nn.Module) -> Record:
        # Copies, so that a look that fails half-way leaves the run's memory as it was.
        tracks = {
            key: replace(self._tracks[key]) if key in self._tracks else self._new_track(key, maps)
            for key, maps in record.maps.items()
        }
        renew = [
            key for key, track in tracks.items() if track.needs_reference(record.maps[key], record.look, self._policy)
        ]
        unmeasured = [key for key, track in tracks.items() if track.reference is not None and np.isnan(track.floor)]
        if renew or unmeasured:
            floors = self._floors(model, record)
            for key in renew:
                tracks[key].set_reference(
                    record.maps[key], record.look, self._policy, floors[key], self.seed, record.predictions
                )
            for key in unmeasured:
                tracks[key].floor = floors[key]
        scored = self._scored(model, record)
        split = record.predictions if self.target == "predicted" else None
        metrics: dict[str, float] = {}
        per_image: dict[str, NDArray[np.float64]] = {}
        aggregates: dict[str, dict[str, float]] = {}
        seen: dict[Key, alerting.Seen] = {}
        t_maps: dict[Key, NDArray[np.float32]] = {}
        for (method, layer), track in tracks.items():
            maps = record.maps[method, layer]
            known = self._inputs((maps.shape[1], maps.shape[2]))
            found = track.measure(maps, record.look, self.metrics, known, self.seed, split)
            found.per_image.update(scored.get((method, layer), {}))
            for metric, values in found.per_image.items():
                name = per_image_key(metric, method, layer, self.layer_names)
                per_image[name], aggregates[name] = values, self._aggregate(metric, values)
                found.whole[metric] = aggregates[name]["mean"]
                found.whole.update(self._by_group(metric, aggregates[name]))
            keys = {k: metric_key(k, method, layer, self.layer_names, self.name) for k in found.whole}
            metrics |= {keys[k]: value for k, value in found.whole.items()}
            t_maps[method, layer] = found.moved.t.astype(np.float32)
            then = enrichment(found.reference, known["region"]) if "region" in known else None
            seen[method, layer] = alerting.Seen(
                record.look, track.settled, track.fixed, found.whole, found.per_image, then, track.floor, found.moved
            )
        if self.probe.counterfactual is not None:
            gap = self._gap(model, record)
            per_image["counterfactual_gap"], aggregates["counterfactual_gap"] = gap, self._aggregate("gap", gap)
            metrics[plain_key("counterfactual_gap", self.name)] = float(gap.mean())
        states, alerts = alerting.judge(self.rules, self._alert_states, seen, record.look, record.epoch, self.probe.ids)
        raised = {alert.name for alert in alerts}
        metrics |= {plain_key(f"alert/{r.name}", self.name): float(r.name in raised) for r in self.rules}
        self._tracks, self._alert_states = tracks, states
        reference = {
            f"{m}/{layer}": track.described() | {"t_critical": seen[m, layer].moved.critical}
            for (m, layer), track in tracks.items()
        }
        return replace(
            record,
            metrics=metrics,
            per_image=per_image,
            aggregates=aggregates,
            reference=reference,
            t_maps=t_maps,
            alerts=alerts,
        )

    def _aggregate(self, metric: str, values: NDArray[np.float64]) -> dict[str, float]:
        labels = None if self.probe.labels is None else self.probe.labels.numpy()
        worse = metric in tracking.worse_when_high(self.metrics) or metric == "gap"
        return aggregate(values, labels, self.probe.groups, worse, self.seed)

    def _by_group(self, metric: str, found: dict[str, float]) -> dict[str, float]:
        """The means of the probe's groups that are logged, under names such as ``drift_ref.<group>``."""
        tags = group_keys(self.probe.groups or ()) if metric in GROUPED else {}
        return {f"{metric}.{tags[t]}": found[f"group:{t}"] for t in tags if len(tags) <= MOST_GROUPS}

    def _inputs(self, grid: tuple[int, int]) -> dict[str, NDArray[np.float64]]:
        """What is known about the probe on a grid: the target's region, and the suspected one."""
        if grid not in self._regions:
            regions = self.probe.regions(grid)
            known = {} if regions is None else {"region": regions}
            if self.probe.nuisance is not None:
                known["nuisance"] = coverage(self.probe.nuisance, grid)
            self._regions[grid] = known
        return self._regions[grid]

    def _scored(self, model: nn.Module, record: Record) -> dict[Key, dict[str, NDArray[np.float64]]]:
        """The metrics that need more forwards, for every method and layer: each process scores its share of the images."""
        chosen = [m for m in self.metrics if m.costs_forwards]
        if not chosen:
            return {}
        view, pick = self._view(model), CAM(model, self.methods, output=self.output).scores_of
        target = record.targets if record.targets is not None else view.target or self.target
        if isinstance(target, str):
            raise TypeError(f"{chosen[0].name} needs class scores, or a target that gives each image a score.")
        mine = processes.share(len(self.probe))
        score = forwards.explained_score(view, pick, target, mine, self.batch_size)

        def of_share() -> dict[Key, dict[str, NDArray[np.float64]]]:
            images = self.probe.images[mine]
            size = (images.shape[2], images.shape[3])
            inputs: dict[str, Any] = {"score": score, "images": images}
            found: dict[Key, dict[str, NDArray[np.float64]]] = {}
            for key, maps in record.maps.items():
                inputs["heatmaps"] = heatmaps(maps[mine], size)
                found[key] = {m.name: m.function(*(inputs[need] for need in m.needs)) for m in chosen}
            return found

        shares = processes.everywhere(lambda: of_share() if mine else None)
        parts = [share for share in shares if share is not None]
        return {key: {m.name: np.concatenate([p[key][m.name] for p in parts]) for m in chosen} for key in record.maps}

    def _gap(self, model: nn.Module, record: Record) -> NDArray[np.float64]:
        assert self.probe.counterfactual is not None and self.probe.labels is not None
        if record.predictions is None:
            raise TypeError(
                "a counterfactual version of the probe needs a classifier, and this model's output is none."
            )
        view, pick = self._view(model), CAM(model, self.methods, output=self.output).scores_of
        images = self.probe.counterfactual[processes.share(len(self.probe))]
        shares = processes.everywhere(
            lambda: forwards.predictions(view, pick, images, self.batch_size) if len(images) else None
        )
        changed, labels = _concatenate(shares), self.probe.labels.numpy()
        return counterfactual_gap(record.predictions == labels, changed == labels)

    def _floors(self, model: nn.Module, record: Record) -> dict[Key, float]:
        """Noise floor of the weights as they are now, for every method and layer, on every process alike."""
        images = self.probe.images
        generator = torch.Generator().manual_seed(self.seed)
        spread = NOISE * float(images.std())
        targets = self._targets() if record.targets is None else record.targets.tolist()
        noisy: list[dict[Key, NDArray[np.float32]]] = []
        for _ in range(NOISE_REPEATS):
            shaken = images + spread * torch.randn(images.shape, generator=generator)
            shares = processes.everywhere(lambda shaken=shaken: self._explain(model, shaken, targets))  # type: ignore[misc]
            noisy.append(_join([s.maps for s in shares]))
        return {key: tracking.noise_floor(maps, [n[key] for n in noisy]) for key, maps in record.maps.items()}

    @property
    def _policy(self) -> tracking.Policy:
        return self.reference if isinstance(self.reference, int) or self.reference in baselines.POLICIES else "baseline"

    @property
    def _target_name(self) -> str | int:
        return self.target if isinstance(self.target, (str, int)) else "custom"

    def _new_track(self, key: Key, maps: NDArray[np.float32]) -> tracking.Track:
        if self._baseline is None:
            return tracking.Track()
        base = baselines.series_of(self._baseline, key, maps.shape)
        return tracking.Track(
            fixed=True,
            reference=base,
            reference_predictions=self._baseline.predictions,
            ceiling=tracking.ceiling(base, self.seed),
        )

    def _find_baseline(self, model: nn.Module) -> baselines.Baseline:
        """The maps of an MLflow run, or those of a checkpoint's weights, which are put in and taken out again."""
        name = str(self.reference)
        if baselines.kind_of(name) == "mlflow":
            found = processes.everywhere(
                lambda: (
                    baselines.from_mlflow(
                        name, self.probe.fingerprint, self._target_name, self._fixed_targets(), self.tracking_uri
                    )
                    if processes.rank() == 0
                    else None
                )
            )
            assert found[0] is not None
            return found[0]

        from cam_engine.loading import load_checkpoint

        def of_checkpoint() -> _Share:
            self.resolve(model)
            with weights_kept(model):
                load_checkpoint(model, name)
                return self._explain(model, self.probe.images, self._targets())

        shares = processes.everywhere(of_checkpoint)
        maps = _join([s.maps for s in shares])
        return baselines.Baseline(name, maps, _concatenate([s.predictions for s in shares]))

    # -- what all records have in common
    # --------------------------------------------------------------------------------------

    def _manifest(self, model: nn.Module, record: Record) -> dict[str, Any]:
        probe = self.probe
        return {
            "run": self.run,
            "name": self.name,
            "created": record.time,
            "version": __version__,
            "model": type(model).__name__,
            "methods": list(self.methods),
            "layers": list(self.layer_names),
            "grids": {layer: list(maps.shape[1:]) for (_, layer), maps in record.maps.items()},
            "target": self._target_name,
            "reference": self.reference,
            "picture_step": self.picture_step,
            "store_images": self.store_images,
            "probe": {
                "fingerprint": probe.fingerprint,
                "n": len(probe),
                "image_size": list(probe.images.shape[-2:]),
                "ids": probe.ids,
                "class_names": probe.class_names,
                "groups": probe.groups,
                "mean": None if probe.mean is None else probe.mean.flatten().tolist(),
                "std": None if probe.std is None else probe.std.flatten().tolist(),
            },
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        }

    def _probe_arrays(self) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {"pictures": self.probe.pictures()}
        if not self.store_images:
            arrays["pictures"] = np.full_like(arrays["pictures"], WITHHELD)
        if self.probe.labels is not None:
            arrays["labels"] = self.probe.labels.numpy()
        if self.probe.region_masks is not None:
            arrays["masks"] = self.probe.region_masks
        if self.probe.nuisance is not None:
            arrays["nuisance"] = self.probe.nuisance
        return arrays


def check_arguments(
    methods: str | Sequence[str], target: Target, reference: str | int | os.PathLike[str], batch_size: int | None
) -> tuple[str, ...]:
    """The methods, by their registered names; what can be seen to be wrong before the probe is known is an error."""
    names = tuple(get_method(m).name for m in ([methods] if isinstance(methods, str) else methods))
    if not names:
        raise ValueError('methods= is empty; pass at least one name, such as "gradcam".')
    if isinstance(target, str) and target not in ("label", "predicted"):
        raise ValueError(
            f'target= takes "label", "predicted", a class index, a list of them or a callable, not {target!r}.'
        )
    baselines.kind_of(reference)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1.")
    return names


def neutral(
    methods: Sequence[str],
    layers: LayerSpec,
    name: str | None,
    rules: Sequence[alerting.Rule] = (),
    metrics: Sequence[Metric] = (),
    of_predictions: bool = False,
) -> dict[str, float]:
    """A value for every key that these methods and layers can log, for monitors that must find one."""
    names = [str(layer) for layer in layers] if isinstance(layers, (list, tuple)) else ["auto"]
    values = {
        metric_key(metric, method, layer, names, name): value
        for method in methods
        for layer in names
        for metric, value in tracking.neutral(metrics, of_predictions).items()
    }
    values |= {plain_key(f"alert/{rule.name}", name): 0.0 for rule in rules}
    return values | {plain_key("seconds", name): 0.0}


def shown_layers(model: nn.Module) -> list[str]:
    """Names of the model's direct children, for messages."""
    return [name for name in module_names(model).values() if name and "." not in name]


def _measurable(names: str | Sequence[str], probe: ProbeSet) -> list[Metric]:
    """The metrics that were asked for.

    Raises:
        ValueError: No such metric, or one that this probe cannot tell.
    """
    asked = {names} if isinstance(names, str) else set(names)
    lacking = {"region": not probe.has_regions, "nuisance": probe.nuisance is None}
    chosen = get_metrics(names)
    for metric in chosen:
        missing = [need for need in metric.needs if lacking.get(need)]
        if missing and metric.name in asked:
            what = {"region": "masks= or boxes=", "nuisance": "nuisance="}[missing[0]]
            raise ValueError(f"metrics= names {metric.name}, which needs ProbeSet({what}); this probe has none.")
    return chosen


def _out_of_memory(error: RuntimeError) -> bool:
    """On a device, or on the host, for which torch has no error of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _join(parts: Sequence[dict[Key, NDArray[np.float32]]]) -> dict[Key, NDArray[np.float32]]:
    filled = [part for part in parts if part]
    return {key: np.concatenate([part[key] for part in filled]) for key in (filled[0] if filled else {})}


def _concatenate(parts: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    found = [part for part in parts if part is not None]
    return np.concatenate(found) if found else None
