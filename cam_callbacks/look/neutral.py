"""What monitors see while there has been no value: one under every key that looks will log."""

from __future__ import annotations

from collections.abc import Sequence

from cam_callbacks.keys import metric_key, plain_key
from cam_callbacks.look.exchanged import neutral_exchange
from cam_callbacks.look.measuring import DERIVED, OF_PREDICTIONS, WHOLE
from cam_callbacks.look.options import LookOptions
from cam_callbacks.probe import ProbeSet
from cam_engine.metrics import describe


def neutral_values(
    options: LookOptions,
    layers: Sequence[str] = (),
    probe: ProbeSet | None = None,
    exchange_parts: Sequence[str] = (),
) -> dict[str, float]:
    """A value for every key of a look: no drift, everything at chance, no alert.

    Args:
        options: Of the looks.
        layers: Names of those that are watched; by default those in ``options``.
        probe: None where it is not known yet.
        exchange_parts: Parts that are tested, unless the model has been seen to be no classifier.
    """
    given = options.layers
    names = list(layers) or ([str(layer) for layer in given] if isinstance(given, (list, tuple)) else ["auto"])
    of_predictions = OF_PREDICTIONS if options.target == "predicted" else ()
    numbers = [*(metric.name for metric in options.metrics_on(probe)), *DERIVED, *of_predictions, *WHOLE]
    values = {
        metric_key(number, method, layer, names, options.name): describe(number).neutral
        for method in options.method_names
        for layer in names
        for number in numbers
    }
    values |= {plain_key(f"alert/{rule.name}", options.name): 0.0 for rule in options.rules}
    if probe is not None and probe.counterfactual is not None:
        values[plain_key("counterfactual_gap", options.name)] = describe("counterfactual_gap").neutral
    values |= neutral_exchange(exchange_parts, options.method_names, names, options.name)
    return values | {plain_key("seconds", options.name): 0.0}
