"""Read from data without leaving a trace: generators, counters, caches and positions as they were before.

What the training will read must not depend on our having read. A copy of a dataset would double its memory, and many
cannot be copied; so the state that can be reached is noted before, and put back after.
"""

from __future__ import annotations

import ctypes
import io
import operator
import random
import types
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cam_callbacks.objects import cell_contents, named_globals, reachable, slots_of
from cam_engine.guard import as_it_is, random_streams

MOST_BYTES = 2**24  # of a tensor or array that is copied; images by the gigabyte are no state
MOST_TOGETHER = 2**30  # bytes of all of them

Restore = Callable[[], object]


@contextmanager
def unchanged(*roots: Any) -> Iterator[None]:
    """Put back at the end what the roots and everything that they lead to held before; the random streams too.

    Numbers and containers in attributes, classes, closures and globals; random generators of torch, numpy and Python; small
    tensors and arrays, as long as they are few; positions in open files. Not what lies outside of that: iterators in the middle
    of their course, files on disk, other processes.
    """
    with random_streams():
        restores, left = list[Restore](), MOST_TOGETHER
        for one in reachable(*roots):
            size = one.nbytes if isinstance(one, (Tensor, np.ndarray)) else 0
            if size <= min(left, MOST_BYTES):
                restores += _restores(one)
                left -= size
        try:
            yield
        finally:
            for restore in restores:
                restore()


def _restores(one: Any) -> Iterator[Restore]:
    """What puts an object back, as it is now; what it leads to is put back by itself."""
    if isinstance(one, (torch.Generator, np.random.RandomState)):
        yield _put(one.set_state, one.get_state())
    elif isinstance(one, random.Random):
        with suppress(NotImplementedError):  # the system's own has no state
            yield _put(one.setstate, one.getstate())
    elif isinstance(one, np.random.Generator):
        yield _attribute(one.bit_generator, "state")
    elif isinstance(one, np.random.BitGenerator):
        yield _attribute(one, "state")
    elif isinstance(one, (Tensor, np.ndarray)):
        yield from _of_array(one)
    elif isinstance(one, ctypes._SimpleCData):
        yield _attribute(one, "value")
    elif isinstance(one, io.IOBase):
        with suppress(OSError, ValueError):  # it has no position, or is closed
            yield _put(one.seek, one.tell())
    elif isinstance(one, (dict, list, set, deque)):
        yield _of_container(one)
    elif isinstance(one, types.FunctionType):
        yield _of_names(named_globals(one), one.__globals__.get, one.__globals__.__setitem__)
    elif isinstance(one, types.CellType):
        yield from (_attribute(one, "cell_contents") for _ in cell_contents(one))
    elif isinstance(one, type):
        plain = {k: v for k, v in vars(one).items() if isinstance(v, (int, float)) and not k.startswith("__")}
        yield _of_names(plain, vars(one).get, lambda name, value: setattr(one, name, value))
    else:
        slots = {name: getattr(one, name) for name in slots_of(one)}
        yield _of_names(slots, lambda n: getattr(one, n, None), lambda n, value: object.__setattr__(one, n, value))


def _put(put: Callable[[Any], object], state: Any) -> Restore:
    return lambda: put(state)


def _attribute(one: Any, name: str) -> Restore:
    before = getattr(one, name)
    return lambda: setattr(one, name, before)


def _of_names(before: dict[str, Any], get: Callable[[str], Any], put: Callable[[str, Any], object]) -> Restore:
    def restore() -> None:
        for name, value in before.items():
            if get(name) is not value:
                put(name, value)

    return restore


def _of_container(one: Any) -> Restore:
    def parts() -> tuple[list[Any], ...]:
        return (list(one), list(one.values())) if isinstance(one, dict) else (list(one),)

    before = parts()

    def restore() -> None:
        if all(len(a) == len(b) and all(map(operator.is_, a, b)) for a, b in zip(parts(), before, strict=True)):
            return
        one.clear()
        if isinstance(one, dict):
            one.update(zip(*before, strict=True))
        else:
            (one.update if isinstance(one, set) else one.extend)(*before)

    return restore


def _of_array(one: Any) -> Iterator[Restore]:
    if isinstance(one, np.ndarray):
        if one.flags.writeable:
            kept = one.copy()
            same = np.array_equal if not one.dtype.hasobject else lambda *_: False
            yield lambda: None if same(one, kept) else one.__setitem__(..., kept)
    elif type(one) is Tensor and one.layout == torch.strided and not one.is_inference():
        yield as_it_is(one)
