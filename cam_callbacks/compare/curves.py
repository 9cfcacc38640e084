"""Curves of several runs over epochs: as data, and drawn as a small SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cam_callbacks.compare.agree import Part
from cam_callbacks.compare.load import Run
from cam_callbacks.compare.markup import escape
from cam_callbacks.compare.numbers import NO_CURVE, Number, number, rank, shown, user_number
from cam_callbacks.compare.table import axis

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 34

_MOST_DOTS = 60  # of a curve; more would be a band, and a page of megabytes
_SHAPES = (  # drawn around 0, 0; runs differ in more than colour
    '<circle r="3.2"/>',
    '<path d="M-3 -3H3V3H-3Z"/>',
    '<path d="M0 -4L3.8 3H-3.8Z"/>',
    '<path d="M0 -4.2L4.2 0L0 4.2L-4.2 0Z"/>',
    '<path d="M-3.8 -3H3.8L0 4Z"/>',
)


@dataclass(frozen=True)
class Point:
    """A value at a place on the time axis. ``joined``: a line leads to it from the point before; False behind a gap."""

    at: int
    value: float
    joined: bool


@dataclass(frozen=True)
class Curve:
    """One run's line in a chart. ``run``: its index. ``floor``, ``ceiling``: of a drift, where known."""

    run: int
    points: tuple[Point, ...]
    floor: float | None = None
    ceiling: float | None = None


@dataclass(frozen=True)
class Chart:
    """One number of all runs over time. ``unit``: "epoch" or "look"."""

    number: Number
    unit: str
    curves: tuple[Curve, ...]

    @property
    def domain(self) -> tuple[int, int]:
        """First and last place on the time axis."""
        places = [point.at for curve in self.curves for point in curve.points]
        return (min(places), max(places)) if places else (0, 0)


def charts(runs: Sequence[Run], part: Part) -> list[Chart]:
    """The charts of one method and layer, headlines first."""
    keys = {index: runs[index].keys for index in part.runs}
    found = {
        m for of_run in keys.values() for m, method, layer in of_run if (method, layer) == (part.method, part.layer)
    }
    drawn = []
    for metric in sorted(found - NO_CURVE, key=rank):
        curves = []
        for index, of_run in keys.items():
            key = of_run.get((metric, part.method, part.layer))
            if key is None:
                continue
            reference = runs[index].reference(part.method, part.layer) if metric.startswith("drift_") else {}
            floor, ceiling = reference.get("floor"), reference.get("ceiling")
            values = [record.metrics.get(key, math.nan) for record in runs[index].records]
            curves.append(Curve(index, _points(runs, index, values), _finite(floor), _finite(ceiling)))
        drawn.append(Chart(number(metric), axis(runs), tuple(curves)))
    return sorted(drawn, key=lambda chart: not chart.number.headline)


def user_charts(runs: Sequence[Run]) -> list[Chart]:
    """A chart for each number that the trainer logged itself."""
    names = {key for run in runs for record in run.records for key in record.user_metrics if not key.startswith("cam/")}
    drawn = []
    for name in sorted(names):
        curves = []
        for index, run in enumerate(runs):
            values = [record.user_metrics.get(name, math.nan) for record in run.records]
            if any(map(math.isfinite, values)):
                curves.append(Curve(index, _points(runs, index, values)))
        if curves:
            drawn.append(Chart(user_number(name), axis(runs), tuple(curves)))
    return drawn


