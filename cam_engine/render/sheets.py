"""Pictures with words: a labelled panel, a contact sheet of one look, a film strip over epochs.

The size of each depends on the pictures and on how many lines there are, never on what the words say: TensorBoard's
slider over epochs must not jump when an epoch gets another digit or a prediction changes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cam_engine.render.heat import DEFAULT_COLORMAP, check_blend
from cam_engine.render.page import Page, Style, legend_height, legend_items
from cam_engine.render.text import SEPARATOR
from cam_engine.render.tiles import Tile, draw_tile, scaled_size

WIDEST = 4000
"""Pixels. A film strip with more epochs than fit is thinned."""

_LABEL_WIDTH = 116
_NARROWEST = 190  # room for the colour bar and a short note


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
        tile: The picture; enlarged until its longer side has ``size`` pixels, never shrunk.
        title: One line, such as "gradcam · layer4 · epoch 12"; "" leaves no room for one.
        size: 32 to 4096.
        alpha, colormap, cells: As for ``overlay``.
        legend: Show the colour map from low to high, and what the outlines mean.

    Returns:
        (height, width, 3) uint8 RGB.

    >>> from cam_engine.render import Tile, panel
    >>> tile = Tile(np.zeros((32, 32, 3), np.uint8), np.eye(4), ("cat", "87 %"))
    >>> panel(tile, title="gradcam · layer4 · epoch 12", size=128).shape[1] >= 128
    True
    """
    check_blend(alpha, colormap)
    _check_pixels("size", size, 4096)
    height, width = scaled_size(tile, max(size, *tile.image.shape[:2]))
    style = Style(max(1.0, max(height, width) / 320))
    content = max(width, style.px(_NARROWEST))
    items = legend_items([tile]) if legend else []
    head = style.title_height if title else 0
    body = height + style.caption_height(len(tile.caption))
    page = Page(style, content, head + body + legend_height(style, items, content))
    if title:
        page.title(title, content)
    picture = draw_tile(tile, (height, width), alpha=alpha, colormap=colormap, cells=cells)
    page.picture((0, head), (height, content), picture)
    page.caption((0, head + height), tile, content)
    page.legend(head + body, items, colormap, content)
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
        tiles: At least one.
        title, alpha, colormap, legend, cells: As for ``panel``.
        columns: Tiles in a row; by default about as many as there are rows. Fewer where more would be wider than
            4000 px.
        tile_size: Longer side of each picture in pixels, 32 to 1024.

    Returns:
        (height, width, 3) uint8 RGB.

    >>> from cam_engine.render import Tile, contact_sheet
    >>> tiles = [Tile(np.full((32, 32, 3), grey, np.uint8), np.eye(4), (str(grey),)) for grey in (0, 90, 180)]
    >>> contact_sheet(tiles, title="gradcam · epoch 3", columns=3).shape[2]
    3
    """
    check_blend(alpha, colormap)
    _check_pixels("tile_size", tile_size, 1024)
    if not tiles:
        raise ValueError("contact_sheet needs at least one tile, got none")
    if columns is not None and columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    draw = functools.partial(draw_tile, alpha=alpha, colormap=colormap, cells=cells)
    style = Style(max(1.0, tile_size / 240))
    cell = _cell(tiles, tile_size)
    step_x = cell[1] + style.gap
    step_y = cell[0] + style.caption_height(max(len(tile.caption) for tile in tiles)) + style.gap
    most = (WIDEST - 2 * style.margin + style.gap) // step_x
    columns = min(columns or math.ceil(math.sqrt(len(tiles))), len(tiles), most)
    content = max(columns * step_x - style.gap, style.px(_NARROWEST))
    head = style.title_height if title else 0
    body = math.ceil(len(tiles) / columns) * step_y - style.gap
    items = legend_items(tiles) if legend else []
    page = Page(style, content, head + body + legend_height(style, items, content))
    if title:
        page.title(title, content)
    for index, tile in enumerate(tiles):
        left, top = index % columns * step_x, head + index // columns * step_y
        page.picture((left, top), cell, draw(tile, scaled_size(tile, tile_size)))
        page.caption((left, top + cell[0]), tile, cell[1])
    page.legend(head + body, items, colormap, content)
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
        rows: For each probe image one tile per epoch; None leaves a gap.
        row_labels: One per row, wrapped beside its plain picture. Lines part at " · " where they can.
        column_labels: One per epoch, such as "epoch 3".
        title, alpha, colormap, legend, cells: As for ``panel``.
        note: One line at the foot.
        tile_size: Longer side of each picture in pixels, 32 to 512.

    Returns:
        (height, width, 3) uint8 RGB, at most 4000 px wide: epochs that do not fit are left out evenly, the first and
        the last are kept, and the foot says "showing 20 of 50 epochs".

    Raises:
        ValueError: No rows or no epochs, or rows and labels that disagree in number.

    >>> from cam_engine.render import Tile, film_strip
    >>> picture = np.zeros((32, 32, 3), np.uint8)
    >>> row = [Tile(picture, np.eye(4)), None, Tile(picture, np.eye(4)[::-1])]
    >>> film_strip([row], row_labels=["cat"], column_labels=["epoch 0", "epoch 1", "epoch 2"]).shape[2]
    3
    """
    check_blend(alpha, colormap)
    _check_pixels("tile_size", tile_size, 512)
    _check_strip(rows, row_labels, column_labels)
    draw = functools.partial(draw_tile, alpha=alpha, colormap=colormap, cells=cells)
    style = Style(max(1.0, tile_size / 160))
    present = [tile for row in rows for tile in row if tile is not None]
    cell = _cell(present, tile_size)
    gutter = style.px(_LABEL_WIDTH) + style.gap if any(row_labels) else 0
    step_x = cell[1] + style.px(6)
    step_y = cell[0] + style.caption_height(max((len(tile.caption) for tile in present), default=0)) + style.px(12)
    first = gutter + step_x + style.gap
    columns = _evenly_spread(len(column_labels), (WIDEST - 2 * style.margin - first) // step_x)
    if len(columns) < len(column_labels):
        thinned = f"showing {len(columns)} of {len(column_labels)} epochs"
        note = f"{note}{SEPARATOR}{thinned}" if note else thinned

    lefts = [gutter, *(first + place * step_x for place in range(len(columns)))]
    content = max(lefts[-1] + cell[1], style.px(_NARROWEST))
    items = legend_items(present) if legend else []
    labels_top = style.title_height if title else 0
    body_top = labels_top + style.px(20)
    legend_top = body_top + len(rows) * step_y - style.px(12)
    note_top = legend_top + legend_height(style, items, content)
    page = Page(style, content, note_top + (style.px(20) if note else 0))
    if title:
        page.title(title, content)
    for left, label in zip(lefts, ["image", *(column_labels[column] for column in columns)], strict=True):
        page.words((left, labels_top), label, cell[1])
    for index, row in enumerate(rows):
        top = body_top + index * step_y
        page.label((0, top), row_labels[index], gutter - style.gap, cell[0])
        for left, tile in zip(lefts, [_plain(row), *(row[column] for column in columns)], strict=True):
            if tile is None:
                page.gap((left, top), cell)
                continue
            page.picture((left, top), cell, draw(tile, scaled_size(tile, tile_size)))
            page.caption((left, top + cell[0]), tile, cell[1])
    page.legend(legend_top, items, colormap, content)
    page.words((0, note_top + style.px(3)), note, content)
    return page.pixels()


def _plain(row: Sequence[Tile | None]) -> Tile | None:
    """The row's picture with nothing drawn on it; None if the row is all gaps."""
    tile = next((tile for tile in row if tile is not None), None)
    return tile and Tile(tile.image)


def _cell(tiles: Sequence[Tile], tile_size: int) -> tuple[int, int]:
    """(height, width) that holds each tile's picture; square without tiles."""
    sizes = [scaled_size(tile, tile_size) for tile in tiles] or [(tile_size, tile_size)]
    return max(height for height, _ in sizes), max(width for _, width in sizes)


def _evenly_spread(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` indices, evenly spread, the first and the last among them."""
    return [round(place) for place in np.linspace(0, count - 1, min(count, most))]


def _check_pixels(name: str, pixels: int, most: int) -> None:
    if not 32 <= pixels <= most:
        raise ValueError(f"{name} is in pixels, 32 to {most}, got {pixels}")


def _check_strip(
    rows: Sequence[Sequence[Tile | None]], row_labels: Sequence[str], column_labels: Sequence[str]
) -> None:
    if not rows or not column_labels:
        raise ValueError(
            f"film_strip needs rows and epochs, got {len(rows)} rows and {len(column_labels)} column labels"
        )
    if len(row_labels) != len(rows):
        raise ValueError(f"film_strip takes one label per row, got {len(row_labels)} labels for {len(rows)} rows")
    for index, row in enumerate(rows):
        if len(row) != len(column_labels):
            raise ValueError(f"row {index} has {len(row)} tiles for {len(column_labels)} column labels; pad with None")
