"""What is known about each number: one description, wherever it is measured, tabled or drawn.

A metric is one pure function and one line in :mod:`cam_engine.metrics.catalogue`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from cam_engine.errors import nearest
from cam_engine.metrics.distribution import Float

End = Literal["high", "low"]

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
_CONDITIONS = {"region": "with masks or boxes", "nuisance": "with `nuisance=`", "score": "extra forwards"}


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is known about a number.

    ``title``: for people, in a table. ``meaning``: how to read it, in a sentence. ``range``: in words. ``worse``: the bad end,
    which the worst tenth and the worst class are taken from. ``verdict``: whether that end is bad by itself; else the number is
    a magnitude. ``neutral``: what monitors find while there has been no value. ``mark``: a value worth a line in a chart, and
    what it stands for. ``measured``: when.

    >>> from cam_engine.metrics import describe
    >>> of_entropy = describe("entropy")
    >>> of_entropy.title, of_entropy.range, of_entropy.worse, of_entropy.verdict
    ('entropy', '0–1', 'high', False)
    """

    name: str
    title: str
    meaning: str = ""
    range: str = ""
    worse: End = "high"
    verdict: bool = False
    neutral: float = 0.0
    mark: tuple[float, str] | None = None
    measured: str = "always"

    @property
    def better(self) -> Literal["higher", "lower"] | None:
        """The direction that is better; None for a magnitude."""
        if not self.verdict:
            return None
        return "higher" if self.worse == "low" else "lower"


@dataclass(frozen=True, kw_only=True)
class Metric(Description):
    """A number of each image: ``function(*needs) -> (N,)``; whether every look measures it (``default``).

    >>> from cam_engine.metrics import get_metrics
    >>> metric = get_metrics(["gini"])[-1]
    >>> metric.name, metric.needs
    ('gini', ('maps',))
    """

    function: Callable[..., Float]
    needs: tuple[str, ...]
    default: bool

    @property
    def costs_forwards(self) -> bool:
        return "score" in self.needs


_METRICS: dict[str, Metric] = {}
_OTHERS: dict[str, Description] = {}


def register_metric(
    name: str,
    function: Callable[..., Float],
    needs: Sequence[str] = ("maps",),
    *,
    worse: End = "high",
    verdict: bool = False,
    neutral: float = 0.0,
    default: bool = False,
    title: str = "",
    meaning: str = "",
    range: str = "",
    mark: tuple[float, str] | None = None,
) -> None:
    """Make a number known under ``name``; from then on ``CAMCallback(metrics=[name])`` measures it.

    Args:
        name: Stands in metric keys; letters, digits and ``_``.
        function: Takes what ``needs`` names, in that order, and returns (N,), NaN where undefined.
        needs: Keys of :data:`NEEDS`.
        worse: The bad end: which images are in the worst tenth.
        verdict: That end is bad by itself, so that a comparison names a best value; else the number is a magnitude.
        neutral: Logged while there has been no value.
        default: Measure it at every look, asked for or not.
        title: In tables and over charts; by default the name with spaces.
        meaning: How to read it, in a sentence.
        range: In words, such as "0–1".
        mark: A value worth a line in its chart and what it stands for, such as ``(1.0, "chance")``.

    Raises:
        ValueError: A name that cannot stand in a key, or an unknown need.

    >>> from cam_engine.metrics import distributions, register_metric
    >>> def upper_half(maps):
    ...     shares = distributions(maps)  # each sums to 1; NaN where there is no map
    ...     return shares[:, : shares.shape[1] // 2].sum((1, 2))
    >>> register_metric("upper_half", upper_half, title="upper half", meaning="Share of the focus above the middle.", range="0–1")
    """
    if unknown := [need for need in needs if need not in NEEDS]:
        raise ValueError(f"metric {name!r}: unknown needs {unknown}; a metric may take {', '.join(NEEDS)}.")
    if not name.isidentifier():
        raise ValueError(f"a metric's name stands in keys; {name!r} must be letters, digits and '_'.")
    conditions = [_CONDITIONS[need] for need in needs if need in _CONDITIONS]
    measured = ", ".join(([] if default else ["asked for"]) + conditions) or "always"
    _METRICS[name] = Metric(
        name=name, title=title or _plain_title(name), meaning=meaning, range=range, worse=worse, verdict=verdict,
        neutral=neutral, mark=mark, measured=measured, function=function, needs=tuple(needs), default=default,
    )  # fmt: skip


def register_number(description: Description) -> None:
    """Describe a number that is no metric of single images, but derived from some or measured of a whole look.

    >>> from cam_engine.metrics import Description, describe, register_number
    >>> register_number(Description(name="lucky", title="Lucky looks", range="0–1", worse="low"))
    >>> describe("lucky").title
    'Lucky looks'
    """
    _OTHERS[description.name] = description


def available_metrics() -> list[str]:
    """Names of all registered metrics, in order.

    >>> from cam_engine.metrics import available_metrics
    >>> available_metrics()[:3]
    ['drift_ref', 'drift_prev', 'on_target_enrichment']
    """
    return list(_METRICS)


def get_metrics(names: str | Sequence[str] = ()) -> list[Metric]:
    """The default metrics and those named, in order; ``"all"`` is all that need no extra forward.

    Raises:
        ValueError: No such metric; names the nearest.

    >>> from cam_engine.metrics import get_metrics
    >>> [metric.name for metric in get_metrics(["gini"]) if not metric.default]
    ['gini']
    """
    chosen = [names] if isinstance(names, str) else list(names)
    for name in chosen:
        if name not in _METRICS and name != "all":
            near = nearest(str(name), _METRICS)
            raise ValueError(f"no metric {name!r}; nearest: {near}. Available: all, {', '.join(_METRICS)}.")
    every = "all" in chosen
    return [m for m in _METRICS.values() if m.default or m.name in chosen or (every and not m.costs_forwards)]


def describe(name: str) -> Description:
    """What is known about a number; of one that is not registered, its name as a title.

    >>> from cam_engine.metrics import describe
    >>> describe("on_target_enrichment").meaning, describe("my_number").title
    ('Attention on the target against its share, both summed over images. 1 is chance, below 1 looks elsewhere.', 'my number')
    """
    return _METRICS.get(name) or _OTHERS.get(name) or Description(name=name, title=_plain_title(name))


def descriptions() -> list[Description]:
    """All numbers that are known, metrics first, in order.

    >>> from cam_engine.metrics import descriptions
    >>> [number.name for number in descriptions()][:3]
    ['drift_ref', 'drift_prev', 'on_target_enrichment']
    """
    return [*_METRICS.values(), *_OTHERS.values()]


def _plain_title(name: str) -> str:
    return name.replace("_", " ")
