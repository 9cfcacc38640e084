"""Four families of scenes, each an object of a class on a ground that says nothing about it: 32×32, with the object's mask.

| family | what makes the class | ground | mask |
|---|---|---|---|
| shapes | the outline: disc, square, triangle, cross, ring | coloured noise and gratings | the outline |
| blobs | the texture inside an outline that is drawn at random | smooth colours | the outline |
| digits | handwriting (scikit-learn's scans, real data) | photographs | the box around the digit |
| letters | the printed letter, at any size, a little turned | overlapping rectangles | the letter, one pixel wider |

Objects are 9 to 19 pixels wide, 2 pixels away from the edges, and out of the top left corner, where some cues are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import maximum_filter
from sklearn.datasets import load_digits

from evidence.grounds import coloured_noise, contrasting, photographs, rectangles, smooth_colours

SIZE = 32
CORNER = 7  # pixels of the top left corner that no object covers

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Scenes:
    """Images before any cue: ``images`` (N, 3, 32, 32) in [0, 1], ``labels`` (N,), ``masks`` (N, 32, 32)."""

    images: Floats
    labels: Ints
    masks: Bools

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Ints | slice) -> Scenes:
        return replace(self, images=self.images[rows], labels=self.labels[rows], masks=self.masks[rows])


@dataclass(frozen=True)
class Family:
    """``draw(labels, rng, held_out)``: scenes of these classes; ``held_out`` asks for sources that training never sees."""

    classes: tuple[str, ...]
    draw: Callable[[Ints, np.random.Generator, bool], tuple[Floats, Bools]]


def draw(family: str, n: int, seed: int, *, held_out: bool = False, priors: Floats | None = None) -> Scenes:
    """Draw ``n`` scenes in a random order; the same arguments give the same pixels.

    Args:
        family: A key of ``FAMILIES``.
        n: How many.
        seed: Of everything.
        held_out: For validation: other random numbers, and handwriting that is in no training image.
        priors: Share of each class; by default the classes are balanced.
    """
    kind = FAMILIES[family]
    rng = np.random.default_rng([seed, sorted(FAMILIES).index(family), held_out])
    count = len(kind.classes)
    edges = np.linspace(0, 1, count + 1)[1:] if priors is None else np.cumsum(priors)
    labels = rng.permutation(np.searchsorted(edges, (np.arange(n) + 0.5) / n))
    images, masks = kind.draw(labels, rng, held_out)
    return Scenes(np.round(images.clip(0, 1) * 255).astype(np.float32) / 255, labels, masks)


def shapes(labels: Ints, rng: np.random.Generator, held_out: bool) -> tuple[Floats, Bools]:
    radius = rng.uniform(5.5, 8.5, len(labels))
    y, x = _around(*_centres(rng, radius), rng.uniform(0, 2 * np.pi, len(labels)))
    y, x = y / radius[:, None, None], x / radius[:, None, None]
    r = np.hypot(y, x)
    outlines = np.stack(
        [
            r < 0.9,
            np.maximum(abs(y), abs(x)) < 0.72,
            (y < 0.5) & (np.sqrt(3) * abs(x) - y < 1),
            (np.minimum(abs(y), abs(x)) < 0.27) & (np.maximum(abs(y), abs(x)) < 0.95),
            (r < 0.95) & (r > 0.5),
        ]
    )
    masks = outlines[labels, np.arange(len(labels))]
    ground = 0.65 * coloured_noise(len(labels), rng)
    ink = rng.uniform(0.6, 1, (len(labels), 3, 1, 1)) + rng.normal(0, 0.04, ground.shape)
    return _over(ground, ink, masks), masks


def blobs(labels: Ints, rng: np.random.Generator, held_out: bool) -> tuple[Floats, Bools]:
    n = len(labels)
    radius = rng.uniform(6, 8.5, n)
    y, x = _around(*_centres(rng, radius), np.zeros(n))
    angle, waves = np.arctan2(y, x), np.zeros((n, SIZE, SIZE))
    for k in (2, 3, 4):
        amount, phase = rng.uniform(0, 0.28 / k, (n, 1, 1)), rng.uniform(0, 2 * np.pi, (n, 1, 1))
        waves += amount * np.cos(k * angle + phase)
    masks = np.hypot(y, x) < radius[:, None, None] * (0.85 + waves)
    step = 2 * np.pi / rng.uniform(3.2, 4.8, (n, 1, 1))  # 2π over the period in pixels
    across, down = np.sin(step * x), np.sin(step * y)
    textures = np.stack([down, across, 1.4 * across * down, np.cos(step * np.hypot(y, x))])
    texture = textures[labels, np.arange(n)][:, None]
    ground = smooth_colours(n, rng)
    ink = contrasting(ground, masks, rng)[:, :, None, None] * 0.6 + 0.2
    ink = ink + 0.17 * texture + rng.normal(0, 0.06, ground.shape)
    return _over(ground, ink, masks), masks


def digits(labels: Ints, rng: np.random.Generator, held_out: bool) -> tuple[Floats, Bools]:
    scans, classes = handwriting(held_out)
    sources = np.empty(len(labels), dtype=np.int64)
    for digit in range(10):
        rows = labels == digit
        sources[rows] = rng.choice(np.flatnonzero(classes == digit), rows.sum())
    half = rng.uniform(7, 9, len(labels))
    ink, cy, cx = _pasted(scans[sources], half, rng.uniform(-0.15, 0.15, len(labels)), rng)
    y, x = _around(cy, cx, np.zeros(len(labels)))
    masks = np.maximum(abs(y), abs(x)) < half[:, None, None]
    ground = photographs(len(labels), rng) * 0.5
    bright = rng.uniform(0.8, 1, (len(labels), 3, 1, 1))
    return ground * (1 - ink[:, None]) + bright * ink[:, None], masks


def letters(labels: Ints, rng: np.random.Generator, held_out: bool) -> tuple[Floats, Bools]:
    half = rng.uniform(6, 8.5, len(labels))
    ink, _, _ = _pasted(_print()[labels], half, rng.uniform(-0.5, 0.5, len(labels)), rng)
    masks = maximum_filter(ink > 0.5, size=(1, 3, 3))
    ground = 0.15 + 0.85 * rectangles(len(labels), rng)
    colour = rng.uniform(0, 0.35, (len(labels), 3, 1, 1))
    return ground * (1 - ink[:, None]) + colour * ink[:, None], masks


FAMILIES = {
    "shapes": Family(("disc", "square", "triangle", "cross", "ring"), shapes),
    "blobs": Family(("rows", "columns", "checks", "circles"), blobs),
    "digits": Family(tuple("0123456789"), digits),
    "letters": Family(tuple("AEHKSX"), letters),
}


def _centres(rng: np.random.Generator, half: Floats) -> tuple[Floats, Floats]:
    """Where objects of this half width may be: (N,) rows and columns, in pixels."""
    low, high = half + 2, SIZE - 1 - half - 2
    y, x = rng.uniform(low, high), rng.uniform(low, high)
    cornered = np.maximum(y, x) - half < CORNER
    return np.where(cornered, SIZE - 1 - y, y), np.where(cornered, SIZE - 1 - x, x)


def _around(cy: Floats, cx: Floats, angle: Floats) -> tuple[Floats, Floats]:
    """Every pixel's coordinates (N, 32, 32) seen from a centre, turned by an angle."""
    rows = np.arange(SIZE)[None, :, None] - cy[:, None, None]
    columns = np.arange(SIZE)[None, None, :] - cx[:, None, None]
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    return rows * cos + columns * sin, columns * cos - rows * sin


