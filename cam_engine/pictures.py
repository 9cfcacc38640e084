"""Pictures: which files hold one, and model inputs as a person sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Suffixes, in lower case, of the files in a folder that are taken for pictures."""


def to_pictures(images: Tensor, mean: Any = None, std: Any = None) -> NDArray[np.uint8]:
    """Images (N, C, H, W) as pictures (N, H, W, 3), uint8 RGB.

    With ``mean`` and ``std`` (one number, or one for each channel) the normalisation is undone; without, images within
    [0, 1] are taken as they are and others are scaled to the range of them all. One channel becomes grey; of more than
    three the first three are shown, of two the first. What is not finite is black.
    """
    pixels = images.detach().float().cpu().numpy()
    if mean is not None or std is not None:
        shift, scale = (
            np.reshape(v, (1, -1, 1, 1)) for v in (0.0 if mean is None else mean, 1.0 if std is None else std)
        )
        pixels = pixels * scale + shift
    else:
        finite = pixels[np.isfinite(pixels)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        if low < 0 or high > 1:
            pixels = (pixels - low) / max(high - low, 1e-12)
    rgb = pixels[:, :3] if pixels.shape[1] >= 3 else pixels[:, :1].repeat(3, axis=1)
    rgb = np.nan_to_num(rgb, nan=0.0).clip(0, 1)
    return np.ascontiguousarray((rgb * 255).round().astype(np.uint8).transpose(0, 2, 3, 1))
