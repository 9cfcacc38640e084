"""Gates applied to runs, or to groups of runs."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cam_callbacks.compare.agree import Agreement
from cam_callbacks.compare.gate import Gate, GateError, Lookup
from cam_callbacks.compare.load import Run
from cam_callbacks.compare.numbers import number, shown, user_number
from cam_callbacks.keys import per_image_key

Key = tuple[str, str, str]  # metric, method, layer; a user's metric has no method


@dataclass(frozen=True)
class Verdict:
    """What a gate says of one run or group: ``failed``, and the values that it looked at, in words."""

    gate: str
    name: str
    failed: bool
    values: dict[str, float]

    def __str__(self) -> str:
        values = ", ".join(f"{name} = {shown(value)}" for name, value in self.values.items())
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
        found = [_value(runs[index], function, metric) for index in of]
        value = float(np.mean(found)) if found else math.nan
        values[metric if function == "last" else f"{function}({metric})"] = value
        return value

    return lookup


def _check_comparable(
    runs: Sequence[Run], agreed: Agreement, members: Sequence[int], first: Sequence[int], metric: str
) -> None:
    for index in members:
        for other in first:
            kind, method, layer = _key(runs[other], metric)
            if not agreed.comparable(kind, method, layer, index, other):
                why = " ".join(agreed.differences) or "they differ."
                raise GateError(
                    f"{metric} of {runs[index].name!r} must not be compared with {runs[other].name!r}: {why}"
                )


def _value(run: Run, function: str, metric: str) -> float:
    kind, method, layer = _key(run, metric)
    last = run.records[-1]
    if function in ("median", "worst_tenth", "worst_class"):
        if not method:
            raise GateError(f"{function}({metric}): only numbers of the maps are known for each image.")
        known = last.aggregates.get(per_image_key(kind, method, layer, run.layers), {})
        return float(known.get(function, math.nan))
    curve = [r.metrics.get(run.keys[kind, method, layer], math.nan) if (kind, method, layer) in run.keys
             else r.user_metrics.get(kind, math.nan) for r in run.records]  # fmt: skip
    if function != "best":
        return curve[-1]
    better = (number(kind) if method else user_number(kind)).better
    if better is None:
        raise GateError(f"best({metric}): of this number neither more nor less is better.")
    defined = [value for value in curve if math.isfinite(value)]
    return (max if better == "higher" else min)(defined, default=math.nan)


def _key(run: Run, metric: str) -> Key:
    """What a name in a condition means in a run.

    Raises:
        GateError: Nothing, or several things.
    """
    wanted = metric.removeprefix("cam/")
    found = [key for key in run.keys if wanted in _names(key)]
    if len(found) > 1:
        listed = ", ".join("/".join(key) for key in found)
        raise GateError(f"{metric!r} in {run.name!r} may be any of {listed}; name one of them.")
    if found:
        return found[0]
    users = {name for record in run.records for name in record.user_metrics}
    if metric in users:
        return (metric, "", "")
    known = [*("/".join(filter(None, key[:2])) for key in run.keys), *sorted(users)]
    near = difflib.get_close_matches(wanted, known, 3, 0.5) or known[:5]
    raise GateError(f"{run.name!r} has no metric {metric!r}; nearest: {', '.join(near)}.")


def _names(key: Key) -> set[str]:
    metric, method, layer = key
    if not method:
        return {metric}
    methods = {method, method.replace("+", "p")}
    return {f"{metric}/{m}" for m in methods} | {f"{metric}/{m}/{layer}" for m in methods}
