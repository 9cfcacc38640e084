"""Walking what a module returned: tensors inside tuples, lists, dictionaries and dataclasses."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from torch import Tensor

Path = tuple[Any, ...]


def tensors(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """Yield ``(path, tensor)`` for every tensor in ``tree``, in order; the path is () for a bare tensor."""
    if isinstance(tree, Tensor):
        yield path, tree
        return
    for key, child in children(tree):
        yield from tensors(child, (*path, key))


def replace(tree: Any, path: Path, value: Any) -> Any:
    """Return ``tree`` with the leaf at ``path`` replaced; containers on the way are copied, others shared."""
    if not path:
        return value
    key, rest = path[0], path[1:]
    items = {k: replace(child, rest, value) if k == key else child for k, child in children(tree)}
    return rebuild(tree, items)


def map_tensors(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """Return ``tree`` with ``function`` applied to every tensor; what is no container is returned as it is."""
    if isinstance(tree, Tensor):
        return function(tree)
    items = {key: map_tensors(function, child) for key, child in children(tree)}
    return rebuild(tree, items) if items else tree


def get(tree: Any, path: Path) -> Any:
    """Follow ``path`` into ``tree``."""
    for key in path:
        tree = dict(children(tree))[key]
    return tree


def text(path: Path) -> str:
    """A path as it is written behind a layer's name: ``"[0]"``, ``"[pool]"``, ``"[hidden_states][2]"``; "" for ()."""
    return "".join(f"[{key}]" for key in path)


def children(tree: Any) -> list[tuple[Any, Any]]:
    """``(key, child)`` of a mapping, tuple, list or dataclass; [] of anything else."""
    if isinstance(tree, Mapping):
        return list(tree.items())
    if isinstance(tree, (list, tuple)):
        return list(enumerate(tree))
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return [(field.name, getattr(tree, field.name)) for field in dataclasses.fields(tree) if field.init]
    return []


def rebuild(tree: Any, items: dict[Any, Any]) -> Any:
    """A container of the same kind with other children, for all of its keys."""
    if isinstance(tree, MutableMapping):  # a copy keeps what the class adds: a default, attributes
        rebuilt = copy.copy(tree)
        for key, value in items.items():
            rebuilt[key] = value
        return rebuilt
    if isinstance(tree, Mapping):
        return items
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*items.values())
    if isinstance(tree, (list, tuple)):
        return type(tree)(items.values())
    return dataclasses.replace(tree, **items)
