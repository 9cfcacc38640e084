"""Drift over a run: reference, noise floor, ceiling. Pure functions of the maps that were gathered.

For each method and layer, drift is measured against a reference. ``"first"`` is the first look with a valid map.
``"settled"`` is the first look at which the drift against the previous look has been at most max(3F, 0.05) twice
running, F being the noise floor; until then the first look serves. A baseline is the last record of another run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cam_engine.metrics import centroid_shift, consensus, enrichment, entropy, jensen_shannon, mean, valid

Array = NDArray[np.float64]

CALM = 0.05
CALM_FLOORS = 3.0
CALM_LOOKS = 2
CEILING_PAIRS = 200

# Which end of a number is the bad one, for the worst tenth and the worst class.
HIGH_IS_WORSE = frozenset(
    {"focus_drift", "drift_ref", "drift_prev", "entropy", "consensus", "centroid_shift", "nuisance_enrichment"}
)

# What a monitor finds under a key for which there has never been a value.
NEUTRAL = {
    "focus_drift": 0.0,
    "drift_ref": 0.0,
    "drift_prev": 0.0,
    "on_target_enrichment": 1.0,
    "nuisance_enrichment": 1.0,
    "entropy": 1.0,
    "consensus": 1.0,
    "centroid_shift": 0.0,
    "valid_frac": 0.0,
    "reference_set": 0.0,
    "noise_floor": 0.0,
    "ceiling": 1.0,
    "max_t": 0.0,
    "max_t_p": 1.0,
}


@dataclass
class Track:
    """What is remembered about one method on one layer between looks.

    ``reference`` and ``previous`` are maps (N, h, w). ``fixed``: the reference is the one that was asked for, and no
    stand-in. ``settled``: the focus has been calm at two looks running, at some time, whatever the reference.
    """

    fixed: bool = False
    settled: bool = False
    reference: NDArray[np.float32] | None = None
    reference_look: int = -1
    previous: NDArray[np.float32] | None = None
    calm_looks: int = 0
    floor: float = float("nan")
    ceiling: float = float("nan")

    def needs_reference(self, maps: NDArray[np.float32], policy: str) -> bool:
        """Take in a look's maps; should they become the reference?"""
        if self.reference is None:
            return bool(valid(maps).any())
        if not self.settled and self.previous is not None:
            drift = mean(jensen_shannon(maps, self.previous))
            self.calm_looks = self.calm_looks + 1 if drift <= np.fmax(CALM_FLOORS * self.floor, CALM) else 0
            self.settled = self.calm_looks >= CALM_LOOKS
        return policy == "settled" and self.settled and not self.fixed

    def set_reference(self, maps: NDArray[np.float32], look: int, policy: str, floor: float, seed: int) -> None:
        """Measure drift against these maps from now on."""
        self.fixed = self.reference is not None or policy != "settled"
        self.reference, self.reference_look = maps, look
        self.floor, self.ceiling = floor, ceiling(maps, seed)

    def measure(
        self, maps: NDArray[np.float32], look: int, regions: Array | None, nuisance: Array | None
    ) -> dict[str, Array]:
        """Every per-image number of this look: name → (N,), NaN where it is undefined for an image."""
        reference = maps if self.reference is None else self.reference
        previous = maps if self.previous is None else self.previous
        drift = jensen_shannon(maps, reference)
        is_reference = look == self.reference_look or self.reference is None
        numbers = {
            # A look that is its own reference has not drifted; F below zero would be an artefact of the formula.
            "focus_drift": drift if is_reference else (drift - self.floor) / (1 - self.floor),
            "drift_ref": drift,
            "drift_prev": jensen_shannon(maps, previous),
            "entropy": entropy(maps),
            "consensus": consensus(maps),
            "centroid_shift": centroid_shift(maps, reference),
        }
        if regions is not None:
            numbers["on_target_enrichment"] = enrichment(maps, regions)
        if nuisance is not None:
            numbers["nuisance_enrichment"] = enrichment(maps, nuisance)
        return numbers

    def state_dict(self) -> dict[str, Any]:
        """Tensors and primitives only."""
        state = {k: v for k, v in vars(self).items() if not isinstance(v, np.ndarray)}
        state |= {k: torch.from_numpy(v.copy()) for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Track:
        values: dict[str, Any] = {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in state.items()}
        return cls(**values)


def noise_floor(maps: NDArray[np.float32], noisy: list[NDArray[np.float32]]) -> float:
    """Mean JSD between maps and those of the same images with noise, over images and repeats; NaN without a valid pair."""
    return mean(np.stack([jensen_shannon(maps, other) for other in noisy]))


def ceiling(maps: NDArray[np.float32], seed: int) -> float:
    """Mean JSD between maps of different images, over at most 200 seeded pairs; NaN for fewer than two images."""
    first, second = np.triu_indices(len(maps), k=1)
    if not len(first):
        return float("nan")
    if len(first) > CEILING_PAIRS:
        chosen = np.random.default_rng(seed).choice(len(first), CEILING_PAIRS, replace=False)
        first, second = first[chosen], second[chosen]
    return mean(jensen_shannon(maps[first], maps[second]))
