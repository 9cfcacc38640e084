"""One look, any number of processes: the single place where they talk to each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")


class LookError(RuntimeError):
    """A look failed, on this process or on another."""


class StepError(LookError):
    """What processes computed in step failed on any of them: on all alike (:mod:`cam_callbacks.agreement`).

    ``out_of_memory``: nothing but memory ran out.
    """

    def __init__(self, message: str, out_of_memory: bool = False) -> None:
        super().__init__(message)
        self.out_of_memory = out_of_memory


class CollectiveError(LookError):
    """Processes can no longer talk to each other; no further look is possible."""


def rank() -> int:
    """This process's number; 0 writes."""
    return dist.get_rank() if _distributed() else 0


def world_size() -> int:
    """How many processes look together."""
    return dist.get_world_size() if _distributed() else 1


def everywhere(compute: Callable[[], T], group: Any = None) -> list[T]:
    """Run ``compute`` on every process and return all answers, in order of rank, on every process.

    The gathering always happens, so that an exception on one process leaves no other waiting.

    Args:
        compute: Talks to no other process, or fails on all alike.
        group: The connections to gather over; None: those of the training.

    Raises:
        LookError: On every process alike, if any of them failed; the local exception is its cause where there is one.
    """
    answer: T | None = None
    error: BaseException | None = None
    try:
        answer = compute()
    except CollectiveError:
        raise
    except StepError as failed:  # another process's failure is told by that one, where it is not a failure of all
        error = failed.__cause__ or failed
    except Exception as caught:
        error = caught
    own = (answer, None if error is None else f"{type(error).__name__}: {error}", isinstance(error, StepError))
    gathered: list[Any] = [own]
    if _distributed():
        gathered = [None] * dist.get_world_size()
        try:
            dist.all_gather_object(gathered, own, group)
        except RuntimeError as lost:
            if group is None:
                raise
            raise CollectiveError(f"a process of this training does not answer, or is gone: {lost}") from None
    failures = [(of_all, where, message) for where, (_, message, of_all) in enumerate(gathered) if message is not None]
    if failures:
        of_all, where, message = min(failures)
        place = f" on rank {where}" if len(gathered) > 1 and not of_all else ""
        raise LookError(f"the look failed{place}: {message}") from error
    return [value for value, _, _ in gathered]


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
