"""What the exchange tests of one look counted, and under which keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cam_callbacks.keys import per_image_key, plain_key
from cam_callbacks.look.tracking import Series
from cam_engine.exchange import Followed, ObjectShare, get_part
from cam_engine.metrics import describe


@dataclass(frozen=True, eq=False)
class Exchanged:
    """The exchange tests of one look.

    ``pairs``: (P, 2) donor and receiver. ``whole``: what was counted for each part; ``of_maps``: for a part and a series.
    ``share``: of the object, where both object and background were tested. ``seconds``: what it took, for so many mixtures
    that the model was ``asked`` about.
    """

    pairs: NDArray[np.int64]
    whole: dict[str, Followed] = field(default_factory=dict)
    of_maps: dict[tuple[str, Series], Followed] = field(default_factory=dict)
    share: ObjectShare | None = None
    seconds: float = 0.0
    asked: int = 0


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What is remembered of a part's test: ``pairs`` (P, 2), and ``followed`` (P,), 1, 0, or NaN for a pair left out."""

    pairs: NDArray[np.int64]
    followed: NDArray[np.float64]


def outcomes_of(exchanged: Exchanged) -> dict[str, Outcomes]:
    """The outcomes of every part that is tested without a map."""
    return {part: Outcomes(counted.pairs, counted.followed) for part, counted in exchanged.whole.items()}


def to_plain(outcomes: Mapping[str, Outcomes]) -> list[dict[str, Any]]:
    """Outcomes as tensors and primitives, for a checkpoint."""
    return [
        {"part": part, "pairs": torch.from_numpy(of.pairs.copy()), "followed": torch.from_numpy(of.followed.copy())}
        for part, of in outcomes.items()
    ]


def from_plain(plain: Sequence[Mapping[str, Any]]) -> dict[str, Outcomes]:
    """Undo :func:`to_plain`."""
    return {of["part"]: Outcomes(of["pairs"].numpy(), of["followed"].numpy()) for of in plain}


def metrics_of(exchanged: Exchanged, layers: Sequence[str], name: str | None) -> dict[str, float]:
    """The numbers of the tests under their keys: ``cam/follows_object``, ``cam/follows_focus/gradcam``, ``cam/object_share``."""
    found = {plain_key(f"follows_{part}", name): of.share for part, of in exchanged.whole.items()}
    for (part, (method, layer)), of in exchanged.of_maps.items():
        found[plain_key(per_image_key(f"follows_{part}", method, layer, layers), name)] = of.share
    if exchanged.share is not None:
        found[plain_key("object_share", name)] = exchanged.share.share
    return found | {plain_key("exchange_seconds", name): exchanged.seconds}


def aggregates_of(exchanged: Exchanged, layers: Sequence[str]) -> dict[str, dict[str, float]]:
    """Mean, 95 % interval and pairs counted of each test, as a record's aggregates have them."""
    found: dict[str, dict[str, float]] = {f"follows_{part}": _interval(of) for part, of in exchanged.whole.items()}
    for (part, (method, layer)), of in exchanged.of_maps.items():
        found[per_image_key(f"follows_{part}", method, layer, layers)] = _interval(of)
    return found if exchanged.share is None else found | {"object_share": _interval(exchanged.share)}


def _interval(counted: Followed | ObjectShare) -> dict[str, float]:
    return {"mean": counted.share, "low": counted.low, "high": counted.high, "n": float(counted.n)}


def predicted_of(exchanged: Exchanged, layers: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """(P,) class of each mixture, under the names that a record has: ``"object"``, ``"focus/gradcam"``."""
    of_maps = {
        per_image_key(part, method, layer, layers): of.predicted
        for (part, (method, layer)), of in exchanged.of_maps.items()
    }
    return {part: of.predicted for part, of in exchanged.whole.items()} | of_maps


def neutral_exchange(
    parts: Sequence[str], methods: Sequence[str], layers: Sequence[str], name: str | None
) -> dict[str, float]:
    """What monitors find under the tests' keys while there has been no value."""
    found = {"exchange_seconds": 0.0} if parts else {}
    for part in parts:
        if "maps" in get_part(part).needs:
            found |= {per_image_key(f"follows_{part}", m, layer, layers): 0.0 for m in methods for layer in layers}
        else:
            found[f"follows_{part}"] = 0.0
    if {"object", "background"} <= set(parts):
        found["object_share"] = describe("object_share").neutral
    return {plain_key(key, name): value for key, value in found.items()}
