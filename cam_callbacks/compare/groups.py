"""Runs of one group, such as the seeds of one setting: mean and spread, and whether a difference is more than that."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cam_callbacks.compare.agree import Agreement
from cam_callbacks.compare.numbers import Number, value_text
from cam_callbacks.compare.run import LoadError, Run
from cam_callbacks.compare.table import Cell, table
from cam_callbacks.text_table import line, printable, shorten

SPREADS = 2.0
"""A difference between means up to so many standard deviations between the runs of a group is within their spread."""


@dataclass(frozen=True)
class Spread:
    """The final values of one number over the runs of a group: ``std`` is the sample's, NaN for fewer than two."""

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        return float(np.mean(self.values)) if self.values else math.nan

    @property
    def std(self) -> float:
        return float(np.std(self.values, ddof=1)) if self.n > 1 else math.nan


@dataclass(frozen=True)
class GroupedRow:
    """One number over all groups, in the order of :attr:`Grouped.names`; ``title`` is the method and layer."""

    title: str
    number: Number
    spreads: tuple[Spread, ...]

    @property
    def spread(self) -> float:
        """Standard deviation between runs of one group, pooled over the groups; NaN where no group has two runs."""
        known = [s for s in self.spreads if s.n > 1]
        degrees = sum(s.n - 1 for s in known)
        return math.sqrt(sum((s.n - 1) * s.std**2 for s in known) / degrees) if degrees else math.nan

    def within(self, group: int) -> bool | None:
        """Does a group's mean differ from the first group's by no more than runs of one group differ anyway?

        None where that is unknown: no value, or no group with two runs.
        """
        difference = abs(self.spreads[group].mean - self.spreads[0].mean)
        return difference <= SPREADS * self.spread if math.isfinite(difference + self.spread) else None


@dataclass(frozen=True)
class Grouped:
    """Runs grouped by a parameter: ``members[i]`` are the runs (by index) whose value is ``names[i]``."""

    by: str
    names: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]
    rows: tuple[GroupedRow, ...]

    def verdict(self, row: GroupedRow, group: int) -> str:
        """In words, how a group's mean stands to the first group's."""
        within = row.within(group)
        if group == 0:
            return ""
        if within is None:
            return "spread unknown: no group has two runs" if math.isnan(row.spread) else "no value"
        difference = row.spreads[group].mean - row.spreads[0].mean
        if math.isclose(row.spreads[group].mean, row.spreads[0].mean, rel_tol=1e-6):
            return "no difference"
        return f"{difference:+.3g}, {'within' if within else 'beyond'} the spread"


def grouped(runs: Sequence[Run], agreed: Agreement, by: str) -> Grouped:
    """Group runs by a parameter: one of MLflow's, of ``hparams.yaml``, or an entry of the manifest such as ``model``.

    Raises:
        LoadError: No run has that parameter.
    """
    values = [_value(run, by) for run in runs]
    if all(value is None for value in values):
        known = sorted({name for run in runs for name in run.params})
        raise LoadError(f"no run has a parameter {by!r} to group by; there are {', '.join(known) or 'none'}.")
    names = tuple(dict.fromkeys("(none)" if value is None else value for value in values))
    labels = ["(none)" if value is None else value for value in values]
    members = tuple(tuple(i for i, value in enumerate(labels) if value == name) for name in names)
    rows = [
        GroupedRow(group.title, row.number, tuple(Spread(_finite(row.cells[i] for i in of)) for of in members))
        for group in table(runs, agreed)
        for row in group.rows
    ]
    return Grouped(by, names, members, tuple(row for row in rows if any(spread.n for spread in row.spreads)))


def text_groups(groups: Grouped) -> str:
    """For a terminal: for each method and layer, a line for each number and group."""
    lines = [f"grouped by {groups.by}: mean ± standard deviation between runs (number of runs)"]
    title = None
    for row in groups.rows:
        if not (row.number.headline or row.number.better):
            continue
        if row.title != title:
            lines += ["", printable(row.title)]
            title = row.title
        for group, name in enumerate(groups.names):
            head = row.number.title if group == 0 else ""
            verdict = groups.verdict(row, group)
            cells = (f"  {head}", shorten(name, 22), mean_and_std(row.spreads[group]), verdict)
            lines.append(line(cells, (25, 24, 22, 80)))
    return "\n".join(lines)


def tables(groups: Grouped) -> list[dict[str, object]]:
    """For the page: a table with a row for each number and a column for each group."""
    note = (
        f"Mean ± standard deviation of the final values over the runs of a group. A difference from {groups.names[0]!r} of up to "
        f"{SPREADS:g} standard deviations between runs of one group, pooled over the groups, is within their spread: another "
        "seed might have made it."
    )
    rows = []
    for row in groups.rows:
        cells = [f"{row.number.title} · {row.title}"]
        for group, spread in enumerate(row.spreads):
            verdict = groups.verdict(row, group)
            cells.append(f"{mean_and_std(spread)}{f' ({verdict})' if verdict else ''}")
        rows.append(cells)
    counts = [
        f"{name} ({len(of)} run{'s' if len(of) > 1 else ''})"
        for name, of in zip(groups.names, groups.members, strict=True)
    ]
    return [{"title": f"Grouped by {groups.by}", "note": note, "head": ["final value", *counts], "rows": rows}]


def mean_and_std(spread: Spread) -> str:
    """``1.23 ± 0.04 (3)``."""
    if not spread.n:
        return "–"
    return f"{value_text(spread.mean)}{f' ± {value_text(spread.std)}' if spread.n > 1 else ''} ({spread.n})"


def _value(run: Run, by: str) -> str | None:
    value = run.params.get(by, run.manifest.get(by))
    return None if value is None or isinstance(value, dict) else printable(str(value))


def _finite(cells: Iterable[Cell | None]) -> tuple[float, ...]:
    return tuple(cell.final for cell in cells if cell is not None and math.isfinite(cell.final))
