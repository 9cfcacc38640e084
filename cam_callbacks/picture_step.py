"""Where a look's pictures stand on a logger's slider: at their epoch, so that runs line up, or at the number of the look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from cam_callbacks.records import Record

PictureStep = Literal["epoch", "look"]


def picture_step_of(trainer: Any) -> PictureStep:
    """``"epoch"`` where a Lightning trainer validates at most once an epoch, else ``"look"``: its looks share epochs.

    It stands in the manifest of the records as ``picture_step``.
    """
    interval = getattr(trainer, "val_check_batch", None)  # Lightning 2.5 sets it at the first fit
    return "epoch" if interval is None or interval >= trainer.num_training_batches else "look"


def picture_step(record: Record, manifest: Mapping[str, Any]) -> int:
    """The step of a record's pictures."""
    return record.epoch if manifest.get("picture_step", "epoch") == "epoch" else record.look
