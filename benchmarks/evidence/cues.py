"""Cues that give a class away: each is painted onto scenes, and shows a value, the class that it speaks for.

``paint("tag", scenes, values, seed)`` returns the images and where the cue is. With the same seed and other values the
cue is in the same places and only says something else: that is how a cue is swapped. Which values an image gets is
decided by :func:`values_for`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from evidence.scenes import SIZE, Scenes

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Painted = tuple[Floats, Bools | None]

Kind = Literal["agree", "swapped", "random"]

# Ten colours that differ plainly from each other.
COLOURS = np.array(
    [
        [230, 25, 75], [60, 180, 75], [255, 225, 25], [0, 90, 230], [245, 130, 48],
        [145, 30, 180], [70, 240, 240], [240, 50, 230], [255, 255, 255], [20, 20, 20],
    ]
) / np.float32(255)  # fmt: skip

# Ten marks of 7×7: × + □ = ‖ ◇ T L / and a filled block.
_MARKS = """
x.....x ...x... xxxxxxx ....... .xx.xx. ...x... xxxxxxx xx..... ......x .......
.x...x. ...x... x.....x xxxxxxx .xx.xx. ..x.x.. xxxxxxx xx..... .....xx .xxxxx.
..x.x.. ...x... x.....x xxxxxxx .xx.xx. .x...x. ...x... xx..... ....xx. .xxxxx.
...x... xxxxxxx x.....x ....... .xx.xx. x.....x ...x... xx..... ...xx.. .xxxxx.
..x.x.. ...x... x.....x xxxxxxx .xx.xx. .x...x. ...x... xx..... ..xx... .xxxxx.
.x...x. ...x... x.....x xxxxxxx .xx.xx. ..x.x.. ...x... xxxxxxx .xx.... .xxxxx.
x.....x ...x... xxxxxxx ....... .xx.xx. ...x... ...x... xxxxxxx xx..... .......
"""
MARKS = np.array([line.split() for line in _MARKS.split("\n") if line]).view("U1").reshape(7, 10, 7) == "x"
MARKS = MARKS.transpose(1, 0, 2)  # (10, 7, 7)

TAG = 5


@dataclass(frozen=True)
class Cue:
    """``paint(scenes, values, classes, rng)``; up to ``most`` values can be told apart."""

    says: str
    paint: Callable[[Scenes, Ints, int, np.random.Generator], Painted]
    most: int = 10


def paint(cue: str, scenes: Scenes, values: Ints, classes: int, seed: int) -> Painted:
    """Paint a cue onto copies of the images.

    Args:
        cue: A key of ``CUES``.
        scenes: What to paint on.
        values: (N,) the class that each image's cue speaks for.
        classes: How many there are.
        seed: Of the cue's places, phases and noise, which do not depend on the values.

    Returns:
        Images (N, 3, 32, 32) in [0, 1], and where the cue is (N, 32, 32), or None for a cue without a place.
    """
    images, where = CUES[cue].paint(scenes, values, classes, np.random.default_rng([seed, 17]))
    return np.round(images.clip(0, 1) * 255).astype(np.float32) / 255, where


def values_for(labels: Ints, kind: Kind, classes: int, seed: int) -> Ints:
    """What the cues show: the label (agree), another class, each equally likely (swapped), or any class (random)."""
    rng = np.random.default_rng([seed, 23])
    if kind == "agree":
        return labels
    if kind == "swapped":
        return (labels + rng.integers(1, classes, len(labels))) % classes
    return rng.integers(classes, size=len(labels))


def tag(scenes: Scenes, values: Ints, classes: int, rng: np.random.Generator) -> Painted:
    images, where = scenes.images.copy(), np.zeros_like(scenes.masks)
    where[:, 1 : 1 + TAG, 1 : 1 + TAG] = True
    return _painted(images, where, COLOURS[values]), where


def moving_tag(scenes: Scenes, values: Ints, classes: int, rng: np.random.Generator) -> Painted:
    where = _squares(*_free_places(scenes.masks, TAG, rng), TAG)
    return _painted(scenes.images, where, COLOURS[values]), where


def border(scenes: Scenes, values: Ints, classes: int, rng: np.random.Generator) -> Painted:
    where = np.ones_like(scenes.masks)
    where[:, 2:-2, 2:-2] = False
    return _painted(scenes.images, where, COLOURS[values]), where


def watermark(scenes: Scenes, values: Ints, classes: int, rng: np.random.Generator) -> Painted:
    """A white mark with a shadow, through which the image shows, anywhere, also on the object."""
    top, left = rng.integers(0, SIZE - 8 + 1, (2, len(scenes)))
    ink, shadow = _stamped(MARKS[values], top, left), _stamped(MARKS[values], top + 1, left + 1)
    images = scenes.images * (1 - 0.5 * shadow[:, None])
    return images + 0.65 * ink[:, None] * (1 - images), _squares(top, left, 8)


def companion(scenes: Scenes, values: Ints, classes: int, rng: np.random.Generator) -> Painted:
    """A second object, a dark plate with a bright mark: the mark tells the class, its colour and place do not."""
    top, left = _free_places(scenes.masks, 9, rng)
    plate = _squares(top, left, 9)
    images = _painted(scenes.images, plate, rng.uniform(0, 0.3, (len(scenes), 3)))
    marks = _stamped(MARKS[values], top + 1, left + 1)
    return _painted(images, marks, rng.uniform(0.7, 1, (len(scenes), 3))), plate


def tint(scenes: Scenes, values: Ints, classes: int, rng: np.random.Generator) -> Painted:
    return 0.8 * scenes.images + 0.2 * COLOURS[values][:, :, None, None], None


def texture(scenes: Scenes, values: Ints, classes: int, rng: np.random.Generator) -> Painted:
    """A faint grating over the whole image, whose direction tells the class."""
    angle = np.pi * values[:, None, None] / classes
    y, x = np.mgrid[:SIZE, :SIZE]
    phase = rng.uniform(0, 2 * np.pi, (len(scenes), 1, 1))
    waves = np.sin(2 * np.pi * (np.cos(angle) * y + np.sin(angle) * x) / 4.5 + phase)
    return scenes.images + 0.09 * waves[:, None], None


def background(scenes: Scenes, values: Ints, classes: int, rng: np.random.Generator) -> Painted:
    """The ground, not the object, has grain along a direction that tells the class."""
    frequency_y, frequency_x = np.meshgrid(np.fft.fftfreq(SIZE), np.fft.rfftfreq(SIZE), indexing="ij")
    radius, angle = np.hypot(frequency_y, frequency_x), np.arctan2(frequency_y, frequency_x) % np.pi
    towards = np.pi * np.arange(classes)[:, None, None] / classes
    off = abs((angle - towards + np.pi / 2) % np.pi - np.pi / 2)
    bands = np.exp(-((off / 0.2) ** 2) - ((radius - 0.2) / 0.12) ** 2)
    grain = _filtered_noise(bands[values], rng)[:, None]
    blended = 0.5 * scenes.images + 0.25 + 0.14 * grain
    return np.where(scenes.masks[:, None], scenes.images, blended), None


def blur(scenes: Scenes, values: Ints, classes: int, rng: np.random.Generator) -> Painted:
    images = np.empty_like(scenes.images)
    for value in range(classes):
        rows = values == value
        sigma = 1.8 * value / (classes - 1)
        images[rows] = gaussian_filter(scenes.images[rows], (0, 0, sigma, sigma), mode="nearest")
    return images, None


def frequency(scenes: Scenes, values: Ints, classes: int, rng: np.random.Generator) -> Painted:
    """Faint noise in a narrow band of spatial frequencies, which tells the class."""
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(SIZE), np.fft.rfftfreq(SIZE), indexing="ij"))
    centres = np.linspace(0.08, 0.48, classes)[:, None, None]
    bands = np.exp(-(((radius - centres) / 0.035) ** 2))
    return scenes.images + 0.08 * _filtered_noise(bands[values], rng)[:, None], None


CUES = {
    "tag": Cue("a coloured square in the corner", tag),
    "moving": Cue("a coloured square at another place in each image", moving_tag),
    "border": Cue("a coloured frame of two pixels", border),
    "watermark": Cue("a mark anywhere, through which the image shows", watermark),
    "companion": Cue("a second object beside the first", companion),
    "tint": Cue("a tint of the whole image", tint),
    "texture": Cue("a faint grating over the whole image", texture),
    "background": Cue("the grain of the ground", background),
    "blur": Cue("how sharp the image is", blur, most=6),
    "frequency": Cue("faint noise in a band of frequencies", frequency),
}


def _painted(images: Floats, where: Bools, colours: Floats) -> Floats:
    return np.where(where[:, None], colours[:, :, None, None], images)


def _squares(top: Ints, left: Ints, side: int) -> Bools:
    pixel = np.arange(SIZE)
    rows = (pixel >= top[:, None]) & (pixel < top[:, None] + side)
    columns = (pixel >= left[:, None]) & (pixel < left[:, None] + side)
    return rows[:, :, None] & columns[:, None, :]


def _stamped(marks: Bools, top: Ints, left: Ints) -> Bools:
    """(N, 32, 32): each (N, 7, 7) mark at its place."""
    stamped = np.zeros((len(marks), SIZE, SIZE), dtype=bool)
    pixel = np.arange(marks.shape[-1])
    rows = np.arange(len(marks))[:, None, None]
    stamped[rows, (top[:, None] + pixel)[:, :, None], (left[:, None] + pixel)[:, None, :]] = marks
    return stamped


def _free_places(masks: Bools, side: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Rows and columns (N,) of the top left corner of squares that do not touch the object; of 40 tries the best."""
    places = rng.integers(0, SIZE - side + 1, (2, 40, len(masks)))
    covered = np.zeros((len(masks), SIZE + 1, SIZE + 1), dtype=np.int64)
    covered[:, 1:, 1:] = masks.cumsum(1).cumsum(2)
    each, (top, left) = np.arange(len(masks)), places
    bottom, right = top + side, left + side
    touched = (
        covered[each, bottom, right]
        - covered[each, top, right]
        - covered[each, bottom, left]
        + covered[each, top, left]
    )
    best = touched.argmin(0)
    return top[best, each], left[best, each]


def _filtered_noise(bands: Floats, rng: np.random.Generator) -> Floats:
    """Noise (N, 32, 32) of variance one with these amplitudes, (N, 32, 17), over its frequencies."""
    white = np.fft.rfft2(rng.normal(size=(len(bands), SIZE, SIZE)))
    noise = np.fft.irfft2(white * bands, s=(SIZE, SIZE))
    return (noise - noise.mean((1, 2), keepdims=True)) / noise.std((1, 2), keepdims=True)
