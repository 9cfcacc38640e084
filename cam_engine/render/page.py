"""The page that pictures and words are put on: its measures, its colours, its legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cam_engine.render.heat import colorize, overlay
from cam_engine.render.text import Font, font, shorten, wrap, written
from cam_engine.render.tiles import NUISANCE_COLOR, OUTLINE_CASING, TARGET_COLOR, Tile

Color = tuple[int, int, int]
Point = tuple[int, int]
"""(left, top) in pixels, measured from inside the page's margin."""

# A light page: TensorBoard, MLflow and printed reports are light, and a dark one would swallow inferno's low end.
PAPER: Color = (255, 255, 255)
INK: Color = (28, 33, 40)
MUTED: Color = (95, 104, 114)
WRONG: Color = (192, 22, 48)
HAIRLINE: Color = (208, 213, 219)
EMPTY: Color = (243, 245, 247)


@dataclass(frozen=True)
class Style:
    """Fonts and distances in pixels, in proportion to ``scale``."""

    scale: float = 1.0

    def px(self, length: float) -> int:
        """A length given at scale 1."""
        return round(length * self.scale)

    @property
    def title(self) -> Font:
        return font(self.px(15))

    @property
    def body(self) -> Font:
        return font(self.px(12))

    @property
    def margin(self) -> int:
        return self.px(12)

    @property
    def gap(self) -> int:
        return self.px(12)

    @property
    def line(self) -> int:
        return self.px(17)

    @property
    def title_height(self) -> int:
        return self.px(28)

    def caption_height(self, lines: int) -> int:
        """Room under a picture for ``lines`` lines of caption."""
        return self.px(4) + lines * self.line if lines else 0


@dataclass(frozen=True)
class LegendItem:
    """One entry of the legend: a mark ("bar", "fading bar", "solid", "dashed" or "") and words."""

    mark: str
    words: str

    def width(self, style: Style) -> int:
        """Pixels it takes, mark included."""
        words = round(style.body.getlength(self.words))
        if "bar" in self.mark:
            return words + style.px(80 + 2 * 6)
        return words + (style.px(18 + 6) if self.mark else 0)


def legend_items(tiles: Sequence[Tile]) -> list[LegendItem]:
    """What the legend of these tiles explains: the colours, and the outlines that occur."""
    items = [LegendItem("fading bar" if any(tile.focus for tile in tiles) else "bar", "lowhigh")]
    if any(tile.seen is not None for tile in tiles):
        items.append(LegendItem("", "hatched: not seen by the model"))
    if any(tile.has_target for tile in tiles):
        items.append(LegendItem("solid", "target"))
    if any(tile.nuisance is not None for tile in tiles):
        items.append(LegendItem("dashed", "nuisance"))
    if len(tiles) > 1:
        items.append(LegendItem("", "each map on its own scale"))
    return items


def legend_height(style: Style, items: Sequence[LegendItem], width: int) -> int:
    """Room that ``Page.legend`` takes, the space above included; 0 without items."""
    if not items:
        return 0
    return style.px(10) + style.line * (1 + _flow(style, items, width)[-1][1])


