"""What lies under a map's focus: a window around its peak, cut out of the picture, no pixel of it blended."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from cam_engine.render.heat import check_image, is_valid, unit_scale
from cam_engine.render.page import Page, Style

SHARE = 3 / 8  # of the picture's shorter side: the side of the window
_LABEL_WIDTH = 110
_GAP = 2


def under_focus(image: NDArray[np.uint8], heatmap: ArrayLike) -> NDArray[np.uint8] | None:
    """The square window of a picture around the place where a map is highest, inside the picture.

    The peak is the centre of mass of the cells around the highest one; the window's side is three eighths of the picture's
    shorter side.

    Args:
        image: (H, W, 3) uint8.
        heatmap: (h, w), any values.

    Returns:
        (side, side, 3) uint8; None for a map that is not valid.

    >>> from cam_engine.render import under_focus
    >>> picture, heatmap = np.zeros((64, 64, 3), np.uint8), np.zeros((4, 4))
    >>> heatmap[1, 2], picture[16:32, 32:48] = 1, 255  # the highest cell lies on the white square
    >>> under_focus(picture, heatmap).shape, under_focus(picture, 0 * heatmap)
    ((24, 24, 3), None)
    """
    check_image(image)
    if not is_valid(heatmap):
        return None
    height, width = image.shape[:2]
    side = max(1, math.floor(SHARE * min(height, width) + 0.5))
    y, x = peak(unit_scale(heatmap))
    top, left = (
        min(max(math.floor(at * length - side / 2 + 0.5), 0), length - side) for at, length in ((y, height), (x, width))
    )
    return image[top : top + side, left : left + side]


def peak(heatmap: NDArray[np.floating]) -> tuple[float, float]:
    """Where a map (h, w) of non-negative values is highest, (down, right) in [0, 1]."""
    h, w = heatmap.shape
    row, column = divmod(int(np.argmax(heatmap)), w)
    rows, columns = np.arange(max(0, row - 1), min(h, row + 2)), np.arange(max(0, column - 1), min(w, column + 2))
    around = heatmap[np.ix_(rows, columns)]
    total = around.sum()
    if total == 0:  # all cells alike
        return (row + 0.5) / h, (column + 0.5) / w
    return float((around.sum(1) * (rows + 0.5)).sum() / total / h), float(
        (around.sum(0) * (columns + 0.5)).sum() / total / w
    )


def focus_wall(
    rows: Sequence[Sequence[NDArray[np.uint8] | None]],
    *,
    row_labels: Sequence[str],
    title: str = "",
    note: str = "",
    tile_size: int = 56,
) -> NDArray[np.uint8]:
    """Crops in rows, such as a row a class, under one title; None leaves a gap.

    Args:
        rows: For each row the crops that :func:`under_focus` returned.
        row_labels: One a row; "" for none.
        title, note: One line above, one at the foot.
        tile_size: Side of a crop in pixels.

    Returns:
        (height, width, 3) uint8 RGB, of a size that depends on the numbers of rows and crops alone.

    Raises:
        ValueError: No rows, or another number of labels.

    >>> from cam_engine.render import focus_wall
    >>> crops = [np.full((12, 12, 3), grey, np.uint8) for grey in (0, 90, 180)]
    >>> focus_wall([crops, [crops[0], None]], row_labels=["cat", "dog"]).shape[2]
    3
    """
    if not rows or len(rows) != len(row_labels):
        raise ValueError(
            f"focus_wall takes at least one row and a label for each, got {len(rows)} and {len(row_labels)}"
        )
    style = Style(max(1.0, tile_size / 56))
    gutter = style.px(_LABEL_WIDTH) if any(row_labels) else 0
    step, head = tile_size + _GAP, style.title_height if title else 0
    width = max(gutter + max(map(len, rows)) * step, style.px(320))
    foot = head + len(rows) * step
    page = Page(style, width, foot + (style.px(22) if note else 0))
    if title:
        page.title(title, width)
    for index, (row, label) in enumerate(zip(rows, row_labels, strict=True)):
        top = head + index * step
        page.label((0, top), label, gutter - style.gap, tile_size)
        for place, crop in enumerate(row):
            corner, cell = (gutter + place * step, top), (tile_size, tile_size)
            if crop is None:
                page.gap(corner, cell)
            else:
                page.picture(corner, cell, np.asarray(Image.fromarray(crop).resize(cell, Image.Resampling.BILINEAR)))
    page.words((0, foot + style.px(4)), note, width)
    return page.pixels()


def above(upper: NDArray[np.uint8], lower: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two pictures on one white page, (H1 + H2, max W, 3).

    >>> from cam_engine.render import above
    >>> one, other = np.zeros((10, 20, 3), np.uint8), np.zeros((5, 30, 3), np.uint8)
    >>> above(one, other).shape
    (15, 30, 3)
    """
    width = max(upper.shape[1], lower.shape[1])
    whole = np.full((len(upper) + len(lower), width, 3), 255, np.uint8)
    whole[: len(upper), : upper.shape[1]] = upper
    whole[len(upper) :, : lower.shape[1]] = lower
    return whole
