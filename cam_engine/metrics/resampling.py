"""Seeded draws over images: made once for all numbers of a look, kept as small integers, and taken as floats a block at a time."""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cam_engine.metrics.distribution import Float

RESAMPLES = 1000
CONFIDENCE = 0.95
BLOCK = 2**20  # draws at once, 8 MB as floats


@lru_cache(maxsize=8)
def counts(n: int, resamples: int, seed: int) -> NDArray[np.uint16]:
    """(resamples, n): how often each of n images is drawn in each resample of a bootstrap."""
    generator, equal = np.random.default_rng(seed), np.full(n, 1 / n)
    return np.concatenate([generator.multinomial(n, equal, rows).astype(np.uint16) for rows in _blocks(resamples, n)])


@lru_cache(maxsize=8)
def signs(n: int, flips: int, seed: int) -> NDArray[np.int8]:
    """(flips, n) of ±1: seeded, or all 2ⁿ where these are not more."""
    if 2**n <= flips:
        return np.array(list(product((1, -1), repeat=n)), dtype=np.int8)
    generator, either = np.random.default_rng(seed), np.array((1, -1), dtype=np.int8)
    return np.concatenate([generator.choice(either, (rows, n)) for rows in _blocks(flips, n)])


def sums(draws: NDArray[Any], values: Float) -> Float:
    """(R, ...): the sum of ``values`` (n, ...) under each of the ``draws`` (R, n)."""
    ends = np.cumsum(_blocks(*draws.shape))[:-1]
    return np.concatenate([block.astype(np.float64) @ values for block in np.split(draws, ends)])


def _blocks(rows: int, n: int) -> list[int]:
    """Rows of each block."""
    each = max(1, BLOCK // n)
    return [min(each, rows - start) for start in range(0, rows, each)]
