"""What can be chosen about a look, in one value; checked as soon as it is given."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from cam_callbacks.calibration import Calibration
from cam_callbacks.keys import check_name
from cam_callbacks.look.alerts import make_rules
from cam_callbacks.look.judgement import Rule
from cam_callbacks.look.reference import Policy, kind_of, policy_of
from cam_callbacks.look.target import Target, check_target, target_name, target_on
from cam_callbacks.probe import ProbeSet
from cam_engine.capture import Forward
from cam_engine.exchange import get_part
from cam_engine.layers import LayerSpec
from cam_engine.methods import get_method
from cam_engine.metrics import Metric, get_metrics


@dataclass(frozen=True)
class LookOptions:
    """The arguments of :class:`cam_callbacks.CAMMonitor` that say how to look; they mean the same there.

    Raises:
        ValueError, TypeError, KeyError: One of them is wrong whatever the probe.
    """

    methods: str | Sequence[str] = ("eigencam", "gradcam")
    layers: LayerSpec = "auto"
    target: Target = "label"
    reference: str | int | os.PathLike[str] = "settled"
    name: str | None = None
    forward: Forward | None = None
    output: Any = None
    reshape: Callable[[Tensor], Tensor] | None = None
    batch_size: int | None = None
    seed: int = 0
    alerts: Sequence[str | Mapping[str, Any] | Rule] | None = None
    metrics: str | Sequence[str] = ()
    store_images: bool = True
    exchange: str | Sequence[str] = "auto"
    exchange_pairs: int | None = None
    calibration: str | os.PathLike[str] | None = None
    hooks: str = "run"

    def __post_init__(self) -> None:
        if not self.method_names:
            raise ValueError('methods= is empty; pass at least one name, such as "gradcam".')
        check_target(self.target)
        kind_of(self.reference)
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} must be at least 1.")
        check_name(self.name)
        make_rules(self.alerts)
        get_metrics(self.metrics)
        check_exchange(self.exchange, self.exchange_pairs)
        if self.hooks not in ("run", "rest"):
            raise ValueError(f'hooks={self.hooks!r} must be "run" or "rest".')
        _ = self.calibrated

    def on(self, probe: ProbeSet) -> LookOptions:
        """The same, for a probe: its target is what is really explained.

        Raises:
            ValueError: They do not fit this probe.
        """
        self.metrics_on(probe)
        return replace(self, target=target_on(self.target, probe))

    @property
    def method_names(self) -> tuple[str, ...]:
        """As they are registered."""
        return tuple(get_method(m).name for m in ([self.methods] if isinstance(self.methods, str) else self.methods))

    @property
    def rules(self) -> tuple[Rule, ...]:
        return make_rules(self.alerts)

    @property
    def calibrated(self) -> Calibration | None:
        """The thresholds of accepted runs, where a file of them was given."""
        return None if self.calibration is None else Calibration.load(self.calibration)

    @property
    def policy(self) -> Policy:
        """When the reference is set: ``"settled"``, ``"first"``, ``"baseline"``, or the index of a look."""
        return policy_of(self.reference)

    @property
    def target_name(self) -> str | int:
        return target_name(self.target)

    def metrics_on(self, probe: ProbeSet | None) -> list[Metric]:
        """The metrics that a probe allows; None: one that is not known yet, of which all is expected.

        Raises:
            ValueError: One was named that this probe cannot tell.
        """
        chosen = get_metrics(self.metrics)
        if probe is None:
            return chosen
        named = {self.metrics} if isinstance(self.metrics, str) else set(self.metrics)
        lacking = {"region": not probe.has_regions, "nuisance": probe.nuisance is None}
        measurable = []
        for metric in chosen:
            missing = [need for need in metric.needs if lacking.get(need)]
            if missing and metric.name in named:
                what = {"region": "masks= or boxes=", "nuisance": "nuisance="}[missing[0]]
                raise ValueError(f"metrics= names {metric.name}, which needs ProbeSet({what}); this probe has none.")
            if not missing:
                measurable.append(metric)
        return measurable


def check_exchange(parts: str | Sequence[str], donors: int | None) -> None:
    """Refuse what is wrong whatever the probe.

    Raises:
        ValueError: No such part, or no donor.
    """
    for part in [] if parts == "auto" else [parts] if isinstance(parts, str) else parts:
        get_part(part)
    if donors is not None and donors < 1:
        raise ValueError(f"exchange_pairs={donors} donors for each image: at least 1, or None for 64 mixtures a part.")