def _pasted(glyphs: Floats, half: Floats, angle: Floats, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Ink (N, 32, 32) of square glyphs, each scaled to 2 × ``half`` pixels, turned and put somewhere; and their centres."""
    cy, cx = _centres(rng, half)
    y, x = _around(cy, cx, angle)
    where = torch.from_numpy(np.stack([x, y], axis=-1) / half[:, None, None, None]).float()
    ink = F.grid_sample(torch.from_numpy(glyphs)[:, None], where, align_corners=False)
    return ink[:, 0].numpy(), cy, cx


def _over(ground: Floats, ink: Floats, masks: Bools) -> Floats:
    return np.where(masks[:, None], ink, ground)


@cache
def handwriting(held_out: bool) -> tuple[Floats, Ints]:
    """Ink (N, 16, 16) in [0, 1] of scikit-learn's 8×8 scans, enlarged, and which digits they are. A fifth is held out."""
    collection = load_digits()
    ink = torch.from_numpy(collection.images).float()[:, None] / 16
    enlarged = F.interpolate(ink, scale_factor=2, mode="bilinear", align_corners=False)
    chosen = (np.arange(len(ink)) % 5 == 0) == held_out
    return enlarged[chosen, 0].numpy(), collection.target[chosen].astype(np.int64)


@cache
def _print() -> Floats:
    """Ink (classes, 48, 48) in [0, 1] of the letters in Pillow's own font, filling the square's height."""
    font, glyphs = ImageFont.load_default(64), []
    for letter in FAMILIES["letters"].classes:
        picture = Image.new("L", (96, 96))
        ImageDraw.Draw(picture).text(
            (48, 48), letter, fill=255, font=font, anchor="mm", stroke_width=3, stroke_fill=255
        )
        left, top, right, bottom = picture.getbbox()  # type: ignore[misc]  # something was drawn
        side = max(right - left, bottom - top)
        y, x = (top + bottom - side) // 2, (left + right - side) // 2
        glyphs.append(np.asarray(picture.crop((x, y, x + side, y + side)).resize((48, 48)), dtype=np.float32) / 255)
    return np.stack(glyphs)
