"""What can be reached from an object: the state of datasets, samplers, transforms, models and hooks, wherever in them it lies."""

from __future__ import annotations

import ctypes
import functools
import gc
import io
import random
import sys
import threading
import types
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset, Sampler

ATOMS = (str, bytes, int, float, complex, type(None), np.generic, torch.dtype, torch.device)
CONTAINERS = (dict, list, tuple, set, frozenset, deque)
GENERATORS = (torch.Generator, np.random.Generator, np.random.BitGenerator, np.random.RandomState, random.Random)
CODE = (types.FunctionType, types.MethodType, types.CellType, functools.partial, staticmethod, classmethod)

_LONG = 10_000  # of a longer list, tuples of numbers and strings are passed over unopened
_PYTHON = frozenset(sys.stdlib_module_names)
_LIGHTNING = {"lightning", "pytorch_lightning", "lightning_fabric", "torchmetrics"}
_LIBRARIES = _PYTHON | {"torch", "numpy", "PIL", "deepspeed"} | _LIGHTNING
_OURS = frozenset({"cam_callbacks", "cam_engine"})
_TRACKERS = frozenset(
    {"aim", "clearml", "comet_ml", "dvclive", "mlflow", "neptune", "tensorboard", "tensorboardX", "wandb"}
)
_LOCKS = (type(threading.Lock()), type(threading.RLock()), threading.Condition, threading.Event, threading.Thread)


def reachable(*roots: Any) -> Iterator[Any]:
    """Every object that the roots lead to, once each, nearest first: attributes, items, what functions close over.

    Left out are parameters, optimizers, trainers (and with them loggers and callbacks), what trackers and we ourselves keep,
    what belongs to threads, which change it meanwhile, and the inner life of pictures, of Python's own classes and of torch's
    and DeepSpeed's, apart from those for data and its modules.
    """
    seen: dict[int, Any] = {}  # holds the objects, so that no id is used twice
    todo = deque(roots)
    while todo:
        one = todo.popleft()
        if isinstance(one, ATOMS) or id(one) in seen:
            continue
        seen[id(one)] = one
        if _is_followed(one):
            yield one
            todo.extend(_children(one))


def library_of(cls: type) -> str:
    """The package that a class comes from."""
    return cls.__module__.partition(".")[0]


def slots_of(one: Any) -> list[str]:
    """Names of the attributes of an instance that lie outside of its ``__dict__``."""
    slots = [vars(cls).get("__slots__", ()) for cls in type(one).__mro__ if library_of(cls) not in _LIBRARIES]
    names = [name for of in slots for name in ([of] if isinstance(of, str) else of)]
    return [name for name in names if not name.startswith("__") and hasattr(one, name)]


def named_globals(function: types.FunctionType) -> dict[str, Any]:
    """The global variables that a function of the user, or one defined inside it, names and that can hold a state: numbers,
    containers, generators."""
    if (function.__module__ or "").partition(".")[0] in _LIBRARIES:
        return {}
    found = {name: function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__}
    return {k: v for k, v in found.items() if isinstance(v, (int, float, dict, list, set, deque, *GENERATORS))}


def _names(code: types.CodeType) -> set[str]:
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*inner)


def cell_contents(cell: types.CellType) -> tuple[Any, ...]:
    """What a closure's cell holds; () of an empty one."""
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def _is_followed(one: Any) -> bool:
    if isinstance(one, (*CONTAINERS, *GENERATORS, *CODE, np.ndarray, io.IOBase, ctypes._SimpleCData)):
        return True
    if isinstance(one, Tensor):
        return not isinstance(one, nn.Parameter)
    if isinstance(one, type):
        return library_of(one) not in _LIBRARIES
    kept = _attributes(one)
    if isinstance(one, (types.ModuleType, Image.Image)) or "fit_loop" in kept:  # the last is a trainer
        return False
    if isinstance(one, (Dataset, Sampler, nn.Module, types.SimpleNamespace)):
        return True
    cls, library = type(one), library_of(type(one))
    if any(library_of(base) in _OURS for base in cls.__mro__) or isinstance(one, Optimizer) or library in _TRACKERS:
        return False
    if hasattr(one, "get_obj"):
        return True
    of_data = library not in ("torch", "deepspeed") or cls.__module__.startswith("torch.utils.data")
    threaded = any(isinstance(value, _LOCKS) for value in kept.values())
    return of_data and not threaded and library not in _PYTHON and not cls.__name__.endswith("DataLoaderIter")


def _children(one: Any) -> Iterator[Any]:
    if isinstance(one, (Tensor, io.IOBase, ctypes._SimpleCData, *GENERATORS)):
        return
    if isinstance(one, np.ndarray):
        yield from one.ravel() if one.dtype == object else ()
    elif isinstance(one, type):
        yield from vars(one).values()
    elif isinstance(one, dict):
        yield from list(one.values())
    elif isinstance(one, CONTAINERS):
        closed = len(one) > _LONG
        yield from (item for item in list(one) if not (closed and isinstance(item, tuple) and not gc.is_tracked(item)))
    elif isinstance(one, functools.partial):
        yield from (one.func, one.args, one.keywords)
    elif isinstance(one, types.MethodType):
        yield from (one.__self__, one.__func__)
    elif isinstance(one, (staticmethod, classmethod)):
        yield one.__func__
    elif isinstance(one, types.FunctionType):
        yield from (*(one.__closure__ or ()), one.__defaults__, one.__kwdefaults__, *named_globals(one).values())
    elif isinstance(one, types.CellType):
        yield from cell_contents(one)
    elif hasattr(one, "get_obj"):  # a multiprocessing.Value
        yield one.get_obj()
        return
    if not isinstance(one, (type, *CODE)):
        yield from type(one).__mro__
        yield _attributes(one) or None
        yield from (getattr(one, name) for name in slots_of(one))


def _attributes(one: Any) -> dict[str, Any]:
    """The ``__dict__`` of an instance itself, no copy; {} of what has none."""
    try:
        kept = object.__getattribute__(one, "__dict__")
    except AttributeError:
        return {}
    return kept if isinstance(kept, dict) else {}
