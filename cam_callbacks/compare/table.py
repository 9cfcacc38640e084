"""The numbers of several runs side by side: as data, and as text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cam_callbacks.compare.agree import ENRICHMENTS, Agreement, agreement
from cam_callbacks.compare.alerts import remarks
from cam_callbacks.compare.numbers import Number, number, rank, user_number, value_text
from cam_callbacks.compare.run import Run
from cam_callbacks.text_table import fit, line, printable, shorten

_FIRST, _COLUMN, _FINAL = 25, 25, 10  # characters: three runs in a line of 100


@dataclass(frozen=True)
class Cell:
    """One number of one run. ``best`` and its ``best_at`` are None where no direction is better. NaN: undefined."""

    final: float
    best: float | None = None
    best_at: int | None = None


@dataclass(frozen=True)
class Row:
    """One number of all runs; None for a run in which it is not compared or was not measured."""

    number: Number
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Group:
    """The rows of one method and layer, or of what belongs to none: ``method`` is "" there."""

    title: str
    rows: tuple[Row, ...]
    method: str = ""


def axis(runs: Sequence[Run]) -> str:
    """What stands on the time axis: "epoch", or "look" where a run looked more than once in an epoch."""
    unique = all(len({record.epoch for record in run.records}) == len(run.records) for run in runs)
    return "epoch" if unique else "look"


def table(runs: Sequence[Run], agreed: Agreement | None = None) -> tuple[Group, ...]:
    """Final and best value of each number: the trainer's own, then by method and layer, then what the looks cost."""
    agreed = agreed or agreement(runs)
    unit = axis(runs)
    groups = [Group("logged by the trainer", _user_rows(runs, unit))]
    for part in agreed.parts:
        of_runs = dict.fromkeys(part.runs, (part.method, part.layer))
        groups.append(Group(part.title, _rows(runs, agreed, of_runs, unit), part.method))
    for across in agreed.across:
        of_runs = {i: (across.method, layer) for i, layer in across.layers.items()}
        rows = _rows(runs, agreed, of_runs, unit)
        groups.append(Group(across.title, tuple(row for row in rows if row.number.key in ENRICHMENTS), across.method))
    of_runs = dict.fromkeys(range(len(runs)), ("", ""))
    groups.append(Group("looks", _rows(runs, agreed, of_runs, unit)))
    return tuple(group for group in groups if group.rows)


def text_table(runs: Sequence[Run], agreed: Agreement | None = None, width: int = 100) -> str:
    """The table for a terminal: at most ``width`` columns wide, as many blocks as the runs need; notes below."""
    agreed = agreed or agreement(runs)
    groups = table(runs, agreed)
    at_once = max(1, (width - _FIRST) // _COLUMN)
    unit = axis(runs)
    lines = []
    for start in range(0, len(runs), at_once):
        chosen = range(start, min(start + at_once, len(runs)))
        lines += _head([runs[index].name for index in chosen])
        for group in groups:
            lines += ["", fit(printable(group.title), _FIRST + _COLUMN * len(chosen)).rstrip()]
            lines += [_line(row, [row.cells[index] for index in chosen]) for row in group.rows]
        lines.append("")
    lines.append(f"↑ more is better, ↓ less is better; best @ {unit}. Without an arrow: a magnitude, not a verdict.")
    lines += [f"! {printable(note)}" for note in agreed.notes]
    lines += [f"· {printable(remark)}" for run in runs for remark in remarks(run)]
    return "\n".join(lines)


def _user_rows(runs: Sequence[Run], unit: str) -> tuple[Row, ...]:
    """A row for each number that the trainers logged themselves."""
    rows = []
    for name in sorted({name for run in runs for name in run.user_names}):
        known = user_number(name)
        cells = [_cell(run, run.user_curve(name), known, unit) if name in run.user_names else None for run in runs]
        rows.append(Row(known, tuple(cells)))
    return tuple(rows)


def _rows(runs: Sequence[Run], agreed: Agreement, of_runs: Mapping[int, tuple[str, str]], unit: str) -> tuple[Row, ...]:
    """A row for each number of the method and layer that ``of_runs`` names for each run (by index)."""
    keys = {
        i: {key.metric: key for key in runs[i].keys if (key.method, key.layer) == of and key.rule is None}
        for i, of in of_runs.items()
    }
    rows = []
    for metric in sorted({metric for of_run in keys.values() for metric in of_run}, key=rank):
        known = number(metric)
        cells: list[Cell | None] = [None] * len(runs)
        for i in keys.keys() - agreed.other_regions.get(metric, frozenset()):
            if metric in keys[i]:
                cells[i] = _cell(runs[i], runs[i].curve(keys[i][metric]), known, unit)
        rows.append(Row(known, tuple(cells)))
    return tuple(rows)


def _cell(run: Run, curve: Sequence[float], known: Number, unit: str) -> Cell:
    defined = [(i, value) for i, value in enumerate(curve) if math.isfinite(value)]
    if known.better is None or not defined:
        return Cell(curve[-1])
    best = max if known.better == "higher" else min
    at, value = best(defined, key=lambda point: point[1])  # of equal values the first
    return Cell(curve[-1], value, getattr(run.records[at], unit))


def _head(names: Sequence[str]) -> list[str]:
    titles = [f"  {shorten(printable(name), _COLUMN - 2)}" for name in names]
    columns = ["final", "best"] * len(names)
    return [line(["", *titles], _widths(len(names), _COLUMN), "<>"), line(["", *columns], _widths(len(names)), "<>")]


def _line(row: Row, cells: Sequence[Cell | None]) -> str:
    arrow = {"higher": " ↑", "lower": " ↓", None: ""}[row.number.better]
    texts = [f"  {shorten(printable(row.number.title), _FIRST - 2 - len(arrow))}{arrow}"]
    for cell in cells:
        best = f"{value_text(cell.best)} @ {cell.best_at}" if cell and cell.best is not None else ""
        texts += [value_text(cell.final if cell else None), best]
    return line(texts, _widths(len(cells)), "<>")


def _widths(runs: int, *of_run: int) -> list[int]:
    return [_FIRST, *(of_run or (_FINAL, _COLUMN - _FINAL)) * runs]
