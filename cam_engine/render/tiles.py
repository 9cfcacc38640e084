"""One probe image as it is drawn: enlarged, blended with its map, outlined. No words but "no focus"."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from cam_engine.render._cv2 import cv2
from cam_engine.render.heat import check_image, is_valid, overlay
from cam_engine.render.text import font

TARGET_COLOR = (92, 255, 157)
NUISANCE_COLOR = (64, 200, 255)
OUTLINE_CASING = (16, 18, 20)


Boxes = Sequence[Sequence[float]] | Sequence[Sequence[Sequence[float]]] | NDArray[np.floating] | None


@dataclass(frozen=True, eq=False)
class Tile:
    """One probe image at one look, and what to say about it.

    Attributes:
        image: (H, W, 3) uint8 RGB, as a person sees it.
        heatmap: (h, w) on the layer's own grid; None for the plain picture. A map that is not valid shows the
            plain picture marked "no focus".
        caption: Lines under the picture, such as ("cat · predicted dog", "87 %").
        wrong: The prediction differs from the label; the caption then has a red cross before it.
        masks: What should be looked at, bool (H, W) or (K, H, W): a solid outline.
        nuisance: What should not decide, bool (H, W) or (K, H, W): a dashed outline.
        boxes: What should be looked at, as K boxes (x1, y1, x2, y2) in the image's pixels: solid rectangles; or as K oriented
            boxes of four corners (x, y): solid outlines.
        focus: Colour the focus only, as ``overlay`` does.
        seen: (x1, y1, x2, y2) in the image's pixels: what the model saw of it. What it did not see is grey and hatched.

    Raises:
        TypeError, ValueError: When made, any of these in another dtype or shape.

    >>> from cam_engine.render import Tile, panel
    >>> tile = Tile(np.zeros((64, 64, 3), np.uint8), heatmap=np.eye(4), caption=("cat · predicted dog", "87 %"), wrong=True)
    >>> panel(tile, size=128).shape[2]
    3
    """

    image: NDArray[np.uint8]
    heatmap: ArrayLike | None = None
    caption: tuple[str, ...] = ()
    wrong: bool = False
    masks: NDArray[np.bool_] | None = None
    nuisance: NDArray[np.bool_] | None = None
    boxes: Boxes = None
    focus: bool = False
    seen: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        check_image(self.image)
        if self.heatmap is not None:
            is_valid(self.heatmap)
        if isinstance(self.caption, str):
            raise TypeError(f"caption is a tuple of lines, got the string {self.caption!r}; write ({self.caption!r},)")
        _as_masks(self.masks, "masks", self.image.shape[:2])
        _as_masks(self.nuisance, "nuisance", self.image.shape[:2])
        _as_boxes(self.boxes)

    @property
    def has_target(self) -> bool:
        """Whether something on target is outlined."""
        return self.masks is not None or (self.boxes is not None and len(self.boxes) > 0)


def scaled_size(tile: Tile, longer_side: int) -> tuple[int, int]:
    """(height, width) of the tile's picture when its longer side is ``longer_side`` pixels."""
    height, width = tile.image.shape[:2]
    scale = longer_side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def draw_tile(tile: Tile, size: tuple[int, int], *, alpha: float, colormap: str, cells: bool) -> NDArray[np.uint8]:
    """The tile at (height, width) = ``size``: picture, blended map, outlines. (height, width, 3) uint8 RGB.

    The map goes straight from its own grid to ``size``: blending before enlarging would blur it twice.

    >>> from cam_engine.render import Tile, draw_tile
    >>> tile = Tile(np.zeros((32, 32, 3), np.uint8), np.eye(4))
    >>> draw_tile(tile, (64, 64), alpha=0.5, colormap="inferno", cells=False).shape
    (64, 64, 3)
    """
    shape, image = tile.image.shape[:2], _resize(tile.image, size)
    picture = overlay(image, tile.heatmap, alpha=alpha, colormap=colormap, cells=cells, focus=tile.focus)
    if tile.seen is not None and tile.heatmap is not None:
        _hatch_outside(picture, image, np.asarray(tile.seen) * np.tile([size[1] / shape[1], size[0] / shape[0]], 2))
    for mask in _as_masks(tile.nuisance, "nuisance", shape):
        _outline(picture, mask, NUISANCE_COLOR, dashed=True)
    for mask in _as_masks(tile.masks, "masks", shape):
        _outline(picture, mask, TARGET_COLOR, dashed=False)
    for box in _as_boxes(tile.boxes):
        _box(picture, box * [size[1] / shape[1], size[0] / shape[0]])
    if tile.heatmap is not None and not is_valid(tile.heatmap):
        return _labelled(picture, "no focus", "-")
    return picture


def shrunk(image: NDArray[np.uint8], longer_side: int) -> NDArray[np.uint8]:
    """The picture (H, W, 3) uint8 RGB, smaller if it must be, so that its longer side has at most so many pixels.

    >>> from cam_engine.render import shrunk
    >>> shrunk(np.zeros((100, 50, 3), np.uint8), 20).shape
    (20, 10, 3)
    """
    scale = longer_side / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return image if scale >= 1 else _resize(check_image(image), (height, width))


