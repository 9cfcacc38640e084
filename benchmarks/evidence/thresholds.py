"""What thresholds would cost and catch, on the part of the matrix that they are set on; the judged part is not looked at here.

``benchmarks/results/evidence_thresholds.json`` holds the table and, frozen with it, the threshold of the clusters of maps, a
rival that has none of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cam_callbacks.look.rules import DEFAULT
from evidence.alarms import highest, raised
from evidence.judge import from_plain
from evidence.plans import Training

ALLOWED = 0.05  # of healthy runs
Judged = Mapping[Training, Mapping[str, Any]]  # what judge wrote, with the training's "role"


def table(judged: Judged) -> dict[str, Any]:
    """For each rule the largest statistic of each run: quantiles over healthy runs, and over runs with a cue."""
    chosen = {training: each for training, each in judged.items() if training.part == "set"}
    looks = {training: from_plain(each["views"]["with masks"]) for training, each in chosen.items()}
    reached = {training: highest(of_run) for training, of_run in looks.items()}
    roles = {name: [t for t in chosen if chosen[t]["role"] == name] for name in ("healthy", "decides", "beside")}
    rules = {}
    for rule in DEFAULT:
        values = {name: [reached[t][rule.name] for t in of_role] for name, of_role in roles.items()}
        rules[rule.name] = {
            "above": rule.above,
            **{name: quantiles(each) for name, each in values.items()},
            "raised": {name: sum(v > rule.above for v in each) for name, each in values.items()},
        }
    gaps = [each["eigengap"] for t, each in chosen.items() if chosen[t]["role"] == "healthy"]
    return {
        "runs": {name: len(of_role) for name, of_role in roles.items()},
        "rules": rules,
        "any alarm": {name: sum(bool(raised(looks[t])) for t in of_role) for name, of_role in roles.items()},
        "alarms": {t.id: alarms for t in roles["healthy"] if (alarms := raised(looks[t]))},
        "eigengap": at_most(gaps, ALLOWED),
    }


def quantiles(values: Sequence[float]) -> dict[str, float | int | None]:
    """How many could be judged, and median, 90th, 95th percentile and largest of those."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return {"n": 0, "median": None, "90%": None, "95%": None, "largest": None}
    median, ninety, ninety_five = (float(np.quantile(finite, q)) for q in (0.5, 0.9, 0.95))
    return {"n": len(finite), "median": median, "90%": ninety, "95%": ninety_five, "largest": max(finite)}


def at_most(values: Sequence[float], share: float) -> float | None:
    """The least of these values that at most this share of them exceeds."""
    ordered = sorted(values, reverse=True)
    return ordered[math.floor(share * len(ordered))] if ordered else None


def as_text(found: Mapping[str, Any]) -> str:
    """The table in Markdown."""
    runs = found["runs"]
    lines = [
        ", ".join(f"{n} {name}" for name, n in runs.items()) + " runs, the largest statistic of each",
        "",
        "| rule | above | healthy: n | 50 % | 90 % | 95 % | largest | decides: n | 50 % | beside: n | 50 % | raised |",
        "|---" * 12 + "|",
    ]
    for name, of in found["rules"].items():
        healthy, decides, beside = of["healthy"], of["decides"], of["beside"]
        cells = [name, of["above"], *healthy.values(), decides["n"], decides["median"], beside["n"], beside["median"]]
        raised_in = " ".join(f"{n}/{runs[role]}" for role, n in of["raised"].items())
        lines.append("| " + " | ".join([*map(_cell, cells), raised_in]) + " |")
    anywhere = ", ".join(f"{n} of {runs[name]} {name}" for name, n in found["any alarm"].items())
    lines += [
        "",
        f"Any alarm: {anywhere}. Eigengap exceeded by at most 5 % of healthy runs: {_cell(found['eigengap'])}.",
    ]
    return "\n".join([*lines, *(f"- {name}: {alarms}" for name, alarms in found["alarms"].items())])


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
