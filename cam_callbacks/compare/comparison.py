"""Several runs side by side, from one call."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from cam_callbacks.compare.agree import Agreement, agreement
from cam_callbacks.compare.alerts import alert_text, alerts
from cam_callbacks.compare.data import page_data
from cam_callbacks.compare.divergence import divergence
from cam_callbacks.compare.frame import frame_of
from cam_callbacks.compare.gate import parse_gate
from cam_callbacks.compare.groups import Grouped, grouped, tables, text_groups
from cam_callbacks.compare.judge import Verdict, judge
from cam_callbacks.compare.page import render_page
from cam_callbacks.compare.run import Run
from cam_callbacks.compare.select import Spec, select_runs
from cam_callbacks.compare.table import Group, axis, table, text_table
from cam_callbacks.compare.to_mlflow import log_comparison
from cam_callbacks.compare.verdict import said, verdict
from cam_callbacks.records.files import write_atomically
from cam_callbacks.text_table import printable

if TYPE_CHECKING:
    import pandas


class ComparabilityError(ValueError):
    """Runs that differ in something that a strict comparison does not put up with; says in what.

    >>> from cam_callbacks.compare import ComparabilityError, compare_runs
    >>> _ = CAMMonitor(ProbeSet(images[:4], labels[:4]), folder="runs/other").look(model)
    >>> try:
    ...     compare_runs("runs/one", "runs/other", strict=True)
    ... except ComparabilityError as error:
    ...     print(str(error).partition(":")[0])
    the runs are not comparable
    """


@dataclass(frozen=True, eq=False)
class Comparison:
    """What :func:`compare_runs` returns; the work is done when something is asked for.

    ``runs``: each of a name of its own. ``left_out``: a line for each run that could not be read. ``group_by``: the parameter
    whose values make groups of runs, such as seeds of one setting.

    >>> from cam_callbacks.compare import compare_runs
    >>> comparison = compare_runs("runs/one", "runs/two")
    >>> [run.name for run in comparison.runs], comparison.write("comparison.html").name
    (['one', 'two'], 'comparison.html')
    >>> [verdict.failed for verdict in comparison.judge("cam/entropy/gradcam > 0.99")]
    [False, False]
    """

    runs: Sequence[Run]
    left_out: tuple[str, ...] = ()
    group_by: str | None = None

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("a comparison needs at least one run, got none.")

    @cached_property
    def agreed(self) -> Agreement:
        """What of the runs may be compared, and in its ``notes`` what differs."""
        return agreement(self.runs)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, what differs, and what else is worth knowing; a sentence each."""
        return (*(f"Left out: {line}" for line in self.left_out), *self.agreed.notes)

    @cached_property
    def table(self) -> tuple[Group, ...]:
        """Final and best value of each number, in groups by method and layer."""
        return table(self.runs, self.agreed)

    @cached_property
    def groups(self) -> Grouped | None:
        """Mean and spread over the runs of each group; None without ``group_by``."""
        return None if self.group_by is None else grouped(self.runs, self.agreed, self.group_by)

    @cached_property
    def data(self) -> dict[str, Any]:
        """What the page shows, as plain values."""
        data = page_data(self.runs)
        data["notes"] = [*(printable(f"Left out: {line}") for line in self.left_out), *data["notes"]]
        data["tables"] = [] if self.groups is None else tables(self.groups)
        return data

    def judge(self, condition: str) -> list[Verdict]:
        """Does a condition such as ``"on_target_enrichment/gradcam < baseline - 0.2"`` hold, for each run, or for each group?

        The baseline is the first run or group. The grammar is in :mod:`cam_callbacks.compare.gate`.

        Raises:
            GateError: A condition that is not understood, or a number that is not there or must not be compared.
        """
        members = None if self.groups is None else dict(zip(self.groups.names, self.groups.members, strict=True))
        return judge(parse_gate(condition), self.runs, self.agreed, members)

    def text(self, width: int = 100) -> str:
        """The tables, the notes, and a verdict on each run, for a terminal of ``width`` columns."""
        parts = [text_table(self.runs, self.agreed, width)]
        if self.left_out:
            parts += [f"! Left out: {printable(line)}" for line in self.left_out]
        unit = axis(self.runs)
        for run in self.runs:
            for alert in alerts(run, unit):
                since = f"{unit} {alert['places'][0]}"
                parts.append(f"▲ {printable(run.name)}: {alert['name']} since {since}: {alert_text(alert)}")
        if self.groups is not None:
            parts += ["", text_groups(self.groups)]
        verdicts = (fill(said(run, self.runs), width, subsequent_indent="  ") for run in self.runs)
        return "\n".join([*parts, "", *verdicts])

    def numbers(self) -> dict[str, Any]:
        """The numbers as plain values for JSON; None where one is undefined."""
        names = [run.name for run in self.runs]
        unit = axis(self.runs)
        return {
            "runs": [
                {"name": run.name, "source": run.source, "looks": len(run.records), "epoch": run.records[-1].epoch,
                 "params": run.params, "verdict": verdict(run, self.runs), "alerts": alerts(run, unit)}
                for run in self.runs
            ],
            "comparable": not self.agreed.differences,
            "same_probe": self.agreed.same_probe,
            "notes": list(self.notes),
            "numbers": [
                {"metric": row.number.key, "of": group.title, "better": row.number.better,
                 "runs": {name: cell and {"final": _plain(cell.final), "best": _plain(cell.best), "best_at": cell.best_at}
                          for name, cell in zip(names, row.cells, strict=True)}}
                for group in self.table for row in group.rows
            ],
            "divergence": [
                {"of": part.title, "runs": [names[index] for index in part.runs],
                 "jsd": [[_plain(value) for value in row] for row in jsd]}
                for part in self.agreed.parts if (jsd := divergence(self.runs, part))
            ],
            "groups": None if self.groups is None else _grouped_numbers(self.groups),
        }  # fmt: skip

    def json(self, **more: Any) -> str:
        """:meth:`numbers`, and what is passed beside, as JSON."""
        return json.dumps(self.numbers() | more, indent=1, allow_nan=False)

    def frame(self) -> pandas.DataFrame:
        """The numbers of every look, as :func:`load_runs` gives them."""
        return frame_of(self.runs, self.left_out)

    def page(self) -> str:
        """The self-contained HTML page."""
        return render_page(self.data)

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the page to a file, whole or not at all; missing folders are made."""
        return write_atomically(Path(path), self.page().encode())

    def log(self, tracking_uri: str | None = None, experiment: str | None = None) -> str:
        """Write the page and a table into an MLflow run of its own; returns the run's id."""
        return log_comparison(self.runs, self.table, self.page(), tracking_uri, experiment)


