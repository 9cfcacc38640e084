"""The alerts that a run's records hold."""

from __future__ import annotations

from typing import Any

from cam_callbacks.compare.run import Run
from cam_callbacks.text_table import printable


def alerts(run: Run, unit: str) -> list[dict[str, Any]]:
    """For each rule, method and layer what was said when it was raised, and the ``places`` of the time axis where it was on.

    ``unit`` of the time axis is "epoch" or "look".
    """
    raised: dict[tuple[str, str, str], dict[str, Any]] = {}
    for record in run.records:
        for alert in record.alerts:
            of = f"{alert.method} at {alert.layer}" if alert.method and len(run.layers) > 1 else alert.method
            known = raised.setdefault(
                (alert.name, alert.method, alert.layer),
                {
                    "name": printable(alert.name.replace("_", " ") + (f" ({of})" if of else "")),
                    "method": alert.method,
                    "layer": alert.layer,
                    "text": printable(f"{alert.measured}. {alert.advice}"),
                    "places": [],
                },
            )
            known["places"].append(getattr(record, unit))
    return list(raised.values())


def remarks(run: Run) -> list[str]:
    """What the last look says beside alerts: rules that cannot judge, and why; maps that do not show what decides."""
    judged = run.records[-1].judged
    silent: dict[str, list[str]] = {}
    for one in judged:
        if one.state == "cannot judge":
            silent.setdefault(one.words, []).append(one.rule)
    names = {reason: ", ".join(dict.fromkeys(rules)) for reason, rules in silent.items()}
    said = [f"{run.name!r} cannot be judged by {rules}: {reason}." for reason, rules in names.items()]
    remarked = [f"{run.name!r}, {one.method}: {one.words}." for one in judged if one.state == "remark"]
    return [*said, *remarked]
