"""What is remembered about each series, one method on one layer, from look to look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Series = tuple[str, str]  # method, layer


@dataclass(frozen=True, eq=False)
class Track:
    """What is remembered about a series between looks.

    ``reference``, ``previous``: maps (N, h, w) that drift is measured against. ``reference_look``: -1 where it is none of
    this run. ``reference_predictions``: (N,) the classes predicted with the reference. ``reference_set``: the reference
    is the one that was asked for, and no stand-in. ``settled``: the focus has been calm at two looks running, at some
    time, whatever the reference; ``calm_looks``: how many it has been until now. ``calm``: mean drift between looks while it
    was, what a healthy focus drifts by itself; NaN before. ``floor``: of these weights until the reference is set, then of the
    reference; ``ceiling``: of the reference.
    """

    reference_set: bool = False
    settled: bool = False
    reference: NDArray[np.float32] | None = None
    reference_look: int = -1
    reference_predictions: NDArray[np.int64] | None = None
    previous: NDArray[np.float32] | None = None
    calm_looks: int = 0
    calm: float = float("nan")
    floor: float = float("nan")
    ceiling: float = float("nan")

    def described(self, maps: NDArray[np.float32]) -> dict[str, Any]:
        """The reference that maps (N, h, w) are measured against, for a record."""
        reference = maps if self.reference is None else self.reference
        return {
            "look": self.reference_look,
            "settled": self.settled,
            "reference_set": self.reference_set,
            "calm": self.calm,
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
