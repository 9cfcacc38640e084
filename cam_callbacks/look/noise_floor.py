"""The band in which drift is read: the noise floor F below it, the ceiling B above. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cam_engine.metrics import jensen_shannon, mean

NOISE = 0.1  # of the probe's standard deviation, channel by channel
REPEATS = 3
CEILING_PAIRS = 200


def with_noise(images: Tensor, seed: int, repeats: int = REPEATS) -> Iterator[Tensor]:
    """Versions of images (N, C, H, W) with seeded Gaussian noise of a tenth of each channel's standard deviation."""
    generator = torch.Generator().manual_seed(seed)
    spread = NOISE * images.std((0, 2, 3), keepdim=True)
    for _ in range(repeats):
        yield images + spread * torch.randn(images.shape, generator=generator)


def noise_floor(maps: NDArray[np.float32], noisy: Sequence[NDArray[np.float32]]) -> float:
    """F: mean JSD between maps (N, h, w) and those of the same images with noise, over images and repeats; NaN without a
    valid pair."""
    return mean(np.stack([jensen_shannon(maps, other) for other in noisy]))


def ceiling(maps: NDArray[np.float32], seed: int) -> float:
    """B: mean JSD between maps of different images, over at most 200 seeded pairs; NaN for fewer than two images."""
    first, second = np.triu_indices(len(maps), k=1)
    if not len(first):
        return float("nan")
    if len(first) > CEILING_PAIRS:
        chosen = np.random.default_rng(seed).choice(len(first), CEILING_PAIRS, replace=False)
        first, second = first[chosen], second[chosen]
    return mean(jensen_shannon(maps[first], maps[second]))
