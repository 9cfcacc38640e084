"""Pictures with words: a labelled panel, a contact sheet of one look, a film strip over epochs.

The size of each depends on the pictures and on how many lines there are, never on what the words say: TensorBoard's
slider over epochs must not jump when an epoch gets another digit or a prediction changes.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .heat import DEFAULT_COLORMAP, check_blend, colorize
from .text import SEPARATOR, Font, fit, font, wrap
from .tiles import NUISANCE_COLOR, TARGET_COLOR, Tile, draw_tile, fitted

Color = tuple[int, int, int]

# A light page: TensorBoard, MLflow and printed reports are light, and a dark frame would swallow inferno's low end.
PAGE: Color = (255, 255, 255)
INK: Color = (28, 33, 40)
MUTED: Color = (95, 104, 114)
WRONG: Color = (192, 22, 48)
HAIRLINE: Color = (208, 213, 219)
EMPTY: Color = (243, 245, 247)

WIDEST = 4000
"""Pixels. A film strip with more epochs than fit is thinned."""


def panel(
    tile: Tile,
    *,
    title: str = "",
    size: int = 224,
    alpha: float = 0.5,
    colormap: str = DEFAULT_COLORMAP,
    legend: bool = True,
    cells: bool = False,
) -> NDArray[np.uint8]:
    """One labelled overlay: title, picture, caption, legend. What a logger shows for one probe image.

    Args:
        tile: the picture; enlarged until its longer side has `size` pixels, never shrunk.
        title: one line, such as "gradcam · layer4 · epoch 12"; "" leaves no room for one.
        size: at least 32.
        alpha, colormap, cells: as for `overlay`.
        legend: show the colour map from low to high, and what the outlines mean.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    check_blend(alpha, colormap)
    _check_size("size", size)
    height, width = fitted(tile, max(size, *tile.image.shape[:2]))
    style = _Style.scaled(max(1.0, max(height, width) / 320))
    content = max(width, round(180 * style.scale))
    key = _legend_items(style, [tile], shared_scale=True) if legend else []
    head = style.title_height if title else 0
    captions = style.caption_height(len(tile.caption))
    foot = _flow_height(style, key, content)
    page = _Page(style, content, head + height + captions + foot)
    if title:
        page.text((0, 0), title, page.style.title, INK, content)
    left = (content - width) // 2
    page.paste((left, head), draw_tile(tile, (height, width), alpha=alpha, colormap=colormap, cells=cells))
    page.caption((0, head + height), tile, content)
    page.flow(head + height + captions, key, colormap)
    return page.pixels()


