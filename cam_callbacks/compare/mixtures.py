"""Mixtures of two probe pictures that followed what should not decide, made again from a record for a person to see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cam_callbacks.compare.blocks import pictures
from cam_callbacks.compare.run import Run
from cam_callbacks.records import Record

SHOWN = 6  # pairs
LONGEST = 160  # pixels of a mixture's longer side
PARTS = ("background", "nuisance", "frame")
"""Parts whose mixtures hold real pixels alone and that should not decide; the first of equal shares is shown."""
FRAME = 1 / 16  # of each side: cam_engine.exchange.mixtures, which needs torch


def mixtures(run: Run, images: Sequence[int]) -> dict[str, Any] | None:
    """Pairs of the last look that made exchange tests, of the part that carried the class most often.

    Args:
        run: The run.
        images: Of the probe, that are in the page.

    Returns:
        ``part``, ``epoch``, ``share`` followed, ``n`` pairs counted, and ``pairs``: of each ``donor`` and ``receiver`` (places in
        ``images``), ``picture`` and the class ``predicted`` for the mixture. None where nothing was exchanged, or there are no
        pictures.
    """
    record = next((record for record in reversed(run.records) if record.exchange_pairs is not None), None)
    if (
        record is None
        or record.exchange_pairs is None
        or record.predictions is None
        or run.manifest.get("store_images") is False
    ):
        return None
    if record.exchange_pairs.max(initial=-1) >= len(record.predictions):  # of another probe than the rest of the record
        return None
    shares = {part: _share(record, part) for part in PARTS if part in record.exchanged and _mixes(run, part)}
    known = {part: share for part, share in shares.items() if share is not None}
    if not known:
        return None
    part = max(known, key=lambda name: known[name])
    place = {image: at for at, image in enumerate(images)}
    chosen = _varied([pair for pair in _followers(record, part) if {*pair[:2]} <= place.keys()])
    made = [mixture(run.probe, part, donor, receiver) for donor, receiver, _ in chosen]
    addresses = pictures(np.stack(made), LONGEST) if made else []
    return {
        "part": part,
        "epoch": record.epoch,
        "share": round(known[part], 4),
        "n": int((record.exchanged[part] >= 0).sum()),
        "pairs": [
            {"donor": place[donor], "receiver": place[receiver], "predicted": predicted, "picture": address}
            for (donor, receiver, predicted), address in zip(chosen, addresses, strict=True)
        ],
    }


def mixture(probe: dict[str, NDArray[Any]], part: str, donor: int, receiver: int) -> NDArray[np.uint8]:
    """One part of one picture in another, (H, W, 3): the pixels that the model got, as a person sees them."""
    shown = probe["pictures"]
    if part == "frame":
        region = _frame(*shown.shape[1:3])
    else:
        masks = probe["nuisance" if part == "nuisance" else "masks"]
        region = masks[donor] | masks[receiver]
    inside, outside = (receiver, donor) if part == "background" else (donor, receiver)
    return np.where(region[..., None], shown[inside], shown[outside])


def _mixes(run: Run, part: str) -> bool:
    needed = {"background": ["masks"], "nuisance": ["nuisance"], "frame": []}[part]
    shown = run.probe.get("pictures")
    return shown is not None and all(name in run.probe and run.probe[name].shape == shown.shape[:3] for name in needed)


def _share(record: Record, part: str) -> float | None:
    counted = record.exchanged[part] >= 0
    return float(_followed(record, part)[counted].mean()) if counted.any() else None


def _followed(record: Record, part: str) -> NDArray[np.bool_]:
    assert record.predictions is not None and record.exchange_pairs is not None
    return record.exchanged[part] == record.predictions[record.exchange_pairs[:, 0]]


def _followers(record: Record, part: str) -> list[tuple[int, int, int]]:
    """(donor, receiver, class) of each pair whose mixture was given the donor's class."""
    assert record.exchange_pairs is not None
    found = zip(record.exchange_pairs.tolist(), record.exchanged[part].tolist(), _followed(record, part), strict=True)
    return [
        (donor, receiver, predicted) for (donor, receiver), predicted, followed in found if followed and predicted >= 0
    ]


def _varied(pairs: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Six of them, of different classes first."""
    seen: dict[int, int] = {}
    turns = []
    for pair in pairs:
        turns.append(seen.get(pair[2], 0))
        seen[pair[2]] = turns[-1] + 1
    return [pairs[i] for i in sorted(range(len(pairs)), key=lambda i: turns[i])[:SHOWN]]


def _frame(height: int, width: int) -> NDArray[np.bool_]:
    rows, columns = max(1, round(FRAME * height)), max(1, round(FRAME * width))
    frame = np.ones((height, width), bool)
    frame[rows : height - rows, columns : width - columns] = False
    return frame
