"""From a picture to a model's input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cam_engine.capture import Forward
from cam_engine.geometry import Geometry, Prepare
from cam_engine.guard import untouched

_USUAL_SIZES = (224, 256, 384, 299, 320, 512, 128, 96, 64, 48, 32, 28)


def normalised(prepare: Prepare, mean: float | Sequence[float] | None, std: float | Sequence[float] | None) -> Prepare:
    """``prepare``, then ``(input - mean) / std`` for each channel."""
    if mean is None and std is None:
        return prepare

    def prepare_and_normalise(picture: Image.Image) -> tuple[Tensor, Geometry]:
        tensor, geometry = prepare(picture)
        channels = tensor.shape[1]
        shift, scale = _per_channel("mean", mean, channels, 0.0), _per_channel("std", std, channels, 1.0)
        return (tensor - shift.to(tensor)) / scale.to(tensor), geometry

    return prepare_and_normalise


def processed(processor: Any, **settings: Any) -> Callable[[Image.Image], Tensor]:
    """What the image processor of a transformers model makes of a picture."""

    def preprocess(picture: Image.Image) -> Tensor:
        tensor: Tensor = processor(images=picture, return_tensors="pt", **settings)["pixel_values"]
        return tensor

    return preprocess


def resized(to: tuple[int, int] | None, channels: int = 3) -> Prepare:
    """The picture stretched to (height, width), or at its own size; RGB (or grey, of one channel) in [0, 1]."""

    def prepare(picture: Image.Image) -> tuple[Tensor, Geometry]:
        size = (picture.height, picture.width)
        if to is None:
            return unit(picture, channels), Geometry.stretched(size, size)
        stretched = picture.resize((to[1], to[0]), Image.Resampling.BILINEAR)
        return unit(stretched, channels), Geometry.stretched(size, to)

    return prepare


def accepted(net: nn.Module, forward: Forward | None = None) -> Prepare:
    """The picture at its own size, or, where the model does not take that, stretched to the first usual square it takes.

    Tried with a forward of the picture itself, which leaves no trace on the model.
    """
    channels = channels_of(net)

    def prepare(picture: Image.Image) -> tuple[Tensor, Geometry]:
        for to in (None, *((side, side) for side in _USUAL_SIZES)):
            tensor, geometry = resized(to, channels)(picture)
            if _takes(net, tensor, forward):
                return tensor, geometry
        return resized(None, channels)(picture)  # its own error says more than ours

    return prepare


def centre_crop(side: int) -> Callable[[Image.Image], Tensor]:
    """The middle of the picture, its shorter side resized to ``side``; RGB in [0, 1]."""

    def preprocess(picture: Image.Image) -> Tensor:
        factor = side / min(picture.size)
        width, height = (max(side, int(length * factor)) for length in picture.size)  # as torchvision rounds
        left, top = round((width - side) / 2), round((height - side) / 2)
        resized = picture.resize((width, height), Image.Resampling.BILINEAR)
        return unit(resized.crop((left, top, left + side, top + side)))

    return preprocess


def unit(picture: Image.Image, channels: int = 3) -> Tensor:
    """The picture's pixels, (1, channels, H, W) float32 in [0, 1]."""
    pixels = np.array(picture.convert("L" if channels == 1 else "RGB"))
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)[None].float() / 255


def channels_of(net: nn.Module) -> int:
    """Of the images that the model takes, as far as its first convolution says: one, or three."""
    first = next((module for module in net.modules() if isinstance(module, nn.Conv2d)), None)
    return 1 if first is not None and first.in_channels == 1 else 3


def _takes(net: nn.Module, tensor: Tensor, forward: Forward | None) -> bool:
    parameter = next((p for p in net.parameters() if p.is_floating_point()), None)
    tensor = tensor if parameter is None else tensor.to(parameter.device, parameter.dtype)
    try:
        with untouched(net), torch.inference_mode(False), torch.no_grad():
            _ = net(tensor) if forward is None else forward(net, tensor)
    except (RuntimeError, ValueError, AssertionError, IndexError):
        return False
    return True


def _per_channel(name: str, values: float | Sequence[float] | None, channels: int, otherwise: float) -> Tensor:
    """(channels, 1, 1).

    Raises:
        ValueError: Another number of values than one, or one for each channel; a standard deviation of 0.
    """
    given = [otherwise] if values is None else [float(value) for value in np.atleast_1d(np.asarray(values))]
    if len(given) not in (1, channels) or (name == "std" and 0 in given):
        raise ValueError(f"{name}= takes a number, or one for each of {channels} channels, not {values!r}.")
    return torch.tensor(given).reshape(-1, 1, 1)
