"""Which score of each probe image is explained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cam_callbacks.probe import ProbeSet

# "label", "predicted", a class index, one for each image, or a callable (outputs) -> Tensor (B,)
Target = str | int | Sequence[int] | Callable[[Any], Tensor]


def check_target(target: Target) -> None:
    """Refuse a name that is none of ours.

    Raises:
        ValueError: It is not ``"label"`` or ``"predicted"``.
    """
    if isinstance(target, str) and target not in ("label", "predicted"):
        raise ValueError(
            f'target= takes "label", "predicted", a class index, a list of them or a callable, not {target!r}.'
        )


def target_on(target: Target, probe: ProbeSet) -> Target:
    """The target on this probe: without labels ``"label"`` is ``"predicted"``.

    Raises:
        ValueError: A list of classes that is not one for each image.
    """
    if isinstance(target, Sequence) and not isinstance(target, str) and len(target) != len(probe):
        raise ValueError(f"target= holds {len(target)} classes for the probe's {len(probe)} images.")
    return "predicted" if target == "label" and probe.labels is None else target


def target_name(target: Target) -> str | int:
    """The target in a manifest: its name or class, ``"custom"`` for lists and callables."""
    return target if isinstance(target, (str, int)) else "custom"


def fixed_classes(target: Target, probe: ProbeSet) -> NDArray[np.int64] | None:
    """(N,) the class that is explained of each image; None where the model's output decides."""
    if target == "label":
        assert probe.labels is not None
        return probe.labels.numpy().astype(np.int64)
    if callable(target) or isinstance(target, str):
        return None
    return np.broadcast_to(np.asarray(target, dtype=np.int64), (len(probe),)).copy()


def target_of_images(target: Target, indices: Sequence[int]) -> Any:
    """``targets=`` of :class:`cam_engine.CAM` for those of the probe's images that are in a batch."""
    if target == "predicted":
        return None
    if isinstance(target, Sequence) and not isinstance(target, str):
        return [target[i] for i in indices]
    return target.of_images(indices) if hasattr(target, "of_images") else target  # one that knows each image's boxes
