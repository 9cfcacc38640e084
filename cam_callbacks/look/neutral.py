"""What monitors see while there has been no value: one under every key that looks will log."""

from __future__ import annotations

from collections.abc import Sequence

from cam_callbacks.keys import metric_key, plain_key
from cam_callbacks.look import tracking
from cam_callbacks.look.options import LookOptions
from cam_callbacks.probe import ProbeSet


def neutral_values(options: LookOptions, layers: Sequence[str] = (), probe: ProbeSet | None = None) -> dict[str, float]:
    """A value for every key of a look: no drift, everything at chance, no alert.

    Args:
        options: Of the looks.
        layers: Names of those that are watched; by default those in ``options``.
        probe: None where it is not known yet.
    """
    given = options.layers
    names = list(layers) or ([str(layer) for layer in given] if isinstance(given, (list, tuple)) else ["auto"])
    of_series = tracking.neutral(options.metrics_on(probe), options.target == "predicted")
    values = {
        metric_key(metric, method, layer, names, options.name): value
        for method in options.method_names
        for layer in names
        for metric, value in of_series.items()
    }
    values |= {plain_key(f"alert/{rule.name}", options.name): 0.0 for rule in options.rules}
    if probe is not None and probe.counterfactual is not None:
        values[plain_key("counterfactual_gap", options.name)] = 0.0
    return values | {plain_key("seconds", options.name): 0.0}
