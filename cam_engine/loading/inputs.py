"""From a picture to a model's input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cam_engine.geometry import Geometry, Prepare


def normalising(
    prepare: Prepare, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Callable[[Image.Image], Tensor]:
    """``preprocess=`` for :func:`cam_engine.explain`: ``prepare``, then ``(input - mean) / std`` for each channel."""

    def preprocess(picture: Image.Image) -> Tensor:
        tensor = prepare(picture)[0]
        shift, scale = (torch.tensor(v or d, dtype=tensor.dtype) for v, d in ((mean, [0.0]), (std, [1.0])))
        return (tensor - shift.reshape(-1, 1, 1)) / scale.reshape(-1, 1, 1)

    return preprocess


def processed(processor: Any) -> Callable[[Image.Image], Tensor]:
    """What the image processor of a transformers model makes of a picture."""

    def preprocess(picture: Image.Image) -> Tensor:
        tensor: Tensor = processor(images=picture, return_tensors="pt")["pixel_values"]
        return tensor

    return preprocess


def resized(side: int | None) -> Prepare:
    """The picture stretched to a square, or at its own size; RGB in [0, 1]."""

    def prepare(picture: Image.Image) -> tuple[Tensor, Geometry]:
        size = (picture.height, picture.width)
        if side is None:
            return unit(picture), Geometry.stretched(size, size)
        return unit(picture.resize((side, side), Image.Resampling.BILINEAR)), Geometry.stretched(size, (side, side))

    return prepare


def centre_crop(side: int) -> Callable[[Image.Image], Tensor]:
    """The middle of the picture, its shorter side resized to ``side``; RGB in [0, 1]."""

    def preprocess(picture: Image.Image) -> Tensor:
        factor = side / min(picture.size)
        width, height = (max(side, round(length * factor)) for length in picture.size)
        left, top = (width - side) // 2, (height - side) // 2
        resized = picture.resize((width, height), Image.Resampling.BILINEAR)
        return unit(resized.crop((left, top, left + side, top + side)))

    return preprocess


def unit(picture: Image.Image) -> Tensor:
    """The picture's pixels, (1, C, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
