"""Drift over a run: reference, noise floor, ceiling. Pure functions of the maps that were gathered.

For each method and layer, drift is measured against a reference. ``"first"`` is the first look with a valid map.
``"settled"`` is the first look at which the drift against the previous look has been at most max(3F, 0.05) twice
running, F being the noise floor. A number is the look of that index. Until the reference is there the first look
serves. A baseline (:mod:`cam_callbacks.look.baselines`) is the maps of another run or of a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cam_engine.metrics import MaxT, Metric, jensen_shannon, max_t, mean, valid

Array = NDArray[np.float64]
Policy = str | int  # "settled", "first", "baseline", or the index of a look

CALM = 0.05
CALM_FLOORS = 3.0
CALM_LOOKS = 2
CEILING_PAIRS = 200

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
class Measured:
    """One method on one layer at one look. ``per_image``: metric → (N,), NaN where undefined. ``whole``: numbers of the
    probe as a whole. ``moved``: the test against the reference. ``reference``: (N, h, w) it was measured against."""

    per_image: dict[str, Array]
    whole: dict[str, float]
    moved: MaxT
    reference: NDArray[np.float32]


@dataclass
class Track:
    """What is remembered about one method on one layer between looks.

    ``reference`` and ``previous`` are maps (N, h, w), ``reference_predictions`` (N,) the classes predicted at the reference.
    ``fixed``: the reference is the one that was asked for, and no
    stand-in. ``settled``: the focus has been calm at two looks running, at some time, whatever the reference.
    """

    fixed: bool = False
    settled: bool = False
    reference: NDArray[np.float32] | None = None
    reference_look: int = -1
    reference_predictions: NDArray[np.int64] | None = None
    previous: NDArray[np.float32] | None = None
    calm_looks: int = 0
    floor: float = float("nan")
    ceiling: float = float("nan")

    def needs_reference(self, maps: NDArray[np.float32], look: int, policy: Policy) -> bool:
        """Take in a look's maps; should they become the reference?"""
        usable = bool(valid(maps).any())
        if self.reference is None:
            return usable
        if not self.settled and self.previous is not None:
            drift = mean(jensen_shannon(maps, self.previous))
            self.calm_looks = self.calm_looks + 1 if drift <= np.fmax(CALM_FLOORS * self.floor, CALM) else 0
            self.settled = self.calm_looks >= CALM_LOOKS
        if self.fixed or not usable:
            return False
        return look >= policy if isinstance(policy, int) else policy == "settled" and self.settled

    def set_reference(
        self,
        maps: NDArray[np.float32],
        look: int,
        policy: Policy,
        floor: float,
        seed: int,
        predictions: NDArray[np.int64] | None = None,
    ) -> None:
        """Measure drift against these maps from now on."""
        if isinstance(policy, int):
            self.fixed = look >= policy
        else:
            self.fixed = self.reference is not None or policy != "settled"
        self.reference, self.reference_look, self.reference_predictions = maps, look, predictions
        self.floor, self.ceiling = floor, ceiling(maps, seed)

    def measure(
        self,
        maps: NDArray[np.float32],
        look: int,
        metrics: Sequence[Metric],
        known: Mapping[str, Any],
        seed: int = 0,
        predictions: NDArray[np.int64] | None = None,
    ) -> Measured:
        """Every number of this look, and remember its maps as the previous ones.

        Args:
            maps: (N, h, w).
            look: Its number.
            metrics: Those to measure; one whose needs are not all known is left out.
            known: What metrics may ask for beside maps, reference and previous.
            seed: Of the sign flips.
            predictions: (N,) predicted classes, where those are what is explained: drift is then split into images whose
                prediction has flipped since the reference and others.
        """
        reference = maps if self.reference is None else self.reference
        previous = maps if self.previous is None else self.previous
        inputs = {"maps": maps, "reference": reference, "previous": previous, **known}
        numbers = {m.name: m.function(*(inputs[n] for n in m.needs)) for m in metrics if inputs.keys() >= set(m.needs)}
        drift = numbers["drift_ref"]
        is_reference = look == self.reference_look or self.reference is None
        # A look that is its own reference has not drifted; F below zero would be an artefact of the formula.
        numbers["focus_drift"] = drift if is_reference else (drift - self.floor) / (1 - self.floor)
        if predictions is not None:
            then = predictions if self.reference_predictions is None else self.reference_predictions
            flipped = predictions != then
            numbers["flip_rate"] = flipped.astype(np.float64)
            numbers["drift_flipped"] = np.where(flipped, drift, np.nan)
            numbers["drift_unflipped"] = np.where(flipped, np.nan, drift)
        moved = max_t(maps, reference, seed=seed)
        whole = {
            "valid_frac": float(valid(maps).mean()),
            "reference_set": float(self.fixed),
            "noise_floor": self.floor,
            "ceiling": self.ceiling,
            "max_t": moved.statistic,
            "max_t_p": moved.p,
        }
        self.previous = maps
        return Measured(numbers, whole, moved, reference)

    def described(self) -> dict[str, Any]:
        """The reference, for a record."""
        maps = self.reference if self.reference is not None else self.previous
        grid = None if maps is None else list(maps.shape[1:])
        return {
            "look": self.reference_look,
            "settled": self.fixed,
            "floor": self.floor,
            "ceiling": self.ceiling,
            "grid": grid,
        }

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


def worse_when_high(metrics: Sequence[Metric]) -> frozenset[str]:
    """Names of the numbers whose bad end is the high one."""
    ends = {m.name: m.worse for m in metrics} | {k: end for k, (end, _) in (DERIVED | OF_PREDICTIONS).items()}
    return frozenset(name for name, end in ends.items() if end == "high")


def neutral(metrics: Sequence[Metric], of_predictions: bool) -> dict[str, float]:
    """What a monitor finds under each number of a method and layer while there has been no value."""
    derived = DERIVED | (OF_PREDICTIONS if of_predictions else {})
    return {m.name: m.neutral for m in metrics} | {k: v for k, (_, v) in derived.items()} | WHOLE
