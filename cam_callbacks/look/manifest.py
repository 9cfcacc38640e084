"""What the looks of a run have in common, as the store keeps it: the manifest, and the probe as a person sees it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cam_callbacks.look.options import LookOptions
from cam_callbacks.look.task import Task
from cam_callbacks.picture_step import PictureStep
from cam_callbacks.probe import ProbeSet
from cam_callbacks.records import Record
from cam_engine import __version__

WITHHELD = 127  # the grey that stands for pixels with store_images=False


def manifest_of(
    record: Record,
    options: LookOptions,
    probe: ProbeSet,
    task: Task,
    *,
    run: str,
    model: str,
    layers: Sequence[str],
    picture_step: PictureStep,
) -> dict[str, Any]:
    """The manifest of a run whose first look this record is.

    Args:
        record: For its time and grids.
        options: Of all looks.
        probe: The images.
        task: What is explained of them.
        run: Name of the run, for people.
        model: Name of the model's class.
        layers: Those that are watched.
        picture_step: What pictures are stepped by, ``"epoch"`` or ``"look"``.
    """
    return {
        "run": run,
        "name": options.name,
        "created": record.time,
        "version": __version__,
        "model": model,
        "methods": list(dict.fromkeys(method for method, _ in record.maps)),
        "layers": list(layers),
        "grids": {layer: list(maps.shape[1:]) for (_, layer), maps in record.maps.items()},
        "target": options.target_name,
        "task": {"kind": task.kind, "words": task.words},
        "reference": options.reference if isinstance(options.reference, int) else str(options.reference),
        "picture_step": picture_step,
        "store_images": options.store_images,
        "probe": {
            "fingerprint": probe.fingerprint,
            "n": len(probe),
            "image_size": list(probe.images.shape[-2:]),
            "ids": probe.ids,
            "class_names": probe.class_names,
            "groups": probe.groups,
            "mean": None if probe.mean is None else probe.mean.flatten().tolist(),
            "std": None if probe.std is None else probe.std.flatten().tolist(),
        },
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }


def probe_arrays(probe: ProbeSet, store_images: bool) -> dict[str, NDArray[Any]]:
    """The probe's pictures (N, H, W, 3) uint8, or plain grey in their place, and what is known about them."""
    pictures = probe.pictures()
    arrays: dict[str, NDArray[Any]] = {"pictures": pictures if store_images else np.full_like(pictures, WITHHELD)}
    if probe.labels is not None:
        arrays["labels"] = probe.labels.numpy()
    if probe.label_sets is not None:
        arrays["label_sets"] = probe.label_sets.numpy()
    if probe.values is not None:
        arrays["values"] = probe.values.numpy()
    if probe.region_masks is not None:
        arrays["masks"] = probe.region_masks
    if probe.nuisance is not None:
        arrays["nuisance"] = probe.nuisance
    return arrays
