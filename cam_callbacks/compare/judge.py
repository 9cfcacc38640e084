"""Gates applied to runs, or to groups of runs."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cam_callbacks.compare.agree import Agreement
from cam_callbacks.compare.gate import Gate, GateError, Lookup
from cam_callbacks.compare.numbers import number, user_number, value_text
from cam_callbacks.compare.run import Run
from cam_callbacks.keys import Key


@dataclass(frozen=True)
class Verdict:
    """What a gate says of one run or group: ``failed``, and the values that it looked at, in words."""

    gate: str
    name: str
    failed: bool
    values: dict[str, float]

    def __str__(self) -> str:
        values = ", ".join(f"{name} = {value_text(value)}" for name, value in self.values.items())
        return f"{'FAILED' if self.failed else 'passed'} {self.name}: {self.gate} ({values})"


def judge(
    gate: Gate, runs: Sequence[Run], agreed: Agreement, groups: dict[str, tuple[int, ...]] | None = None
) -> list[Verdict]:
    """Apply a gate to every run, or to every group, whose values are means over its runs.

    With a baseline, which is the first run or group, it is applied to the others.

    Raises:
        GateError: A metric that a run does not have, that is ambiguous, or that must not be compared with the baseline's.
    """
    units = groups or {run.name: (index,) for index, run in enumerate(runs)}
    first = next(iter(units.values()))
    names = list(units)[1:] if gate.uses_baseline else list(units)
    if not names:
        raise GateError(f"{gate.text!r} compares with a baseline, the first run: name at least two.")
    verdicts = []
    for name in names:
        values: dict[str, float] = {}
        lookup = _lookup(runs, agreed, units[name], first, values)
        failed = gate.holds(lookup)
        verdicts.append(Verdict(gate.text, name, failed, values))
    return verdicts


def _lookup(
    runs: Sequence[Run], agreed: Agreement, members: Sequence[int], first: Sequence[int], values: dict[str, float]
) -> Lookup:
    def lookup(function: str, metric: str) -> float:
        of = first if function == "baseline" else members
        if function == "baseline":
            _check_comparable(runs, agreed, members, first, metric)
        of_members = [_value(runs[index], function, metric) for index in of]
        value = float(np.mean(of_members)) if of_members else math.nan
        values[metric if function == "last" else f"{function}({metric})"] = value
        return value

    return lookup


def _check_comparable(
    runs: Sequence[Run], agreed: Agreement, members: Sequence[int], first: Sequence[int], metric: str
) -> None:
    for index in members:
        for other in first:
            if not agreed.comparable(_key(runs[other], metric), index, other):
                why = " ".join(agreed.differences) or "they differ."
                raise GateError(
                    f"{metric} of {runs[index].name!r} must not be compared with {runs[other].name!r}: {why}"
                )


def _value(run: Run, function: str, metric: str) -> float:
    key = _key(run, metric)
    if function in ("median", "worst_tenth", "worst_class"):
        if not key.method:
            raise GateError(f"{function}({metric}): only numbers of the maps are known for each image.")
        return float(run.records[-1].aggregates.get(key.filed(run.layers), {}).get(function, math.nan))
    users = key not in run.keys
    curve = run.user_curve(key.metric) if users else run.curve(key)
    if function != "best":
        return curve[-1]
    better = (user_number(key.metric) if users else number(key.metric)).better
    if better is None:
        raise GateError(f"best({metric}): of this number neither more nor less is better.")
    defined = [value for value in curve if math.isfinite(value)]
    return (max if better == "higher" else min)(defined, default=math.nan)


def _key(run: Run, metric: str) -> Key:
    """What a name in a condition means in a run.

    Raises:
        GateError: Nothing, or several things.
    """
    name = metric.removeprefix("cam/")
    matching = [key for key in run.keys if name in key.spellings()]
    if len(matching) > 1:
        raise GateError(f"{metric!r} in {run.name!r} may be any of {', '.join(map(str, matching))}; name one of them.")
    if matching:
        return matching[0]
    if metric in run.user_names:
        return Key(metric)
    known = [*(str(Key(key.metric, key.method)) for key in run.keys), *run.user_names]
    near = difflib.get_close_matches(name, known, 3, 0.5) or known[:5]
    raise GateError(f"{run.name!r} has no metric {metric!r}; nearest: {', '.join(near)}.")
