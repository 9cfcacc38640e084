"""Arrays and pictures as text inside JSON."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from cam_engine.metrics import valid

LOSSLESS = 1 << 20  # bytes of pixels up to which a probe's pictures are kept exactly
LONGEST = 320  # pixels of a picture's longer side


def block(array: NDArray[Any], dtype: str) -> str:
    """An array's bytes, little-endian and in C order, as base64."""
    return base64.b64encode(np.ascontiguousarray(array, np.dtype(dtype).newbyteorder("<")).tobytes()).decode()


def quantise(maps: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """Maps in 8 bits, each on a scale of its own.

    Args:
        maps: (..., h, w), any values.

    Returns:
        Codes (..., h, w), and ``low`` and ``high`` (...). A cell is ``low + code / 255 * (high - low)``, right to half a
        step of its own map. Before that comes the ReLU, as in every picture. ``low`` is NaN where a map is not valid.
    """
    flat = np.asarray(maps, np.float64).reshape(-1, *maps.shape[-2:])
    usable = valid(flat)
    positive = np.maximum(np.where(usable[:, None, None], flat, 0.0), 0.0)
    low, high = positive.min(axis=(1, 2)), positive.max(axis=(1, 2))
    span = np.where(high > low, high - low, 1.0)
    codes = np.rint((positive - low[:, None, None]) / span[:, None, None] * 255).astype(np.uint8)
    low = np.where(usable, low, np.nan)
    shape = maps.shape[:-2]
    return codes.reshape(maps.shape), low.reshape(shape).astype(np.float32), high.reshape(shape).astype(np.float32)


def pictures(probe: NDArray[np.uint8], longest: int = LONGEST) -> list[str]:
    """Pictures (N, H, W, 3) as ``data:`` addresses, at most ``longest`` pixels long: exact where they are small, else WebP."""
    scale = longest / max(probe.shape[1:3])
    size = (probe.shape[2], probe.shape[1])
    if scale < 1:
        size = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    exact = len(probe) * size[0] * size[1] * 3 <= LOSSLESS * (longest / LONGEST) ** 2
    return [_picture(Image.fromarray(pixels).resize(size, Image.Resampling.BOX), exact) for pixels in probe]


def _picture(picture: Image.Image, exact: bool) -> str:
    buffer = io.BytesIO()
    if exact:
        kind = "png"
        picture.save(buffer, format="PNG", optimize=True)
    elif features.check("webp"):
        kind = "webp"
        picture.save(buffer, format="WEBP", quality=90, method=4)
    else:
        kind = "jpeg"
        picture.save(buffer, format="JPEG", quality=92)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
