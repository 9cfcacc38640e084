"""Grounds that objects stand on, (N, 3, 32, 32) in [0, 1], and colours that stand out from them."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images

SIZE = 32

Floats = NDArray[np.float32]


def coloured_noise(n: int, rng: np.random.Generator) -> Floats:
    """Noise at three scales around a colour, and a grating of any direction and period."""
    ground = rng.uniform(0.25, 0.75, (n, 3, 1, 1)) + np.zeros((n, 3, SIZE, SIZE))
    for side, amount in ((4, 0.12), (10, 0.08), (SIZE, 0.04)):
        ground += amount * enlarge(rng.normal(size=(n, 3, side, side)))
    angle, period = rng.uniform(0, np.pi, (n, 1, 1)), rng.uniform(3, 12, (n, 1, 1))
    y, x = np.mgrid[:SIZE, :SIZE]
    waves = np.sin(2 * np.pi * (np.cos(angle) * y + np.sin(angle) * x) / period + rng.uniform(0, 2 * np.pi, (n, 1, 1)))
    return (ground + (rng.uniform(0, 0.08, (n, 1, 1)) * waves)[:, None]).clip(0, 1)


def smooth_colours(n: int, rng: np.random.Generator) -> Floats:
    """Colours that change slowly over the image, with a little noise."""
    ground = enlarge(rng.uniform(0.1, 0.9, (n, 3, 3, 3)))
    return (ground + rng.normal(0, 0.03, ground.shape)).clip(0, 1)


def rectangles(n: int, rng: np.random.Generator) -> Floats:
    """Fourteen rectangles of any colour and size over one another, with a little noise."""
    ground = rng.uniform(0.1, 0.9, (n, 3, 1, 1)) + np.zeros((n, 3, SIZE, SIZE))
    y, x = np.mgrid[:SIZE, :SIZE]
    for _ in range(14):
        top, left = rng.integers(-4, SIZE - 2, (2, n, 1, 1))
        height, width = rng.integers(3, 16, (2, n, 1, 1))
        inside = (y >= top) & (y < top + height) & (x >= left) & (x < left + width)
        ground = np.where(inside[:, None], rng.uniform(0.1, 0.9, (n, 3, 1, 1)), ground)
    return (ground + rng.normal(0, 0.03, ground.shape)).clip(0, 1)


def photographs(n: int, rng: np.random.Generator) -> Floats:
    """Crops of the two photographs that come with scikit-learn, at half their size."""
    pictures = _sample_images()
    which = rng.integers(len(pictures), size=n)
    top = rng.integers(pictures.shape[2] - SIZE + 1, size=n)[:, None, None] + np.arange(SIZE)[:, None]
    left = rng.integers(pictures.shape[3] - SIZE + 1, size=n)[:, None, None] + np.arange(SIZE)
    return pictures.transpose(0, 2, 3, 1)[which[:, None, None], top, left].transpose(0, 3, 1, 2)


def contrasting(ground: Floats, masks: NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """A colour for each object, (N, 3): of eight at random the one farthest from what it covers."""
    area = masks.sum((1, 2))[:, None]
    covered = (ground * masks[:, None]).sum((2, 3)) / area
    colours = rng.uniform(0, 1, (8, len(ground), 3))
    farthest = np.abs(colours - covered).sum(2).argmax(0)
    return colours[farthest, np.arange(len(ground))]


def enlarge(small: Floats) -> Floats:
    """Bring (N, C, h, w) to 32×32, bilinearly."""
    return F.interpolate(torch.from_numpy(small), size=(SIZE, SIZE), mode="bilinear", align_corners=False).numpy()


@cache
def _sample_images() -> Floats:
    """(2, 3, 213, 320)."""
    pixels = torch.tensor(np.stack(load_sample_images().images)).permute(0, 3, 1, 2).float() / 255
    return F.avg_pool2d(pixels, 2).numpy()
