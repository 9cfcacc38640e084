"""How many images a model takes at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

log = logging.getLogger(__name__)

T = TypeVar("T")


class Batches:
    """Batches of at most ``size`` images: halved where memory runs out, and so they stay for the rest of the run."""

    def __init__(self, size: int | None = None) -> None:
        self.size = 32 if size is None else size

    def over(self, indices: Sequence[int], compute: Callable[[list[int]], T]) -> list[T]:
        """What ``compute`` returns for the indices of each batch, in order.

        Raises:
            RuntimeError: Memory runs out with a single image.
        """
        done: list[T] = []
        left = list(indices)
        while left:
            batch = left[: self.size]
            try:
                done.append(compute(batch))
                left = left[len(batch) :]
                continue
            except RuntimeError as error:
                if len(batch) == 1 or not _out_of_memory(error):
                    raise
            self._halve(len(batch))  # out here the error is gone, and with it what its frames still held
        return done

    def with_size(self, compute: Callable[[int], T]) -> T:
        """What ``compute`` returns for a batch size; asked again, from the start, where memory runs out.

        Raises:
            RuntimeError: Memory runs out with a single image.
        """
        while True:
            try:
                return compute(self.size)
            except RuntimeError as error:
                if self.size == 1 or not _out_of_memory(error):
                    raise
            self._halve(self.size)

    def _halve(self, size: int) -> None:
        self.size = size // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        log.warning("cam-callbacks: out of memory with %d images at once; now %d", size, self.size)


def _out_of_memory(error: RuntimeError) -> bool:
    """On a device, or on the host, for which torch has no error of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
