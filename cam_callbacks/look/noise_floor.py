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
BLOCK = 16  # images whose noise is drawn at once: torch draws in sixteens, so that blocks of these make up the whole


class Noisy:
    """Images (N, C, H, W) with Gaussian noise of ``spread`` (1, C, 1, 1), made a few at a time: ``noisy[[3, 4]]`` is (2, C, H, W).

    A second copy of a large probe would need its memory again. The noise is the one that ``generator`` would give in one call for
    all; it is left behind that.
    """

    def __init__(self, images: Tensor, spread: Tensor, generator: torch.Generator) -> None:
        self.images, self.spread = images, spread
        self._states = []  # of the generator before each block
        for start in range(0, len(images), BLOCK):
            self._states.append(generator.get_state())
            torch.randn(images[start : start + BLOCK].shape, generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, indices: Sequence[int]) -> Tensor:
        blocks = {block: self._noise(block) for block in {index // BLOCK for index in indices}}
        noise = torch.stack([blocks[index // BLOCK][index % BLOCK] for index in indices])
        return self.images[list(indices)] + self.spread * noise

    def _noise(self, block: int) -> Tensor:
        generator = torch.Generator()
        generator.set_state(self._states[block])
        return torch.randn(self.images[block * BLOCK : (block + 1) * BLOCK].shape, generator=generator)


def with_noise(images: Tensor, seed: int, repeats: int = REPEATS) -> Iterator[Noisy]:
    """Versions of images (N, C, H, W) with seeded Gaussian noise of a tenth of each channel's standard deviation."""
    generator = torch.Generator().manual_seed(seed)
    spread = NOISE * images.std((0, 2, 3), keepdim=True)
    for _ in range(repeats):
        yield Noisy(images, spread, generator)


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