class Page:
    """A white page with a margin on every side. Positions are measured from inside the margin."""

    def __init__(self, style: Style, width: int, height: int) -> None:
        self.style = style
        size = (width + 2 * style.margin, height + 2 * style.margin)
        self._canvas = Image.new("RGB", size, PAPER)
        self._draw = ImageDraw.Draw(self._canvas)

    def pixels(self) -> NDArray[np.uint8]:
        """(height, width, 3) uint8 RGB."""
        return np.array(self._canvas)

    def title(self, words: str, width: int) -> None:
        """The page's title on one line at its top."""
        self._write((0, 0), words, self.style.title, INK, width, self.style.px(20))

    def words(self, corner: Point, words: str, width: int) -> None:
        """One line of muted text."""
        self._write(corner, words, self.style.body, MUTED, width, self.style.line)

    def label(self, corner: Point, words: str, width: int, height: int) -> None:
        """Text wrapped beside a picture of ``height`` pixels, centred on it."""
        lines = wrap(words, self.style.body, width, max(1, min(4, height // self.style.line)))
        left, top = corner[0], corner[1] + (height - len(lines) * self.style.line) // 2
        for number, line in enumerate(lines):
            color = MUTED if number else INK
            self._write((left, top + number * self.style.line), line, self.style.body, color, width, self.style.line)

    def picture(self, corner: Point, cell: tuple[int, int], pixels: NDArray[np.uint8]) -> None:
        """A picture in the middle of a cell of (height, width), in a hairline frame that ends a white picture."""
        height, width = pixels.shape[:2]
        left = corner[0] + (cell[1] - width) // 2 + self.style.margin
        top = corner[1] + (cell[0] - height) // 2 + self.style.margin
        self._draw.rectangle((left - 1, top - 1, left + width, top + height), outline=HAIRLINE)
        self._canvas.paste(Image.fromarray(pixels), (left, top))

    def gap(self, corner: Point, cell: tuple[int, int]) -> None:
        """An empty cell of (height, width) where there is no picture."""
        left, top = corner[0] + self.style.margin, corner[1] + self.style.margin
        right, bottom = left + cell[1] - 1, top + cell[0] - 1
        self._draw.rectangle((left, top, right, bottom), fill=EMPTY, outline=HAIRLINE)
        x, y, half = (left + right) // 2, (top + bottom) // 2, self.style.px(5)
        self._draw.line((x - half, y, x + half, y), fill=MUTED, width=self.style.px(1))

    def caption(self, corner: Point, tile: Tile, width: int) -> None:
        """The tile's caption below its picture, behind a red cross where the prediction is wrong.

        The words stay dark: red ones would need a picture's colours at full resolution to be legible, at twice the bytes.
        """
        style = self.style
        for number, line in enumerate(tile.caption):
            left, top = corner[0], corner[1] + style.px(4) + number * style.line
            color = MUTED if number else INK
            indent = 0
            if tile.wrong and number == 0:
                indent = style.px(12)
                self._cross((left, top))
            self._write((left + indent, top), line, style.body, color, width - indent, style.line)

    def legend(self, top: int, items: Sequence[LegendItem], colormap: str, width: int) -> None:
        """The legend, on as many lines as ``legend_height`` says."""
        for item, (left, line) in zip(items, _flow(self.style, items, width), strict=True):
            self._legend_item(item, (left, top + self.style.px(10) + line * self.style.line), colormap)

    def _legend_item(self, item: LegendItem, corner: Point, colormap: str) -> None:
        style, (left, top) = self.style, corner
        room = item.width(style)
        if "bar" in item.mark:
            self.words(corner, "low", room)
            after = left + round(style.body.getlength("low")) + style.px(6)
            ramp = np.tile(np.linspace(0, 1, style.px(80)), (style.px(9), 1))
            paper = np.full((*ramp.shape, 3), PAPER, np.uint8)
            bar = (
                colorize(ramp, colormap)
                if item.mark == "bar"
                else overlay(paper, ramp, alpha=1, colormap=colormap, focus=True)
            )
            self.picture((after, top), (style.line, style.px(80)), bar)
            self.words((after + style.px(80 + 6), top), "high", room)
            return
        indent = style.px(18 + 6) if item.mark else 0
        if item.mark:
            self.picture(corner, (style.line, style.px(18)), _swatch(item.mark, style))
        self.words((left + indent, top), item.words, room)

    def _cross(self, corner: Point) -> None:
        half = self.style.px(3)
        x = corner[0] + self.style.margin + half
        y = corner[1] + self.style.margin + self.style.line // 2
        for rise in (half, -half):
            self._draw.line((x - half, y - rise, x + half, y + rise), fill=WRONG, width=self.style.px(2))

    def _write(self, corner: Point, words: str, face: Font, color: Color, width: int, height: int) -> None:
        stamp = written(shorten(words, face, width), face, height)
        inside = self.style.margin - (stamp.height - height) // 2
        self._canvas.paste(color, (corner[0] + inside, corner[1] + inside), stamp)


def _flow(style: Style, items: Sequence[LegendItem], width: int) -> list[tuple[int, int]]:
    """(left, line number) of each item, set one after the other and wrapped at ``width``."""
    places: list[tuple[int, int]] = []
    left = line = 0
    for item in items:
        if left and left + item.width(style) > width:
            left, line = 0, line + 1
        places.append((left, line))
        left += item.width(style) + style.px(14)
    return places


def _swatch(mark: str, style: Style) -> NDArray[np.uint8]:
    """A stretch of outline as it looks on a picture."""
    height, width = style.px(7), style.px(18)
    swatch = np.full((height, width, 3), OUTLINE_CASING, np.uint8)
    middle = slice(height // 2 - style.px(1), height // 2 + style.px(1))
    dash = np.arange(width) % style.px(7) < style.px(4) if mark == "dashed" else np.ones(width, bool)
    swatch[middle, dash] = NUISANCE_COLOR if mark == "dashed" else TARGET_COLOR
    return swatch
