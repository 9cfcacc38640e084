"""When alerts are raised, from the statistics of a run's looks: by the product's own code, with any thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cam_callbacks.calibration import Calibration, Series, largest
from cam_callbacks.look.alerts import States, judge
from cam_callbacks.look.evidence import LookEvidence
from cam_callbacks.look.judgement import Judgement, Rule
from cam_callbacks.look.rules import DEFAULT

Look = Mapping[Series, float]  # the statistic of each series at a look; NaN where its rule could not judge
Alarm = tuple[int, str]  # the look at which it was raised, and the rule

ALPHA = 0.05


@dataclass(frozen=True)
class Replayed:
    """A rule that says at a look what it said before."""

    rule: Rule
    look: Look

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rule, name)

    def judge(self, evidence: Any) -> Judgement:
        series = evidence if self.rule.of == "map" else ("", "")
        return Judgement(self.look.get((self.rule.name, *series), math.nan))


def raised(
    looks: Sequence[Look], calibration: Calibration | None = None, rules: Sequence[Rule] = DEFAULT
) -> list[Alarm]:
    """Every alarm of a run, in order. A rule of which the looks hold nothing raises none."""
    states: States = {}
    found = []
    for number, look in enumerate(looks):
        maps: Any = {(method, layer): (method, layer) for _, method, layer in look if layer}
        again: Any = [Replayed(rule, look) for rule in rules]
        states, alerts, _ = judge(again, states, maps, LookEvidence(number, True, None), number, (), calibration)
        found += [(number, alert.name) for alert in alerts if alert.new]
    return list(dict.fromkeys(found))


def highest(looks: Sequence[Look], rules: Sequence[Rule] = DEFAULT) -> dict[str, float]:
    """For each rule the largest statistic of a run that would have raised it: at as many looks running as it asks for."""
    reached = largest(looks, {rule.name: rule.looks for rule in rules})
    values = {
        rule.name: [v for (name, _, _), v in reached.items() if name == rule.name and math.isfinite(v)]
        for rule in rules
    }
    return {name: max(each, default=math.nan) for name, each in values.items()}


def calibrated(runs: Mapping[str, Sequence[Look]], rules: Sequence[Rule] = DEFAULT) -> Calibration:
    """A calibration by accepted runs of any probes, which ``cam_callbacks.calibrate`` would refuse to mix. Series that none of
    them could judge are left out, so that a rule that needs what they lack keeps its own threshold."""
    running = {rule.name: rule.looks for rule in rules}
    reached = [largest(looks, running) for looks in runs.values()]
    judged = dict.fromkeys(series for of_run in reached for series, value in of_run.items() if math.isfinite(value))
    return Calibration(
        ALPHA,
        max(map(len, runs.values())),
        tuple(runs),
        {series: tuple(of_run.get(series, math.nan) for of_run in reached) for series in judged},
        {rule.name: rule.spread for rule in rules},
    )
