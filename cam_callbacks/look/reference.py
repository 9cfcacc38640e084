"""What drift is measured against, when that is set, and the rule by which a focus counts as settled.

``"first"`` is the first look with a valid map. ``"settled"`` is the first look at which the focus has been calm twice
running: the drift against the look before was at most max(3F, 0.05), F being the noise floor. A number is the look of
that index. Until the reference is there the first look stands in. A baseline (:mod:`cam_callbacks.look.baselines`) is the
maps of another run or of a checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cam_callbacks.look.noise_floor import REPEATS, ceiling
from cam_callbacks.look.settled import settle
from cam_callbacks.look.tracking import Series, Track
from cam_callbacks.records import Maps, RecordStore
from cam_callbacks.run_ids import parse_run_id
from cam_engine.metrics import valid

Policy = str | int  # "settled", "first", "baseline", or the index of a look
Kind = Literal["policy", "look", "folder", "mlflow", "checkpoint"]

POLICIES = ("settled", "first")


def kind_of(reference: str | int | os.PathLike[str]) -> Kind:
    """What ``reference=`` names.

    Raises:
        ValueError: Nothing that could be a reference.
    """
    if isinstance(reference, int) and not isinstance(reference, bool):
        if reference < 0:
            raise ValueError(f"reference={reference}: looks are counted from 0.")
        return "look"
    text = str(reference) if isinstance(reference, int) else os.fspath(reference)
    if text in POLICIES:
        return "policy"
    if Path(text).is_file():
        return "checkpoint"
    if len(RecordStore(text)):
        return "folder"
    if parse_run_id(text) is not None:
        return "mlflow"
    raise ValueError(
        'reference= takes "settled", "first", the index of a look, a folder of records, an MLflow run id or a checkpoint '
        f"file; {text!r} is none: there is no such file, and as a folder it holds none of our records."
    )


def policy_of(reference: str | int | os.PathLike[str]) -> Policy:
    """When the reference is set."""
    if isinstance(reference, int):
        return reference
    return os.fspath(reference) if os.fspath(reference) in POLICIES else "baseline"


def measured_against(
    tracks: Mapping[Series, Track],
    maps: Maps,
    predictions: NDArray[np.int64] | None,
    look: int,
    policy: Policy,
    seed: int,
    floors: Callable[[int], Mapping[Series, float]],
) -> dict[Series, Track]:
    """The tracks that a look is measured against: calm looks counted, references set where it is time.

    Args:
        tracks: As the look before left them.
        maps: Of this look, (N, h, w) each.
        predictions: (N,) of this look, where known.
        look: Its number.
        policy: When references are set.
        seed: Of the ceiling's pairs.
        floors: Measures the noise floor of every series with so many repeats; called only where one is needed.
    """
    # Until a focus has settled, what is calm is judged by the floor of the weights as they are now. One repeat tells that well
    # enough; the floor that a reference keeps has them all.
    unsettled = [series for series, track in tracks.items() if not track.settled or np.isnan(track.floor)]
    repeats = REPEATS if any(tracks[series].reference is None for series in unsettled) else 1
    measured = floors(repeats) if unsettled else {}
    after = {
        series: settle(replace(track, floor=measured[series]) if series in unsettled else track, maps[series])
        for series, track in tracks.items()
    }
    due = [series for series, track in after.items() if is_due(track, maps[series], look, policy)]
    if late := [series for series in due if series not in unsettled or repeats < REPEATS]:
        measured = floors(REPEATS)
        after |= {series: replace(after[series], floor=measured[series]) for series in late}
    return after | {
        series: set_reference(after[series], maps[series], look, policy, seed, predictions) for series in due
    }


def is_due(track: Track, maps: NDArray[np.float32], look: int, policy: Policy) -> bool:
    """Should a look's maps become the reference, or stand in for it?"""
    if not valid(maps).any():
        return False
    if track.reference is None:
        return True
    if track.reference_set:
        return False
    return look >= policy if isinstance(policy, int) else policy == "settled" and track.settled


def set_reference(
    track: Track,
    maps: NDArray[np.float32],
    look: int,
    policy: Policy,
    seed: int,
    predictions: NDArray[np.int64] | None = None,
) -> Track:
    """Measure drift against these maps from now on."""
    stands_in = look < policy if isinstance(policy, int) else policy == "settled" and track.reference is None
    return replace(
        track,
        reference=maps,
        reference_look=look,
        reference_predictions=predictions,
        reference_set=not stands_in,
        ceiling=ceiling(maps, seed),
    )
