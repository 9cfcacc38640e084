"""How many images a model takes at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import torch

from cam_callbacks.agreement import out_of_memory
from cam_callbacks.plan import Plan, replicated

log = logging.getLogger(__name__)

T = TypeVar("T")


class Batches:
    """Batches of at most ``size`` images: halved where memory runs out, by all processes that take a step together, and so
    they stay for the rest of the run; methods that ask about many variants of an image then ask about ``most`` at once."""

    def __init__(self, size: int | None = None) -> None:
        self.size = 32 if size is None else size
        self.most: int | None = None  # of what memory sufficed for, once it ran out
        self.plan: Plan = replicated()  # of the model that they are for

    def over(self, indices: Sequence[int], compute: Callable[[list[int]], T]) -> list[T]:
        """What ``compute`` returns for the indices of each batch, in order.

        Raises:
            RuntimeError: Memory runs out with a single image.
        """
        done: list[T] = []
        start = 0

        def next_batch(size: int) -> T:
            return compute(list(indices[start : start + size]))

        while start < len(indices):
            taken, answer = self._tried(min(self.size, len(indices) - start), next_batch)
            done.append(answer)
            start += taken
        return done

    def with_size(self, compute: Callable[[int], T]) -> T:
        """What ``compute`` returns for a number of images at once, where it makes its batches itself.

        Raises:
            RuntimeError: Memory runs out with a single image.
        """
        return self._tried(self.size, compute)[1]

    def _tried(self, size: int, compute: Callable[[int], T]) -> tuple[int, T]:
        """The size with which memory sufficed, and the answer."""
        while True:
            try:
                return size, self.plan.step(partial(compute, size))
            except RuntimeError as error:
                if self.most == 1 or not out_of_memory(error):
                    raise
            # Out here the error is gone, and with it what its frames still held.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            half = max(1, size // 2)
            log.warning("cam-callbacks: out of memory with %d images at once; now %d", size, half)
            self.size = self.most = size = half