def contact_sheet(
    tiles: Sequence[Tile],
    *,
    title: str = "",
    columns: int | None = None,
    tile_size: int = 160,
    alpha: float = 0.5,
    colormap: str = DEFAULT_COLORMAP,
    legend: bool = True,
    cells: bool = False,
) -> NDArray[np.uint8]:
    """All probe images of one look in a grid under one title, with one legend.

    Args:
        tiles: at least one.
        columns: tiles in a row; about as many as rows by default. Fewer where the sheet would be wider than 4000 px.
        tile_size: longer side of each picture in pixels, 32 to 1024.
        title, alpha, colormap, legend, cells: as for `panel`.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    check_blend(alpha, colormap)
    _check_size("tile_size", tile_size, 1024)
    if not tiles:
        raise ValueError("contact_sheet needs at least one tile, got none")
    if columns is not None and columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    style = _Style.scaled(max(1.0, tile_size / 240))
    cell_height, cell_width = _cell(tiles, tile_size)
    lines = max(len(tile.caption) for tile in tiles)
    step_x, step_y = cell_width + style.gap, cell_height + style.caption_height(lines) + style.gap
    most = max(1, (WIDEST - 2 * style.margin) // step_x)
    columns = min(columns or math.ceil(math.sqrt(len(tiles))), len(tiles), most)
    rows = math.ceil(len(tiles) / columns)
    content = max(columns * step_x - style.gap, style.narrowest)
    key = _legend_items(style, tiles) if legend else []
    head = style.title_height if title else 0
    body = rows * step_y - style.gap
    page = _Page(style, content, head + body + _flow_height(style, key, content))
    if title:
        page.text((0, 0), title, style.title, INK, content)
    for index, tile in enumerate(tiles):
        corner = (index % columns * step_x, head + index // columns * step_y)
        size = fitted(tile, tile_size)
        picture = draw_tile(tile, size, alpha=alpha, colormap=colormap, cells=cells)
        page.paste(_centred(corner, (cell_height, cell_width), size), picture)
        page.caption((corner[0], corner[1] + cell_height), tile, cell_width)
    page.flow(head + body, key, colormap)
    return page.pixels()


def film_strip(
    rows: Sequence[Sequence[Tile | None]],
    *,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    title: str = "",
    note: str = "",
    tile_size: int = 96,
    alpha: float = 0.5,
    colormap: str = DEFAULT_COLORMAP,
    legend: bool = True,
    cells: bool = False,
) -> NDArray[np.uint8]:
    """Probe images down, epochs across, the plain picture first.

    Args:
        rows: for each probe image one tile per epoch; None leaves a gap.
        row_labels: one per row, up to four short lines each.
        column_labels: one per epoch, such as "epoch 3".
        note: one line at the foot.
        tile_size: longer side of each picture in pixels, 32 to 1024.
        title, alpha, colormap, legend, cells: as for `panel`.

    Returns:
        (height, width, 3) uint8 RGB, at most 4000 px wide: epochs that do not fit are left out evenly, the first and
        the last are kept, and the foot says "showing 20 of 50 epochs".

    Raises:
        ValueError: without rows or epochs, or when labels and rows disagree in number.
    """
    check_blend(alpha, colormap)
    _check_size("tile_size", tile_size, 1024)
    _check_strip(rows, row_labels, column_labels)
    style = _Style.scaled(max(1.0, tile_size / 160))
    present = [tile for row in rows for tile in row if tile is not None]
    cell_height, cell_width = _cell(present, tile_size)
    gutter = round(112 * style.scale) + style.gap if any(row_labels) else 0
    step_x = cell_width + style.strip_gap
    first = gutter + step_x + style.gap  # where the epochs begin
    most = max(2, (WIDEST - 2 * style.margin - first + style.strip_gap) // step_x)
    shown = _thinned(len(column_labels), most)
    if len(shown) < len(column_labels):
        thinned = f"showing {len(shown)} of {len(column_labels)} epochs"
        note = f"{note}{SEPARATOR}{thinned}" if note else thinned

    lines = max((len(tile.caption) for tile in present), default=0)
    step_y = cell_height + style.caption_height(lines) + style.strip_gap
    content = max(first + len(shown) * step_x - style.strip_gap, style.narrowest)
    key = _legend_items(style, present) if legend else []
    title_height = style.title_height if title else 0
    head = title_height + style.line
    body = len(rows) * step_y - style.strip_gap
    foot = _flow_height(style, key, content)
    page = _Page(style, content, head + body + foot + (style.line if note else 0))
    if title:
        page.text((0, 0), title, style.title, INK, content)
    page.text((gutter, title_height), "image", style.small, MUTED, cell_width, centred=True)
    for place, column in enumerate(shown):
        label = column_labels[column]
        page.text((first + place * step_x, title_height), label, style.small, MUTED, cell_width, centred=True)
    for index, row in enumerate(rows):
        top = head + index * step_y
        page.lines((0, top), row_labels[index], gutter - style.gap, cell_height)
        plain = next((dataclasses.replace(tile, heatmap=None, caption=()) for tile in row if tile is not None), None)
        for place, tile in enumerate([plain, *(row[column] for column in shown)]):
            left = gutter if place == 0 else first + (place - 1) * step_x
            if tile is None:
                page.gap((left, top), (cell_height, cell_width))
                continue
            size = fitted(tile, tile_size)
            picture = draw_tile(tile, size, alpha=alpha, colormap=colormap, cells=cells)
            page.paste(_centred((left, top), (cell_height, cell_width), size), picture)
            page.caption((left, top + cell_height), tile, cell_width)
    page.flow(head + body, key, colormap)
    if note:
        page.text((0, head + body + foot), note, style.small, MUTED, content)
    return page.pixels()