def _resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    height, width = size
    shrinks = height * width < image.shape[0] * image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=method), np.uint8)


def _outline(picture: NDArray[np.uint8], mask: NDArray[np.bool_], color: tuple[int, int, int], *, dashed: bool) -> None:
    height, width = picture.shape[:2]
    shrinks = height * width < mask.size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    coverage = np.asarray(cv2.resize(mask.astype(np.float32), (width, height), interpolation=method))
    # A thin stroke covers little of each pixel once shrunk, and must not vanish.
    inside = (coverage > (0.2 if shrinks else 0.5)).astype(np.uint8)
    contours, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    line, casing = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint8)
    cv2.drawContours(casing, contours, -1, 1, 3)
    if dashed:
        for points in (contour[:, 0] for contour in contours):
            kept = points[np.arange(len(points)) % 7 < 4]
            line[kept[:, 1], kept[:, 0]] = 1
    else:
        cv2.drawContours(line, contours, -1, 1, 1)
    _stroke(picture, line, casing, color)


def _hatch_outside(picture: NDArray[np.uint8], image: NDArray[np.uint8], seen: NDArray[np.float64]) -> None:
    """Grey and hatched, what is outside of ``seen`` (x1, y1, x2, y2), in pixels of the picture."""
    rows, columns = np.arange(picture.shape[0])[:, None] + 0.5, np.arange(picture.shape[1])[None] + 0.5
    outside = (columns < seen[0]) | (columns > seen[2]) | (rows < seen[1]) | (rows > seen[3])
    step = max(10, max(picture.shape[:2]) // 32)
    lines = (rows + columns) % step < max(1, step // 12)
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.float32) * 0.4 + 136
    picture[outside] = np.where(lines, grey * 0.82, grey)[outside, None].astype(np.uint8)


def _box(picture: NDArray[np.uint8], corners: NDArray[np.float64]) -> None:
    """Two opposite corners (2, 2) of an upright box, or all four (4, 2) of an oriented one."""
    height, width = picture.shape[:2]
    line, casing = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint8)
    if len(corners) == 2:
        corners = corners.clip(0, np.array([width, height]) - 1)
        corners = _upright(corners)
    points = [np.rint(corners).astype(np.int32)]
    cv2.polylines(casing, points, True, 1, 3)
    cv2.polylines(line, points, True, 1, 1)
    _stroke(picture, line, casing, TARGET_COLOR)


def _upright(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """The four corners of a box of two."""
    (left, top), (right, bottom) = corners
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def _stroke(
    picture: NDArray[np.uint8], line: NDArray[np.uint8], casing: NDArray[np.uint8], color: tuple[int, int, int]
) -> None:
    """Draw ``line`` over a half-transparent dark ``casing``, which keeps it visible on bright pictures and bright maps
    and still lets a small picture be seen through it."""
    shaded = casing > 0
    picture[shaded] = (picture[shaded] * 0.5 + np.array(OUTLINE_CASING) * 0.5).astype(np.uint8)
    picture[line > 0] = color


def _labelled(picture: NDArray[np.uint8], *words: str) -> NDArray[np.uint8]:
    """The picture with the first of ``words`` that fits on a dark label at its lower left; unmarked if none does."""
    height, width = picture.shape[:2]
    size = max(8, min(13, width // 8), min(width, height) // 24)
    face, label_height, bottom = font(size), size + 7, height - 5
    for text in words:
        label_width = math.ceil(face.getlength(text)) + 10
        if label_width + 8 > width or label_height + 8 > height:
            continue
        canvas = Image.fromarray(picture)
        draw = ImageDraw.Draw(canvas, "RGBA")
        draw.rounded_rectangle((4, bottom - label_height, 4 + label_width, bottom), 4, fill=(*OUTLINE_CASING, 205))
        draw.text((9, bottom - label_height / 2), text, font=face, fill=(255, 255, 255), anchor="lm")
        return np.array(canvas)
    return picture


def _as_masks(masks: NDArray[np.bool_] | None, name: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """(K, H, W) bool, K = 0 for None."""
    if masks is None:
        return np.zeros((0, *shape), np.bool_)
    if not isinstance(masks, np.ndarray) or masks.dtype != np.bool_:
        raise TypeError(f"{name} must be a bool array, got {getattr(masks, 'dtype', type(masks).__name__)}")
    if masks.ndim not in (2, 3) or masks.shape[-2:] != shape:
        raise ValueError(f"{name} must have the image's shape {shape}, or (K, *{shape}), got {masks.shape}")
    return masks[None] if masks.ndim == 2 else masks


def _as_boxes(boxes: Boxes) -> NDArray[np.float64]:
    """(K, 2, 2), or (K, 4, 2) of oriented ones, float64, K = 0 for None."""
    if boxes is None or len(boxes) == 0:
        return np.zeros((0, 2, 2))
    corners = np.asarray(boxes, np.float64)
    if corners.shape[1:] not in ((4,), (4, 2)) or not np.isfinite(corners).all():
        raise ValueError(
            f"boxes are K rows of finite (x1, y1, x2, y2), or of four (x, y), got shape {corners.shape}: {boxes!r:.80}"
        )
    return corners.reshape(len(corners), -1, 2)
