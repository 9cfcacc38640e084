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
            of = f"{alert.method} at {alert.layer}" if len(run.layers) > 1 else alert.method
            known = raised.setdefault(
                (alert.name, alert.method, alert.layer),
                {
                    "name": printable(f"{alert.name.replace('_', ' ')} ({of})"),
                    "method": alert.method,
                    "layer": alert.layer,
                    "text": printable(f"{alert.measured}. {alert.advice}"),
                    "places": [],
                },
            )
            known["places"].append(getattr(record, unit))
    return list(raised.values())
