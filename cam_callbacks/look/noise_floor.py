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
        starts = range(0, len(images), BLOCK)
        # Of the generator before each block; in one tensor, for small ones between the blocks would keep these' memory in pieces.
        self._states = torch.empty(len(starts), *generator.get_state().shape, dtype=torch.uint8)
        for block, start in enumerate(starts):
            self._states[block] = generator.get_state()
            torch.randn(images[start : start + BLOCK].shape, generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, indices: Sequence[int]) -> Tensor:
        blocks = {block: self._noise(block) for block in {index // BLOCK for index in indices}}
        noise = torch.stack([blocks[index // BLOCK][index % BLOCK] for index in indices])
        return self.images[list(indices)] + self.spread * noise

    def _noise(self, block: int) -> Tensor:
        generator = torch.Generator()
        generator.set_state(self._states[block].clone())  # of a view it would read the storage's beginning
        return torch.randn(self.images[block * BLOCK : (block + 1) * BLOCK].shape, generator=generator)


def with_noise(images: Tensor, seed: int, repeats: int = REPEATS) -> Iterator[Noisy]:
    """Versions of images (N, C, H, W) with seeded Gaussian noise of a tenth of each channel's standard deviation."""
    generator = torch.Generator().manual_seed(seed)
    spread = NOISE * _deviation(images)
    for _ in range(repeats):
        yield Noisy(images, spread, generator)


def _deviation(images: Tensor) -> Tensor:
    """(1, C, 1, 1), the standard deviation of each channel, without another tensor of all images."""
    blocks, n = images.split(BLOCK), images.numel() // images.shape[1]
    middle = sum(block.double().sum((0, 2, 3), keepdim=True) for block in blocks) / n
    squares = sum((block.double() - middle).square().sum((0, 2, 3), keepdim=True) for block in blocks)
    return torch.sqrt(torch.as_tensor(squares / (n - 1))).to(images.dtype)


def noise_floor(maps: NDArray[np.float32], noisy: Sequence[NDArray[np.float32]]) -> float:
    """F: mean JSD between maps (N, h, w) and those of the same images with noise, over images and repeats; NaN without a
    valid pair."""
    return mean(np.stack([jensen_shannon(maps, other) for other in noisy]))


def ceiling(maps: NDArray[np.float32], seed: int) -> float:
    """B: mean JSD between maps of different images, over at most 200 seeded pairs; NaN for fewer than two images."""
    if len(maps) < 2:
        return float("nan")
    first, second = _pairs(len(maps), seed)
    return mean(jensen_shannon(maps[first], maps[second]))


def _pairs(n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and second of pairs i < j of n images: all, or a seeded choice of 200."""
    count = n * (n - 1) // 2
    chosen = np.arange(min(count, CEILING_PAIRS))
    if count > CEILING_PAIRS:
        chosen = np.random.default_rng(seed).choice(count, CEILING_PAIRS, replace=False)
    ends = np.cumsum(np.arange(n - 1, 0, -1))  # of the pairs of each first image
    first = np.searchsorted(ends, chosen, side="right")
    return first, n + chosen - ends[first]
