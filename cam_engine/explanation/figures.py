"""The pictures of an explanation: the overlay, the figure with its caption, the sheet of several methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cam_engine.explanation.reading import Picture
from cam_engine.explanation.request import Look
from cam_engine.render import Tile, contact_sheet, draw_tile, panel
from cam_engine.render.text import SEPARATOR

MOST_PARTS = 16  # on one sheet
MOST_BOXES = 10  # on one picture, the best
_FIGURE = 640  # pixels, the least of a figure's longer side
_SHEET_TILE = 400

Box = Sequence[Any]  # x1, y1, x2, y2, or four corners (x, y)


def overlay_of(picture: Picture, heatmap: NDArray[np.float32], valid: bool, look: Look) -> NDArray[np.uint8]:
    """The picture's own pixels with the focus coloured; a map that is not valid leaves them plain, marked "no focus"."""
    tile = _tile(np.asarray(picture.original), heatmap if valid else np.zeros_like(heatmap), picture, ())
    return draw_tile(tile, tile.image.shape[:2], alpha=look.alpha, colormap=look.colormap, cells=False)


def plain_overlay(picture: Picture) -> NDArray[np.uint8]:
    """The picture as it is: there is nothing to explain."""
    return np.array(picture.original)


def with_figure(explained: dict[str, Any], picture: Picture, look: Look, lines: Sequence[str]) -> None:
    """Add ``figure``, the overlay with its caption and legend, unless captions are switched off."""
    if look.caption:
        tile = _tile(np.asarray(picture.original), explained["heatmap"], picture, tuple(line for line in lines if line))
        explained["figure"] = panel(tile, size=_FIGURE, alpha=look.alpha, colormap=look.colormap)


def methods_sheet(
    by_method: Mapping[str, Mapping[str, Any]], picture: Picture, look: Look, title: str
) -> NDArray[np.uint8]:
    """The picture and each method's map, side by side, in rows of three to five."""
    first = next(iter(by_method.values()))
    pixels = np.asarray(picture.original)
    boxes = [each.get("corners", each["box"]) for each in first.get("detections", [])[:MOST_BOXES]]
    tiles = [Tile(pixels, None, ("image",) if look.caption else (), boxes=boxes)]
    for method, each in by_method.items():
        tiles.append(_tile(pixels, each["heatmap"], picture, (method,) if look.caption else (), boxes))
    columns = len(tiles) if len(tiles) <= 5 else 3 if len(tiles) in (6, 9) else 4
    return contact_sheet(
        tiles,
        title=title if look.caption else "",
        columns=columns,
        tile_size=_SHEET_TILE if columns < 5 else 320,
        alpha=look.alpha,
        colormap=look.colormap,
        legend=look.caption,
    )


def parts_sheet(picture: Picture, parts: Sequence[Mapping[str, Any]], look: Look) -> NDArray[np.uint8]:
    """Each part's map on the picture, with its box, label and score; the first sixteen."""
    tiles = []
    for part in parts[:MOST_PARTS]:
        count = len(part["boxes"])
        words = [part["label"] or "all detections", f"{part['score']:.2f}"]
        words += [f"{MOST_BOXES} of {count} boxes"] if count > MOST_BOXES else []
        boxes = part.get("corners", part["boxes"])[:MOST_BOXES]
        tiles.append(_tile(np.asarray(picture.original), part["heatmap"], picture, (SEPARATOR.join(words),), boxes))
    title = f"{len(tiles)} of {len(parts)} parts" if len(parts) > len(tiles) else ""
    return contact_sheet(tiles, title=title, tile_size=_SHEET_TILE, alpha=look.alpha, colormap=look.colormap)


def _tile(
    pixels: NDArray[np.uint8],
    heatmap: NDArray[np.float32],
    picture: Picture,
    caption: tuple[str, ...],
    boxes: Sequence[Box] | None = None,
) -> Tile:
    return Tile(pixels, heatmap, caption, boxes=boxes, focus=True, seen=picture.geometry.seen())
