"""With which mean and standard deviation images were normalised, read from what normalises them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cam_callbacks.objects import reachable

Pair = tuple[NDArray[np.float64], NDArray[np.float64]]

_NAMES = (("mean", "std"), ("image_mean", "image_std"), ("MEAN", "STD"), ("_mean", "_std"))
_LEAST, _MOST = -0.05, 1.05  # of pixels with the normalisation undone; resizing overshoots a little
_SHARE = 0.999


def find_normalisation(images: Tensor, *roots: Any) -> Pair | None:
    """Mean and standard deviation, of pixels in [0, 1], that bring images back to what they were.

    Searched are a ``Normalize`` of any library (torchvision, kornia, albumentations, timm), the processors of transformers,
    the configuration that timm leaves at its models, and attributes called ``mean`` and ``std`` (torchgeo's data modules).
    Those are taken that fit the images: with them undone, all pixels lie in [0, 1], or in [0, 255].

    Args:
        images: (N, C, H, W), as the model gets them.
        roots: The data loader, the data module, the module.

    Returns:
        (C,) each; None where nothing fits, or images in [0, 1] have nothing to undo.
    """
    pixels = images.detach().double().cpu().numpy()
    if pixels.min() >= 0 and pixels.max() <= 1:
        return None
    found = sorted(_candidates(*roots), key=lambda pair: pair[0])
    for _, mean, std in found:
        fitting = _fitting(pixels, mean, std)
        if fitting is not None:
            return fitting
    return None


def _candidates(*roots: Any) -> Iterator[tuple[int, Any, Any]]:
    """``(rank, mean, std)``: what normalises by its name before what only has such attributes."""
    for one in reachable(*roots):
        if isinstance(one, type):
            continue
        if isinstance(one, Mapping):
            if "mean" in one and "std" in one:  # timm's configuration; what kornia keeps as flags
                yield 1, one["mean"], one["std"]
            continue
        for mean, std in _NAMES:
            try:
                pair = getattr(one, mean, None), getattr(one, std, None)
            except Exception:  # a property of somebody else
                continue
            if pair[0] is not None and pair[1] is not None and not callable(pair[0]):
                yield 0 if "normalize" in type(one).__name__.lower() else 2, *pair


def _fitting(pixels: NDArray[np.float64], mean: Any, std: Any) -> Pair | None:
    """Both for each channel and of pixels in [0, 1]; None where they do not fit the images."""
    try:
        shift, scale = (np.broadcast_to(_numbers(value), (pixels.shape[1],)).astype(float) for value in (mean, std))
    except (TypeError, ValueError, RuntimeError):
        return None
    if not (np.isfinite(shift).all() and np.isfinite(scale).all() and (scale > 0).all()):
        return None
    if (shift == 0).all() and (scale == 1).all():
        return None
    undone = pixels * scale[None, :, None, None] + shift[None, :, None, None]
    for unit in (1.0, 255.0):
        if ((undone >= _LEAST * unit) & (undone <= _MOST * unit)).mean() >= _SHARE and undone.max() > 0.1 * unit:
            return shift / unit, scale / unit
    return None


def _numbers(value: Any) -> NDArray[np.float64]:
    if isinstance(value, (str, bytes)):
        raise TypeError("a name is no number")
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    return array.astype(np.float64).reshape(-1)
