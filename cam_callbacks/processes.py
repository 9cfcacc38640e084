"""One look, any number of processes: the single place where they talk to each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch.distributed as dist

T = TypeVar("T")


class LookError(RuntimeError):
    """A look failed, on this process or on another."""


def rank() -> int:
    """This process's number; 0 writes."""
    return dist.get_rank() if _distributed() else 0


def world_size() -> int:
    """How many processes look together."""
    return dist.get_world_size() if _distributed() else 1


def share(n: int) -> list[int]:
    """Indices of the images that this process explains; empty where there are more processes than images."""
    return [int(i) for i in np.array_split(np.arange(n), world_size())[rank()]]


def everywhere(compute: Callable[[], T]) -> list[T]:
    """Run ``compute`` on every process and return all answers, in order of rank, on every process.

    The gathering always happens, so that an exception on one process leaves no other waiting.

    Raises:
        LookError: On every process alike, if any of them failed; the local exception is its cause where there is one.
    """
    answer: T | None = None
    error: Exception | None = None
    try:
        answer = compute()
    except Exception as caught:
        error = caught
    gathered: list[Any] = [(answer, None if error is None else f"{type(error).__name__}: {error}")]
    if _distributed():
        gathered = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, (answer, None if error is None else f"{type(error).__name__}: {error}"))
    failures = [(where, message) for where, (_, message) in enumerate(gathered) if message is not None]
    if failures:
        where, message = failures[0]
        place = f" on rank {where}" if len(gathered) > 1 else ""
        raise LookError(f"the look failed{place}: {message}") from error
    return [value for value, _ in gathered]


def together(compute: Callable[[], T]) -> T:
    """Run ``compute`` on every process; each goes on with its own answer once none has failed.

    For steps whose answers need not, or cannot, be sent to others.

    Raises:
        LookError: On every process alike, if any of them failed.
    """
    answers: list[T] = []
    everywhere(lambda: answers.append(compute()))
    return answers[0]


def from_rank_0(value: T) -> T:
    """Rank 0's value, on every process: decisions and clocks are its own. Every process has to call it."""
    if not _distributed():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
