"""Every number of a look, from its maps and what is remembered. Pure: each process computes the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cam_callbacks.keys import group_keys, metric_key, per_image_key, plain_key
from cam_callbacks.look.evidence import Array, Measurement, is_at_chance
from cam_callbacks.look.explaining import Explained
from cam_callbacks.look.tracking import Series, Track
from cam_callbacks.probe import ProbeSet
from cam_callbacks.records import Maps
from cam_engine.methods import get_method
from cam_engine.metrics import Metric, aggregate, coverage, describe, max_t, pooled_enrichment, valid

# Measured beside the metrics that were asked for: of each image, and of all images together.
DERIVED = ("focus_drift",)
OF_PREDICTIONS = ("flip_rate", "drift_flipped", "drift_unflipped")
WHOLE = ("valid_frac", "reference_set", "noise_floor", "ceiling", "max_t", "max_t_p")

MOST_GROUPS = 12  # whose means are logged; records hold those of any number
GROUPED = ("on_target_enrichment", "nuisance_enrichment", "drift_ref")
# Ratios of masses to areas: the number of the probe is the ratio of the sums over images, not the mean of the ratios.
POOLED = {"on_target_enrichment": "region", "nuisance_enrichment": "nuisance"}


@dataclass(frozen=True, eq=False)
class Measured:
    """The numbers of a look, under their keys, as :class:`cam_callbacks.Record` has them; ``series``: what rules judge."""

    metrics: dict[str, float] = field(default_factory=dict)
    per_image: dict[str, Array] = field(default_factory=dict)
    aggregates: dict[str, dict[str, float]] = field(default_factory=dict)
    t_maps: Maps = field(default_factory=dict)
    reference: dict[str, dict[str, Any]] = field(default_factory=dict)
    series: dict[Series, Measurement] = field(default_factory=dict)


class Measurer:
    """Measures the looks of a run.

    Args:
        probe: The images that were explained.
        metrics: Those to measure; one that needs further forwards is measured elsewhere (``scored``).
        name: Of the callback, in keys.
        seed: Of sign flips and bootstrap.
    """

    def __init__(self, probe: ProbeSet, metrics: Sequence[Metric], name: str | None, seed: int) -> None:
        self.probe, self.metrics, self.name, self.seed = probe, metrics, name, seed
        self._labels = None if probe.labels is None else probe.labels.numpy()
        self._regions: dict[tuple[int, int], dict[str, Array]] = {}

    def measure(
        self,
        explained: Explained,
        tracks: Mapping[Series, Track],
        look: int,
        *,
        scored: Mapping[Series, Mapping[str, Array]] | None = None,
        gap: Array | None = None,
        split_by_flips: bool = False,
        signed: bool = False,
    ) -> Measured:
        """Measure a look.

        Args:
            explained: Its maps.
            tracks: What they are measured against, for every series.
            look: Its number.
            scored: Values per image that took further forwards, by metric.
            gap: (N,) the counterfactual gap, where it was measured.
            split_by_flips: Split drift into images whose prediction has flipped since the reference, and others, where the
                predicted class is what is explained.
            signed: A healthy score may have nothing that raises it, and so an empty map.
        """
        whole = Measured()
        predictions = explained.predictions if split_by_flips else None
        layers = list(dict.fromkeys(layer for _, layer in tracks))
        for (method, layer), track in tracks.items():
            maps = explained.maps[method, layer]
            values = self._per_image(maps, track, look, predictions) | dict((scored or {}).get((method, layer), {}))
            aggregates = {metric: self._aggregate(metric, v, maps) for metric, v in values.items()}
            expected = _explainable(explained.there, maps, signed and get_method(method).explains_score)
            one = self._measurement(explained, maps, track, look, values, aggregates, expected)
            whole.series[method, layer] = one
            whole.metrics.update({metric_key(k, method, layer, layers, self.name): v for k, v in one.numbers.items()})
            names = {metric: per_image_key(metric, method, layer, layers) for metric in values}
            whole.per_image.update({names[metric]: v for metric, v in values.items()})
            whole.aggregates.update({names[metric]: a for metric, a in aggregates.items()})
            whole.t_maps[method, layer] = one.moved.t.astype(np.float32)
            whole.reference[f"{method}/{layer}"] = track.described(maps) | {"t_critical": one.moved.critical}
        if gap is not None:
            whole.per_image["counterfactual_gap"] = gap
            whole.aggregates["counterfactual_gap"] = self._aggregate("counterfactual_gap", gap, None)
            whole.metrics[plain_key("counterfactual_gap", self.name)] = float(gap.mean())
        return whole

    def _per_image(
        self, maps: NDArray[np.float32], track: Track, look: int, predictions: NDArray[np.int64] | None
    ) -> dict[str, Array]:
        """(N,) for each metric of a series; NaN where undefined."""
        inputs: dict[str, Any] = {
            "maps": maps,
            "reference": maps if track.reference is None else track.reference,
            "previous": maps if track.previous is None else track.previous,
            **self._known((maps.shape[1], maps.shape[2])),
        }
        values = {m.name: m.function(*(inputs[n] for n in m.needs)) for m in self.metrics if not m.costs_forwards}
        drift = values["drift_ref"]
        is_reference = look == track.reference_look or track.reference is None
        # A look that is its own reference has not drifted; until the focus has been calm there is nothing to take off.
        calm = 0.0 if is_reference or np.isnan(track.calm) else track.calm
        values["focus_drift"] = (drift - calm) / (1 - calm)
        if predictions is not None:
            then = predictions if track.reference_predictions is None else track.reference_predictions
            flipped = predictions != then
            values["flip_rate"] = flipped.astype(np.float64)
            values["drift_flipped"] = np.where(flipped, drift, np.nan)
            values["drift_unflipped"] = np.where(flipped, np.nan, drift)
        return values

    def _measurement(
        self,
        explained: Explained,
        maps: NDArray[np.float32],
        track: Track,
        look: int,
        values: Mapping[str, Array],
        aggregates: Mapping[str, Mapping[str, float]],
        explainable: NDArray[np.bool_] | None,
    ) -> Measurement:
        moved = max_t(maps, maps if track.reference is None else track.reference, seed=self.seed)
        numbers = {
            "valid_frac": float(valid(maps).mean()),
            "reference_set": float(track.reference_set),
            "noise_floor": track.floor,
            "ceiling": track.ceiling,
            "max_t": moved.statistic,
            "max_t_p": moved.p,
        }
        for metric, aggregated in aggregates.items():
            number = aggregated.get("pooled", aggregated["mean"])
            numbers |= {metric: number} | self._group_means(metric, aggregated)
        return Measurement(
            look=look,
            settled=track.settled,
            reference_set=track.reference_set,
            numbers=numbers,
            per_image=values,
            aggregates=aggregates,
            cells=maps.shape[1] * maps.shape[2],
            calm=track.calm,
            floor=track.floor,
            moved=moved,
            at_chance=is_at_chance(explained.predictions, self._labels),
            explainable=explainable,
        )

    def _aggregate(self, metric: str, values: Array, maps: NDArray[np.float32] | None) -> dict[str, float]:
        """Over images: mean, median, worst images and classes, interval; of a ratio also the ratio of sums, ``pooled``."""
        found = aggregate(values, self._labels, self.probe.groups, describe(metric).worse == "high", self.seed)
        if metric not in POOLED or maps is None:
            return found
        pooled = pooled_enrichment(maps, self._known((maps.shape[1], maps.shape[2]))[POOLED[metric]], seed=self.seed)
        return found | {"pooled": pooled.value, "pooled_low": pooled.low, "pooled_high": pooled.high}

    def _group_means(self, metric: str, aggregated: Mapping[str, float]) -> dict[str, float]:
        """The means of the probe's groups that are logged, under names such as ``drift_ref.<group>``."""
        tags = group_keys(self.probe.groups or ()) if metric in GROUPED else {}
        return {f"{metric}.{tags[t]}": aggregated[f"group:{t}"] for t in tags if len(tags) <= MOST_GROUPS}

    def _known(self, grid: tuple[int, int]) -> dict[str, Array]:
        """What is known about the probe on a grid: (N, h, w) coverage by the target's region, and by the suspected one."""
        if grid not in self._regions:
            regions, known = self.probe.regions(grid), {}
            if regions is not None:
                known["region"] = regions
            if self.probe.nuisance is not None:
                known["nuisance"] = coverage(self.probe.nuisance, grid)
            self._regions[grid] = known
        return self._regions[grid]


def _explainable(there: NDArray[np.bool_] | None, maps: NDArray[np.float32], signed: bool) -> NDArray[np.bool_] | None:
    """(N,) images of which a map is to be expected: those that have what is explained, without those that nothing speaks for."""
    if not signed:
        return there
    empty = (maps == 0).all((1, 2))
    return ~empty if there is None else there & ~empty