def svg(chart: Chart, names: Sequence[str], label: str) -> str:
    """The chart as an SVG element that scales with its page; runs are coloured by the classes ``run-0``, ``run-1``, …

    Args:
        chart: What to draw.
        names: Of all runs, by index.
        label: What a screen reader says.
    """
    low, high = _limits(chart)
    ticks = _ticks(low, high, 4)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    first, last = chart.domain

    def x(at: float) -> float:
        share = 0.5 if first == last else (at - first) / (last - first)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    for tick in ticks:
        parts.append(f'<path class="grid" d="M{LEFT} {y(tick)}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y(tick) + 4}" text-anchor="end">{tick:g}</text>')
    for place in _places(first, last):
        parts.append(
            f'<text class="tick" x="{x(place)}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{place}</text>'
        )
    parts.append(f'<text class="unit" x="{WIDTH - RIGHT}" y="{HEIGHT - 3}" text-anchor="end">{chart.unit}</text>')
    if chart.number.mark and low <= chart.number.mark[0] <= high:
        value, word = chart.number.mark
        parts.append(f'<path class="mark" d="M{LEFT} {y(value)}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="word" x="{WIDTH - RIGHT}" y="{y(value) - 4}" text-anchor="end">{word}</text>')
    for curve in chart.curves:
        parts.append(f'<g class="curve run-{curve.run % 10}" data-run="{curve.run}">')
        if curve.floor is not None and curve.floor > low:
            top, bottom = y(curve.floor), y(low)
            said = f"{escape(names[curve.run])} · noise floor {shown(curve.floor)}"
            parts.append(f'<rect class="floor" x="{LEFT}" y="{top}" width="{WIDTH - LEFT - RIGHT}" ')
            parts.append(f'height="{max(0.0, round(bottom - top, 1))}"><title>{said}</title></rect>')
            parts.append(f'<path class="floor-line" d="M{LEFT} {top}H{WIDTH - RIGHT}"/>')
        steps = " ".join(f"{'L' if p.joined else 'M'}{x(p.at)} {y(p.value)}" for p in curve.points)
        parts.append(f'<path class="line" d="{steps}"/>')
        for point in _dots(curve.points):
            said = f"{escape(names[curve.run])} · {chart.unit} {point.at}: {shown(point.value)}"
            shape = _SHAPES[curve.run % len(_SHAPES)]
            parts.append(
                f'<g class="dot" transform="translate({x(point.at)} {y(point.value)})">{shape}<title>{said}</title></g>'
            )
        parts.append("</g>")
    parts.append(f'<path class="cursor" d="M0 {TOP}V{HEIGHT - BOTTOM}" visibility="hidden"/></svg>')
    return "".join(parts)


def swatch(run: int) -> str:
    """The sign of a run in legends: its colour and its shape."""
    return (
        f'<svg class="swatch run-{run % 10}" viewBox="-11 -6 22 12" aria-hidden="true">'
        f'<path class="line" d="M-11 0H11"/><g class="dot">{_SHAPES[run % len(_SHAPES)]}</g></svg>'
    )


def _points(runs: Sequence[Run], index: int, values: Sequence[float]) -> tuple[Point, ...]:
    """The finite values; a point behind an undefined value or a missing look is not joined to the one before."""
    unit, records = axis(runs), runs[index].records
    points: list[Point] = []
    before: int | None = None
    for record, value in zip(records, values, strict=True):
        if not math.isfinite(value):
            before = None
            continue
        points.append(Point(getattr(record, unit), value, joined=before is not None and record.look == before + 1))
        before = record.look
    return tuple(points)


def _dots(points: Sequence[Point]) -> Iterator[Point]:
    """Points with a mark of their own: all of a short curve; of a long one a share, the last, lone ones."""
    every = math.ceil(len(points) / _MOST_DOTS)
    for place, point in enumerate(points):
        followed = place + 1 < len(points) and points[place + 1].joined
        if place % every == 0 or place == len(points) - 1 or not (point.joined or followed):
            yield point


def _limits(chart: Chart) -> tuple[float, float]:
    values = [point.value for curve in chart.curves for point in curve.points]
    values += [1.25 * curve.floor for curve in chart.curves if curve.floor is not None]
    values += chart.number.span or ()
    low, high = min(values, default=0.0), max(values, default=1.0)
    if 0 < low < 0.6 * high:
        low = 0.0
    if high - low < 1e-9 * max(abs(high), 1e-9):
        low, high = low - abs(low) * 0.1 - 1e-3, high + abs(high) * 0.1 + 1e-3
    return low, high


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers that reach from at most ``low`` to at least ``high``."""
    rough = (high - low) / about
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= rough * 0.999)
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(start, stop + 1)]


def _places(first: int, last: int) -> list[int]:
    step = max(1, math.ceil((last - first) / 6))
    step = next((nice for nice in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if nice >= step), step)
    inside = [place for place in range(first - first % step, last + 1, step) if place >= first]
    return inside


def _finite(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