def compare_runs(
    *runs: Run | Spec,
    tracking_uri: str | None = None,
    last: int | None = None,
    query: str | None = None,
    group_by: str | None = None,
    strict: bool = False,
) -> Comparison:
    """Compare runs.

    Args:
        runs, tracking_uri, last, query: As for :func:`~cam_callbacks.compare.select.select_runs`. The first is the one that the
            others are compared with.
        group_by: A parameter whose values make groups of runs; see :mod:`cam_callbacks.compare.groups`.
        strict: Refuse runs that may not be compared in everything, and runs that cannot be read.

    Raises:
        LoadError: A run cannot be found or read; no run has the parameter ``group_by``.
        ComparabilityError: With ``strict``, what differs.

    >>> from cam_callbacks.compare import compare_runs
    >>> comparison = compare_runs("runs")  # a folder of runs, or several, or "experiment:NAME"
    >>> frame = comparison.frame()
    >>> frame.shape[0], comparison.write("comparison.html").name
    (4, 'comparison.html')
    """
    selection = select_runs(runs, tracking_uri, last, query)
    comparison = Comparison(selection.runs, selection.left_out, group_by)
    if strict and (wrong := (*selection.left_out, *comparison.agreed.differences)):
        raise ComparabilityError(f"the runs are not comparable: {' '.join(wrong)}")
    _ = comparison.groups  # a parameter that no run has is said now
    return comparison


def _grouped_numbers(groups: Grouped) -> dict[str, Any]:
    return {
        "by": groups.by,
        "members": {name: list(of) for name, of in zip(groups.names, groups.members, strict=True)},
        "numbers": [
            {"metric": row.number.key, "of": row.title, "spread": _plain(row.spread),
             "groups": {name: {"n": s.n, "mean": _plain(s.mean), "std": _plain(s.std), "within_spread": row.within(i)}
                        for i, (name, s) in enumerate(zip(groups.names, row.spreads, strict=True))}}
            for row in groups.rows
        ],
    }  # fmt: skip


def _plain(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
