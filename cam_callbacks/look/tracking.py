"""What is remembered about each series, one method on one layer, from look to look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cam_engine.metrics import Metric

Series = tuple[str, str]  # method, layer

# Beside the registered metrics: name → the bad end, and what a monitor finds while there has been no value.
DERIVED = {"focus_drift": ("high", 0.0)}
OF_PREDICTIONS = {"flip_rate": ("high", 0.0), "drift_flipped": ("high", 0.0), "drift_unflipped": ("high", 0.0)}
WHOLE = {
    "valid_frac": 0.0,
    "reference_set": 0.0,
    "noise_floor": 0.0,
    "ceiling": 1.0,
    "max_t": 0.0,
    "max_t_p": 1.0,
}


@dataclass(frozen=True, eq=False)
class Track:
    """What is remembered about a series between looks.

    ``reference``, ``previous``: maps (N, h, w) that drift is measured against. ``reference_look``: -1 where it is none of
    this run. ``reference_predictions``: (N,) the classes predicted with the reference. ``reference_set``: the reference
    is the one that was asked for, and no stand-in. ``settled``: the focus has been calm at two looks running, at some
    time, whatever the reference; ``calm_looks``: how many it has been until now. ``floor``, ``ceiling``: of the reference.
    """

    reference_set: bool = False
    settled: bool = False
    reference: NDArray[np.float32] | None = None
    reference_look: int = -1
    reference_predictions: NDArray[np.int64] | None = None
    previous: NDArray[np.float32] | None = None
    calm_looks: int = 0
    floor: float = float("nan")
    ceiling: float = float("nan")

    def described(self, maps: NDArray[np.float32]) -> dict[str, Any]:
        """The reference that maps (N, h, w) are measured against, for a record."""
        reference = maps if self.reference is None else self.reference
        return {
            "look": self.reference_look,
            "settled": self.settled,
            "reference_set": self.reference_set,
            "floor": self.floor,
            "ceiling": self.ceiling,
            "grid": list(reference.shape[1:]),
        }

    def state_dict(self) -> dict[str, Any]:
        """Tensors and primitives only."""
        return {k: torch.from_numpy(v.copy()) if isinstance(v, np.ndarray) else v for k, v in vars(self).items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Track:
        """Undo :meth:`state_dict`, also of a version that called ``reference_set`` ``fixed``."""
        names = {"fixed": "reference_set"}
        values: dict[str, Any] = {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in state.items()}
        return cls(**{names.get(k, k): v for k, v in values.items()})


def worse_when_high(metrics: Sequence[Metric]) -> frozenset[str]:
    """Names of the numbers whose bad end is the high one."""
    ends = {m.name: m.worse for m in metrics} | {k: end for k, (end, _) in (DERIVED | OF_PREDICTIONS).items()}
    return frozenset(name for name, end in ends.items() if end == "high")


def neutral(metrics: Sequence[Metric], of_predictions: bool) -> dict[str, float]:
    """What a monitor finds under each number of a method and layer while there has been no value."""
    derived = DERIVED | (OF_PREDICTIONS if of_predictions else {})
    return {m.name: m.neutral for m in metrics} | {k: v for k, (_, v) in derived.items()} | WHOLE
