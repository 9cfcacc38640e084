"""The list of per-image numbers that a look can measure: a metric is one pure function and one line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from cam_engine.errors import nearest
from cam_engine.metrics import drift, faithfulness, localisation, shape, shortcut
from cam_engine.metrics.distribution import Float

# What a metric may ask for, each an argument of its function, in this notation.
NEEDS = {
    "maps": "(N, h, w) of this look",
    "reference": "(N, h, w) that drift is measured against",
    "previous": "(N, h, w) of the look before",
    "region": "(N, h, w) coverage by the target's masks or boxes; without them the metric is left out",
    "nuisance": "(N, h, w) coverage by a suspected region; without one the metric is left out",
    "score": "callable images -> (N,), the explained class's probability; extra forwards",
    "images": "(N, C, H, W) tensor, as the model gets them",
    "heatmaps": "(N, H, W) in [0, 1], the maps at the images' size",
}


@dataclass(frozen=True)
class Metric:
    """``function(*needs) -> (N,)``; which end is ``worse``, for the worst tenth and class; what monitors find while there is
    no value (``neutral``); whether every look measures it (``default``)."""

    name: str
    function: Callable[..., Float]
    needs: tuple[str, ...]
    worse: Literal["high", "low"]
    neutral: float
    default: bool = False

    @property
    def costs_forwards(self) -> bool:
        return "score" in self.needs


_METRICS: dict[str, Metric] = {}


def register_metric(
    name: str,
    function: Callable[..., Float],
    needs: Sequence[str] = ("maps",),
    *,
    worse: Literal["high", "low"] = "high",
    neutral: float = 0.0,
    default: bool = False,
) -> None:
    """Make a number known under ``name``; from then on ``CAMCallback(metrics=[name])`` measures it.

    Args:
        name: Stands in metric keys; letters, digits and ``_``.
        function: Takes what ``needs`` names, in that order, and returns (N,), NaN where undefined.
        needs: Keys of :data:`NEEDS`.
        worse: The bad end.
        neutral: Logged while there has been no value.
        default: Measure it at every look, asked for or not.
    """
    if unknown := [need for need in needs if need not in NEEDS]:
        raise ValueError(f"metric {name!r}: unknown needs {unknown}; a metric may take {', '.join(NEEDS)}.")
    if not name.isidentifier():
        raise ValueError(f"a metric's name stands in keys; {name!r} must be letters, digits and '_'.")
    _METRICS[name] = Metric(name, function, tuple(needs), worse, neutral, default)


def available_metrics() -> list[str]:
    """Names of all registered metrics, in order."""
    return list(_METRICS)


def get_metrics(names: str | Sequence[str] = ()) -> list[Metric]:
    """The default metrics and those named, in order; ``"all"`` is all that need no extra forward.

    Raises:
        ValueError: No such metric; names the nearest.
    """
    asked = [names] if isinstance(names, str) else list(names)
    for name in asked:
        if name not in _METRICS and name != "all":
            near = nearest(str(name), _METRICS)
            raise ValueError(f"no metric {name!r}; nearest: {near}. Available: all, {', '.join(_METRICS)}.")
    every = "all" in asked
    return [m for m in _METRICS.values() if m.default or m.name in asked or (every and not m.costs_forwards)]


_BETWEEN, _ON, _SUSPECTED, _FORWARDS = (
    ("maps", "reference"),
    ("maps", "region"),
    ("maps", "nuisance"),
    ("score", "images", "heatmaps"),
)
register_metric("drift_ref", drift.jensen_shannon, _BETWEEN, default=True)
register_metric("drift_prev", drift.jensen_shannon, ("maps", "previous"), default=True)
register_metric("on_target_enrichment", localisation.enrichment, _ON, worse="low", neutral=1.0, default=True)
register_metric("nuisance_enrichment", localisation.enrichment, _SUSPECTED, neutral=1.0, default=True)
register_metric("entropy", shape.entropy, neutral=1.0, default=True)
register_metric("consensus", shortcut.consensus, neutral=1.0, default=True)
register_metric("centroid_shift", drift.centroid_shift, _BETWEEN, default=True)

register_metric("correlation", drift.correlation, _BETWEEN, worse="low", neutral=1.0)
register_metric("similarity", drift.similarity, _BETWEEN, worse="low", neutral=1.0)
register_metric("spearman", drift.spearman, _BETWEEN, worse="low", neutral=1.0)
register_metric("ssim", drift.ssim, _BETWEEN, worse="low", neutral=1.0)
register_metric("top_overlap", drift.top_overlap, _BETWEEN, worse="low", neutral=1.0)
register_metric("wasserstein", drift.wasserstein, _BETWEEN)

register_metric("gini", shape.gini, worse="low")
register_metric("spread", shape.spread, neutral=1.0)
register_metric("border_enrichment", shape.border_enrichment, neutral=1.0)
register_metric("top_mass", shape.top_mass, worse="low")

register_metric("on_target_mass", localisation.on_target_mass, _ON, worse="low")
register_metric("pointing_game", localisation.pointing_game, _ON, worse="low")
register_metric("rank_accuracy", localisation.rank_accuracy, _ON, worse="low")
register_metric("pixel_auc", localisation.pixel_auc, _ON, worse="low", neutral=0.5)
register_metric("nuisance_mass", localisation.on_target_mass, _SUSPECTED)

register_metric("average_drop", faithfulness.average_drop, _FORWARDS, neutral=1.0)
register_metric("confidence_increase", faithfulness.confidence_increase, _FORWARDS, worse="low")
register_metric("insertion", faithfulness.insertion, _FORWARDS, worse="low")
register_metric("deletion", faithfulness.deletion, _FORWARDS, neutral=1.0)
register_metric("road", faithfulness.road, _FORWARDS, worse="low")
