"""Everything that a look asks of the model. What is made of it needs no model, so that the asking can be done elsewhere."""

from __future__ import annotations

import io
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cam_callbacks.look.evidence import Array
from cam_callbacks.look.exchanged import Exchanged
from cam_callbacks.look.exchanging import Exchange
from cam_callbacks.look.explaining import Explained, explain
from cam_callbacks.look.forwards import accuracy_gap, faithfulness, noise_floors
from cam_callbacks.look.noise_floor import REPEATS
from cam_callbacks.look.subject import Subject
from cam_callbacks.look.tracking import Series
from cam_engine.exchange import Followed, ObjectShare
from cam_engine.metrics import Metric


@dataclass(frozen=True, eq=False)
class Seen:
    """What a look learned of the model.

    ``explained``: its maps and predictions. ``floors``: the noise floor of every series from so many noisy repeats; asks the model
    where it was not asked before. ``exchanged``, ``scored``, ``gap``: of the steps that take further forwards. ``seconds``: what
    it took, where that was in another process.
    """

    explained: Explained
    floors: Callable[[int], Mapping[Series, float]]
    exchanged: Exchanged | None
    scored: Mapping[Series, Mapping[str, Array]]
    gap: Array | None
    seconds: float = 0.0


def see(subject: Subject, exchange: Exchange, metrics: Sequence[Metric], seed: int, mixtures: int) -> Seen:
    """Ask a model; every process has to call it.

    Args:
        subject: The model.
        exchange: The tests between the probe's images.
        metrics: Those that are measured, whether they ask the model again or not.
        seed: Of the noise.
        mixtures: Of each part that two images exchange.
    """
    probe = subject.task.probe
    explained = explain(subject, probe.images)
    return Seen(
        explained,
        lambda repeats: noise_floors(subject, explained, probe.images, seed, repeats),
        exchange.test(subject, explained, mixtures),
        faithfulness(subject, explained, probe, metrics),
        accuracy_gap(subject, explained, probe),
    )


def to_bytes(seen: Seen, since: float, **more: Any) -> bytes:
    """What was seen, with nothing left to ask, for a file: tensors and primitives only.

    Args:
        seen: It may still ask the model.
        since: When it began, as ``time.perf_counter`` says.
        **more: Primitives to keep beside it.
    """
    arrays = {name: _tensor(value) for name, value in vars(seen.explained).items() if name != "maps"}
    plain = {
        "maps": [(*series, _tensor(maps)) for series, maps in seen.explained.maps.items()],
        "explained": arrays,
        "floors": {n: [(*series, float(floor)) for series, floor in seen.floors(n).items()] for n in (1, REPEATS)},
        "exchanged": None if seen.exchanged is None else _plain_exchanged(seen.exchanged),
        "scored": [(*series, {k: _tensor(v) for k, v in of.items()}) for series, of in seen.scored.items()],
        "gap": _tensor(seen.gap),
        "more": more,
    }
    buffer = io.BytesIO()
    torch.save(plain | {"seconds": time.perf_counter() - since}, buffer)
    return buffer.getvalue()


def from_bytes(data: bytes) -> tuple[Seen, dict[str, Any]]:
    """Undo :func:`to_bytes`: what was seen, and what was kept beside it.

    Raises:
        ValueError: Damaged, or something else.
    """
    try:
        plain: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True)
        maps = {(method, layer): of.numpy() for method, layer, of in plain["maps"]}
        explained = Explained(maps, **{name: _array(value) for name, value in plain["explained"].items()})
        floors = {n: {(m, layer): floor for m, layer, floor in of} for n, of in plain["floors"].items()}
        exchanged = None if plain["exchanged"] is None else _exchanged(plain["exchanged"])
        scored = {(m, layer): {k: v.numpy() for k, v in of.items()} for m, layer, of in plain["scored"]}
        seen = Seen(explained, floors.__getitem__, exchanged, scored, _array(plain["gap"]), plain["seconds"])
        return seen, dict(plain["more"])
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"no file of what a look has seen: {error}") from error


def _plain_exchanged(exchanged: Exchanged) -> dict[str, Any]:
    return vars(exchanged) | {
        "pairs": _tensor(exchanged.pairs),
        "whole": [(part, _plain_followed(of)) for part, of in exchanged.whole.items()],
        "of_maps": [(part, *series, _plain_followed(of)) for (part, series), of in exchanged.of_maps.items()],
        "share": None if exchanged.share is None else {k: _primitive(v) for k, v in vars(exchanged.share).items()},
    }


def _exchanged(plain: dict[str, Any]) -> Exchanged:
    parts: dict[str, Any] = {
        "pairs": plain["pairs"].numpy(),
        "whole": {part: _followed(of) for part, of in plain["whole"]},
        "of_maps": {(part, (method, layer)): _followed(of) for part, method, layer, of in plain["of_maps"]},
        "share": None if plain["share"] is None else ObjectShare(**plain["share"]),
    }
    return Exchanged(**plain | parts)


def _plain_followed(followed: Followed) -> dict[str, Any]:
    return {k: _tensor(v) if isinstance(v, np.ndarray) else _primitive(v) for k, v in vars(followed).items()}


def _followed(plain: dict[str, Any]) -> Followed:
    arrays: dict[str, Any] = {k: v.numpy() for k, v in plain.items() if isinstance(v, torch.Tensor)}
    return Followed(**plain | arrays)


def _primitive(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _tensor(array: Any) -> torch.Tensor | None:
    return None if array is None else torch.from_numpy(np.ascontiguousarray(array))


def _array(tensor: torch.Tensor | None) -> Any:
    return None if tensor is None else tensor.numpy()
