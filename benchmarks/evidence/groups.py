"""Accuracies by what the cue says: what happens to a network when the cue lies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evidence.scenes import FAMILIES

DECIDES, BESIDE = 0.5, 0.25  # swap gaps above which a cue decides, or is used beside the object

TRAINED = 2  # times chance: a healthy training that stays below has learned nothing that could be judged

Role = Literal["healthy", "untrained", "decides", "beside", "unlearned"]


def accuracies(predictions: Mapping[str, NDArray[np.int8]], labels: NDArray[np.int64]) -> dict[str, Any]:
    """What ``training.json`` says of predictions.

    Args:
        predictions: (epochs, N) classes for each version of the cue: "natural", and "agree" and "swapped" where it informs.
        labels: (N,).

    Returns:
        ``accuracy``, a curve for each version; where a cue informs also ``gap``, the curve of the fall when the cue is
        swapped, and ``worst_group``, the curve of the lowest accuracy of a class with an agreeing or a swapped cue.
    """
    right = {version: each == labels for version, each in predictions.items()}
    found: dict[str, Any] = {"accuracy": {version: each.mean(1).tolist() for version, each in right.items()}}
    if "swapped" in right:
        groups = [right[version][:, labels == c].mean(1) for version in ("agree", "swapped") for c in np.unique(labels)]
        found["gap"] = (right["agree"].mean(1) - right["swapped"].mean(1)).tolist()
        found["worst_group"] = np.min(groups, axis=0).tolist()
    return found


def role(done: Mapping[str, Any]) -> Role:
    """What a finished training is evidence for, after its last epoch; "untrained" and "unlearned" ones are for nothing."""
    if "gap" not in done:
        chance = 1 / len(FAMILIES[done["training"]["scenes"]].classes)
        return "healthy" if done["accuracy"]["natural"][-1] >= TRAINED * chance else "untrained"
    gap = done["gap"][-1]
    return "decides" if gap > DECIDES else "beside" if gap > BESIDE else "unlearned"


def spread_of(path: Path) -> float:
    """How far apart the best and the worst group are after the last epoch, from ``predictions.npz``. Groups are the classes; where
    a cue informs, each with a cue that agrees and with one that does not."""
    with np.load(path) as file:
        labels = file["labels"]
        versions = [name for name in ("agree", "swapped") if name in file] or ["natural"]
        right = [file[name][-1] == labels for name in versions]
    shares = [each[labels == c].mean() for each in right for c in np.unique(labels)]
    return float(max(shares) - min(shares))
