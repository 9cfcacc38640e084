"""The alerts that a run's records hold."""

from __future__ import annotations

from typing import Any

from cam_callbacks.compare.run import Run
from cam_callbacks.text_table import printable


def alerts(run: Run, unit: str) -> list[dict[str, Any]]:
    """For each rule, method and layer: ``raised``, what was measured when it was raised, ``now``, the same at the last look (None
    once it is cleared, at ``cleared``), ``advice``, and the ``places`` of the time axis where it was on.

    ``unit`` of the time axis is "epoch" or "look".
    """
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for record in run.records:
        place = getattr(record, unit)
        on = {(alert.name, alert.method, alert.layer): alert for alert in record.alerts}
        for key, known in found.items():
            if key not in on and known["now"] is not None:
                known |= {"now": None, "cleared": place}
        for key, alert in on.items():
            of = f"{alert.method} at {alert.layer}" if alert.method and len(run.layers) > 1 else alert.method
            known = found.setdefault(
                key,
                {
                    "rule": alert.name,
                    "name": printable(alert.name.replace("_", " ") + (f" ({of})" if of else "")),
                    "method": alert.method,
                    "layer": alert.layer,
                    "raised": printable(alert.measured),
                    "advice": printable(alert.advice),
                    "places": [],
                },
            )
            known |= {"now": printable(alert.measured), "cleared": None}
            known["places"].append(place)
    return list(found.values())


def alert_text(alert: dict[str, Any]) -> str:
    """What an alert measured when it was raised, what it measures now, and what to look at."""
    later = "" if alert["now"] in (None, alert["raised"]) else f" Now: {alert['now']}."
    return f"{alert['raised']}.{later} {alert['advice']}"


def unjudged(run: Run) -> list[dict[str, Any]]:
    """Rules that cannot judge the last look: ``rules`` by name, and the ``reason`` that they share."""
    silent: dict[str, list[str]] = {}
    for one in run.records[-1].judged:
        if one.state == "cannot judge":
            silent.setdefault(one.words, []).append(one.rule)
    return [{"rules": list(dict.fromkeys(rules)), "reason": printable(reason)} for reason, rules in silent.items()]


def untrusted(run: Run) -> list[dict[str, str]]:
    """``method`` and ``layer`` of maps that do not show what decides at the last look, and in ``text`` why."""
    return [
        {"method": one.method, "layer": one.layer, "text": printable(one.words)}
        for one in run.records[-1].judged
        if one.state == "remark"
    ]


def remarks(run: Run) -> list[str]:
    """What the last look says beside alerts: rules that cannot judge, and why; maps that do not show what decides."""
    said = [f"{run.name!r} cannot be judged by {', '.join(of['rules'])}: {of['reason']}." for of in unjudged(run)]
    return [*said, *(f"{run.name!r}, {of['method']}: {of['text']}." for of in untrusted(run))]
