"""Which score of each probe image is explained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cam_callbacks.probe import ProbeSet

# "label", "predicted", "all" (true labels), a class index, one for each image, or a callable (outputs) -> Tensor (B,)
Target = str | int | Sequence[int] | Callable[[Any], Tensor]


def check_target(target: Target) -> None:
    """Refuse a name that is none of ours.

    Raises:
        ValueError: It is not ``"label"``, ``"predicted"`` or ``"all"``.
    """
    if isinstance(target, str) and target not in ("label", "predicted", "all"):
        raise ValueError(
            f'target= takes "label", "predicted", "all" (of several true labels), a class index, a list of them or a callable, '
            f"not {target!r}."
        )


def target_on(target: Target, probe: ProbeSet) -> Target:
    """The target on this probe: where nothing true is known of its images ``"label"`` is ``"predicted"``.

    Raises:
        ValueError: A list of classes that is not one for each image.
    """
    if isinstance(target, Sequence) and not isinstance(target, str) and len(target) != len(probe):
        raise ValueError(f"target= holds {len(target)} classes for the probe's {len(probe)} images.")
    known = (probe.labels, probe.label_sets, probe.class_maps, probe.values)
    return "predicted" if target == "label" and all(of is None for of in known) else target


def is_listed(target: Target) -> TypeGuard[Sequence[int]]:
    """Is it a class for each image?"""
    return isinstance(target, Sequence) and not isinstance(target, str)


def target_name(target: Target) -> str | int:
    """The target in a manifest: its name or class, ``"custom"`` for lists and callables."""
    return target if isinstance(target, (str, int)) else "custom"


def fixed_classes(target: Target, probe: ProbeSet) -> NDArray[np.int64] | None:
    """(N,) the class that is explained of each image; None where the model or its task decides."""
    if target == "label" and probe.labels is not None and probe.class_maps is None:
        return probe.labels.numpy().astype(np.int64)
    if callable(target) or isinstance(target, str):
        return None
    return np.broadcast_to(np.asarray(target, dtype=np.int64), (len(probe),)).copy()


def target_of_images(target: Target, indices: Sequence[int]) -> Any:
    """``targets=`` of :class:`cam_engine.CAM` for those of the probe's images that are in a batch."""
    if target == "predicted":
        return None
    if is_listed(target):
        return [target[i] for i in indices]
    return target.of_images(indices) if hasattr(target, "of_images") else target  # one that knows each image's boxes
