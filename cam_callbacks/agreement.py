"""Processes that compute one thing in step: each says before every collective call that it comes along.

A model whose parameters are spread over processes runs only where all of them run it together. Where one fails in the middle,
the others would wait for it in the next collective call, or meet it in another one. So no process enters one before all have
said, over connections of their own, that they are about to enter the same; one that has failed says that instead.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import IntEnum
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from cam_callbacks.processes import CollectiveError, StepError
from cam_engine import rescoring
from cam_engine.sharding import Runtime, abandon, is_spread_type

T = TypeVar("T")

PATIENCE = timedelta(minutes=5)  # with a process that says nothing
_COLLECTIVES = ("c10d", "c10d_functional", "_c10d_functional", "_c10d_functional_autograd")


class Verdict(IntEnum):
    """What all processes say together; the greatest of what each says."""

    ON = 0
    OUT_OF_MEMORY = 1
    FAILED = 2
    OUT_OF_STEP = 3


_WORDS = {
    Verdict.OUT_OF_MEMORY: "memory ran out on a process",
    Verdict.FAILED: "another process failed",
    Verdict.OUT_OF_STEP: "the processes were about to make different collective calls, so the look could not go on: does the "
    "model's forward depend on what it is given?",
}


class _Left(BaseException):
    """Ends what this process computes, for another has failed; not an ``Exception``, so that a model's own ``except`` clauses let
    it pass."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict)
        self.verdict = verdict


class Agreement:
    """All processes of a training, which run one model together.

    Args:
        model: The part of it that is run. Its parameters are afterwards as they were, gathered or not.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.connections = own_connections()
        self._forwards = self._calls = 0
        self._watching = self._saying = False

    def step(self, compute: Callable[[], T]) -> T:
        """What ``compute`` returns here, once it has ended on every process; steps may be made of steps.

        Raises:
            StepError: On every process alike, where it failed on any; the local exception is its cause where there is one.
            CollectiveError: A process has said nothing for :data:`PATIENCE`, or is gone.
        """
        before = Runtime(self.model)
        answers: list[T] = []
        try:
            verdict, error = self._tried(lambda: answers.append(compute()))
        except StepError:  # of a step inside, at whose end all stand alike
            before.put_back()
            raise
        except BaseException:  # a process is gone, or this one is interrupted: nothing can be gathered any more
            abandon(self.model)
            before.put_back(gather=False)
            raise
        if verdict != Verdict.ON:
            abandon(self.model)
            self._forwards = self._calls = 0  # some may have come further than others before they knew
        before.put_back()
        if verdict != Verdict.ON:
            raise StepError(_WORDS[verdict], verdict == Verdict.OUT_OF_MEMORY) from error
        return answers[0]

    def _tried(self, compute: Callable[[], object]) -> tuple[Verdict, Exception | None]:
        """What all say in the end, and this process's own error."""
        try:
            with self._watched():
                compute()
        except (StepError, CollectiveError):  # of a step inside: all know
            raise
        except _Left as left:
            return left.verdict, None
        except Exception as error:
            return self._say(Verdict.OUT_OF_MEMORY if out_of_memory(error) else Verdict.FAILED), error
        return self._say(Verdict.ON, "end"), None

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Say before every collective call inside, and nothing else, that it is due."""
        if self._watching:
            yield
            return
        self._watching, self._forwards, self._calls = True, 0, 0
        counting = self.model.register_forward_pre_hook(self._count_forward, prepend=True)
        try:
            with _BeforeCollectives(self._about_to):
                yield
        finally:
            counting.remove()
            self._watching = False

    def _count_forward(self, *_: Any) -> None:
        self._forwards, self._calls = self._forwards + 1, 0

    def _about_to(self, call: str) -> None:
        if self._saying:
            return
        self._calls += 1
        verdict = self._say(Verdict.ON, call)
        if verdict != Verdict.ON:
            raise _Left(verdict)

    def _say(self, own: Verdict, what: str = "") -> Verdict:
        """What all say together: this process's own word, or a worse one of another."""
        place = [self._forwards, self._calls, zlib.crc32(what.encode())]
        words = torch.tensor([int(own), *place, *(-number for number in place)])
        self._saying = True
        try:
            dist.all_reduce(words, dist.ReduceOp.MAX, group=self.connections)
        except RuntimeError as error:
            raise CollectiveError(
                f"a process of this training did not answer within {PATIENCE.total_seconds():.0f} s, or is gone: {error}"
            ) from None  # a cause would be told in its place
        finally:
            self._saying = False
        said, *numbers = words.tolist()
        same = all(most == -least for most, least in zip(numbers[:3], numbers[3:], strict=True))
        return Verdict(said) if said or same else Verdict.OUT_OF_STEP


class _BeforeCollectives(TorchDispatchMode):
    """Calls ``about_to`` with the name of every collective call, before it is made: torch's own engines make theirs through the
    dispatcher, in forward and backward."""

    def __init__(self, about_to: Callable[[str], None]) -> None:
        super().__init__()
        self._about_to = about_to

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(is_spread_type(kind) for kind in types):
            return NotImplemented  # it becomes operations on its parts, which come here again
        if getattr(func, "namespace", "") in _COLLECTIVES:
            self._about_to(str(func))
        return func(*args, **(kwargs or {}))


def out_of_memory(error: BaseException) -> bool:
    """Did memory run out, here or on another process."""
    return error.out_of_memory if isinstance(error, StepError) else rescoring.out_of_memory(error)


_connections: tuple[Any, Any] | None = None


def own_connections() -> Any:
    """A group of all processes for what they say of themselves, over the CPU whatever the model is on; every process has to ask."""
    global _connections
    world = dist.group.WORLD
    if _connections is None or _connections[0] is not world:
        _connections = world, dist.new_group(backend="gloo", timeout=PATIENCE)
    return _connections[1]
