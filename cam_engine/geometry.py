"""Where a model's input lies on the original picture: resized, cropped, letterboxed, mirrored; and back again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cam_engine.render.resize import resize_linear

Prepare = Callable[[Image.Image], tuple[Tensor, "Geometry"]]
"""From a picture to the model's input (1, C, H, W), and where that lies on the picture."""

LETTERBOX_GREY = 114  # what YOLO models are trained with


@dataclass(frozen=True)
class Geometry:
    """``original = scale · input + shift`` for rows and for columns, in pixels from the upper left edge.

    ``original`` and ``input`` are (height, width); ``scale`` and ``shift`` (rows, columns).
    """

    original: tuple[int, int]
    input: tuple[int, int]
    scale: tuple[float, float]
    shift: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def stretched(cls, original: tuple[int, int], size: tuple[int, int]) -> Geometry:
        """The whole picture fills the whole input."""
        return cls(original, size, (original[0] / size[0], original[1] / size[1]))

    def heatmap(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """A map (h, w) over the input as one over the original (H, W), bilinear; 0 where the input did not reach."""
        axes = []
        for axis in range(2):
            centres = np.arange(self.original[axis]) + 0.5
            axes.append(2 * (centres - self.shift[axis]) / self.scale[axis] / self.input[axis] - 1)
        rows, columns = (torch.from_numpy(axis) for axis in axes)
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)[None]
        source = torch.from_numpy(np.asarray(values, np.float64))[None, None]
        sampled = F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)[0, 0]
        inside = (rows.abs() <= 1)[:, None] & (columns.abs() <= 1)[None, :]
        heatmap: NDArray[np.float32] = torch.where(inside, sampled, 0.0).float().numpy()
        return heatmap

    def seen(self) -> tuple[float, float, float, float] | None:
        """What the model saw of the original, (x1, y1, x2, y2) in its pixels; None where that is all of it but a pixel's width."""
        x1, y1, x2, y2 = self.box((0, 0, self.input[1], self.input[0]))
        height, width = self.original
        everything = x1 <= 1 and y1 <= 1 and x2 >= width - 1 and y2 >= height - 1
        return None if everything else (x1, y1, x2, y2)

    def box(self, xyxy: Sequence[float]) -> tuple[float, float, float, float]:
        """A box in the input's pixels as one in the original's, cut at its edges."""
        xs = [float(x) * self.scale[1] + self.shift[1] for x in xyxy[0::2]]
        ys = [float(y) * self.scale[0] + self.shift[0] for y in xyxy[1::2]]
        (height, width), cut = self.original, lambda value, most: min(max(value, 0.0), float(most))
        return cut(min(xs), width), cut(min(ys), height), cut(max(xs), width), cut(max(ys), height)

    def points(self, xy: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
        """Places in the input's pixels as those in the original's, which may lie outside of it."""
        return [(x * self.scale[1] + self.shift[1], y * self.scale[0] + self.shift[0]) for x, y in xy]


def letterbox(picture: Image.Image, size: tuple[int, int], stride: int) -> tuple[Image.Image, Geometry]:
    """The picture as large as fits into ``size`` (height, width); grey is added around until both sides are multiples of
    ``stride``."""
    factor = min(size[0] / picture.height, size[1] / picture.width)
    width, height = (max(1, round(side * factor)) for side in picture.size)
    full_width, full_height = (-(-side // stride) * stride for side in (width, height))
    left, top = (full_width - width) // 2, (full_height - height) // 2
    canvas = Image.new("RGB", (full_width, full_height), (LETTERBOX_GREY,) * 3)
    canvas.paste(Image.fromarray(resize_linear(np.array(picture.convert("RGB")), (height, width))), (left, top))
    scale = (picture.height / height, picture.width / width)
    original, whole = (picture.height, picture.width), (full_height, full_width)
    return canvas, Geometry(original, whole, scale, (-top * scale[0], -left * scale[1]))


def measured(preprocess: Callable[[Image.Image], Tensor]) -> Prepare:
    """``preprocess`` together with the geometry that it applies, found by sending four test pictures through it.

    Black and white tell content from padding and undo the normalisation; a ramp along each axis then says which part of
    the picture each row and column of the input shows. A preprocessing that is no resize, crop, padding or mirroring
    (or normalises each picture by itself) counts as stretching the whole picture.
    """
    known: dict[tuple[int, int], Geometry] = {}

    def prepare(picture: Image.Image) -> tuple[Tensor, Geometry]:
        tensor = batched(preprocess(picture))
        size = (picture.height, picture.width)
        if size not in known or known[size].input != tuple(tensor.shape[-2:]):
            known[size] = _measure(preprocess, size, (tensor.shape[-2], tensor.shape[-1]))
        return tensor, known[size]

    return prepare


def batched(tensor: Tensor) -> Tensor:
    """(1, C, H, W) of (C, H, W) or (1, C, H, W).

    Raises:
        TypeError, ValueError: Something else.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"preprocess= must return a tensor (C, H, W), not {type(tensor).__name__}.")
    whole = tensor[None] if tensor.ndim == 3 else tensor
    if whole.ndim != 4 or len(whole) != 1:
        raise ValueError(f"an image tensor must have shape (C, H, W) or (1, C, H, W), not {tuple(tensor.shape)}.")
    return whole


def _measure(preprocess: Callable[[Image.Image], Tensor], original: tuple[int, int], size: tuple[int, int]) -> Geometry:
    whole = Geometry.stretched(original, size)
    height, width = original
    across = np.tile((np.arange(width) + 0.5) / width, (height, 1))
    down = np.tile(((np.arange(height) + 0.5) / height)[:, None], (1, width))
    seen = [_sent(preprocess, shade) for shade in (np.zeros(original), np.ones(original), down, across)]
    if any(s is None or s.shape != size for s in seen):
        return whole
    black, white, *ramps = (np.asarray(s) for s in seen)
    span = white - black
    content = np.abs(span) > 0.5 * np.abs(span).max()
    if not np.isfinite(span).all() or np.abs(span).max() < 1e-6 or content.sum() < 16:
        return whole
    fits = [_line(ramp, black, span, content, axis, original[axis]) for axis, ramp in enumerate(ramps)]
    if any(fit is None for fit in fits):
        return whole
    (row_scale, row_shift), (column_scale, column_shift) = (fit for fit in fits if fit is not None)
    part = Geometry(original, size, (row_scale, column_scale), (row_shift, column_shift))
    return whole if _close(part, whole) else part


def _sent(preprocess: Callable[[Image.Image], Tensor], shade: NDArray[np.float64]) -> NDArray[np.float64] | None:
    pixels = np.repeat(np.rint(shade * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    try:
        return np.asarray(batched(preprocess(Image.fromarray(pixels)))[0, 0].double().cpu().numpy())
    except Exception:  # a preprocessing that does not take a plain picture is not measured
        return None


def _line(
    ramp: NDArray[np.float64],
    black: NDArray[np.float64],
    span: NDArray[np.float64],
    content: NDArray[np.bool_],
    axis: int,
    length: int,
) -> tuple[float, float] | None:
    """(scale, shift) of one axis; None where the picture's rows or columns do not lie on a line."""
    share = np.where(content, (ramp - black) / np.where(content, span, 1.0), 0.0)
    counts = content.sum(1 - axis)
    places = np.flatnonzero(counts > 0.5 * counts.max())
    places = places[2:-2] if len(places) > 12 else places  # resampling bends the ramp at the edges
    values = share.sum(1 - axis)[places] / counts[places] * length
    if len(places) < 3 or np.ptp(values) < 1e-6:
        return None
    scale, shift = np.polyfit(places + 0.5, values, 1)
    off = np.abs(scale * (places + 0.5) + shift - values).max()
    return (float(scale), float(shift)) if off <= 0.02 * length + 1 else None


def _close(part: Geometry, whole: Geometry) -> bool:
    """Do both put the input's corners within a hundredth of the picture?"""
    for axis in range(2):
        ends = np.array([0, whole.input[axis]])
        off = ends * part.scale[axis] + part.shift[axis] - ends * whole.scale[axis]
        if np.abs(off).max() > max(0.01 * whole.original[axis], 0.5):
            return False
    return True
