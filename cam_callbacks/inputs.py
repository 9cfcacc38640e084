"""What a model gets beside the images: the rest of its batch, image by image."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cam_engine import _tree

# How images (N, C, H, W) lie in a batch: as they are, as a list of (C, H, W), or as (N, H, W, C).
Form = Literal["tensor", "list", "channels last"]


class Inputs:
    """A batch of N images, which can be put together again for any of them, any number of times.

    Args:
        batch: As the model gets it: a mapping, tuple, list or dataclass. Tensors and arrays of N rows, and lists of N things,
            belong to the images; the rest is the same for all.
        path: Where in it the images (N, C, H, W) lie, such as ``("image",)``.
        form: In which the model gets them.
        annotations: Paths of what tells of the images rather than of the model's input: labels, masks. They stay in the
            batch, and out of the probe's fingerprint.
    """

    def __init__(
        self, batch: Any, path: _tree.Path, form: Form = "tensor", annotations: Iterable[_tree.Path] = ()
    ) -> None:
        self.batch, self.path, self.form = _tree.map_tensors(_kept, batch), path, form
        self.annotations = frozenset(annotations)
        self.n = len(_tree.get(batch, path))

    @classmethod
    def beside(cls, images: Any, given: Any, n: int) -> Inputs:
        """Of what a user gives: names or a sequence of further inputs, each with a row for each of ``n`` images.

        Raises:
            TypeError: Neither a mapping nor a sequence.
            ValueError: One of them has another number of rows.
        """
        if isinstance(given, Inputs):
            if given.n != n:
                raise ValueError(f"inputs= is of {given.n} images, the probe has {n}.")
            return given
        if not isinstance(given, (Mapping, list, tuple)):
            raise TypeError(f"inputs= takes a mapping of names, or a sequence, of tensors; not {type(given).__name__}.")
        entries = dict(given) if isinstance(given, Mapping) else dict(enumerate(given))
        for name, value in entries.items():
            if not hasattr(value, "__len__") or len(value) != n:
                raise ValueError(f"inputs[{name!r}] is {describe(value)}; one row for each of {n} images is needed.")
        place = next((name for name, value in entries.items() if value is images), None)
        if place is not None:  # the whole batch
            return cls(given, (place,))
        named = isinstance(given, Mapping)
        return cls({"images": images} | entries if named else (images, *given), ("images" if named else 0,))

    def of(self, rows: Sequence[int], images: Tensor) -> Any:
        """The batch of versions of some images: ``images`` (len(rows), C, H, W), of those in ``rows``; on their device."""
        batch = _take(self.batch, self.n, list(rows), images.device)
        if self.form == "channels last":
            return _tree.replace(batch, self.path, images.movedim(1, -1))
        return _tree.replace(batch, self.path, list(images) if self.form == "list" else images)

    def in_form(self, form: Form) -> Inputs:
        """The same, with the images in another form."""
        return Inputs(self.batch, self.path, form, self.annotations)

    def first(self, n: int) -> Inputs:
        """The same of the first ``n`` images."""
        rows = list(range(min(n, self.n)))
        return Inputs(_take(self.batch, self.n, rows, torch.device("cpu")), self.path, self.form, self.annotations)

    @property
    def images(self) -> Tensor:
        """The images that lie in the batch."""
        found: Tensor = _tree.get(self.batch, self.path)
        return found

    @property
    def names(self) -> list[str]:
        """Where in the batch everything beside images and annotations lies, as it is written in Python."""
        return [_tree.text(path) for path, leaf in self._others()]

    def __str__(self) -> str:
        return describe(self.of(range(self.n), self.images))

    def digest(self) -> bytes:
        """What a fingerprint is made of: all numbers that the model gets beside the images."""
        return b"".join(
            _tree.text(path).encode() + str(tuple(leaf.shape)).encode() + leaf.double().numpy().astype("<f8").tobytes()
            for path, leaf in self._others()
            if isinstance(leaf, Tensor) and not leaf.is_complex()
        )

    def _others(self) -> list[tuple[_tree.Path, Any]]:
        left_out = self.annotations | {self.path}
        return [(path, leaf) for path, leaf in leaves(self.batch, self.n) if path not in left_out]


def leaves(batch: Any, n: int, path: _tree.Path = ()) -> list[tuple[_tree.Path, Any]]:
    """``(path, leaf)`` of all that is no container; a list of ``n`` things, one an image, is a leaf."""
    children = [] if is_per_image(batch, n) else _tree.children(batch)
    if not children:
        return [(path, batch)]
    return [found for key, child in children for found in leaves(child, n, (*path, key))]


def is_per_image(leaf: Any, n: int) -> bool:
    """Does it hold something for each of ``n`` images: rows of a tensor, or things in a list?"""
    if isinstance(leaf, (Tensor, np.ndarray)):
        return leaf.ndim > 0 and len(leaf) == n
    if not isinstance(leaf, (list, tuple)) or len(leaf) != n or hasattr(leaf, "_fields"):
        return False
    if all(isinstance(item, Mapping) for item in leaf):
        return True
    return not any(is_per_image(item, n) or isinstance(item, Mapping) for item in leaf)


def row_of(tree: Any, n: int, row: int) -> Any:
    """What a batch of ``n`` images holds of one of them: the item that it is in a dataset."""
    if is_per_image(tree, n):
        return tree[row]
    items = {key: row_of(child, n, row) for key, child in _tree.children(tree)}
    if dataclasses.is_dataclass(tree):  # one of a batch checks its fields, and refuses those of an item
        return items
    return _tree.rebuild(tree, items) if items else tree


def describe(tree: Any) -> str:
    """A batch in one line, as errors show it: ``{'image': Tensor (4, 3, 8, 8) float32, 'name': list of 4 str}``."""
    if isinstance(tree, (Tensor, np.ndarray)):
        return f"{type(tree).__name__} {tuple(tree.shape)} {str(tree.dtype).removeprefix('torch.')}"
    if isinstance(tree, Mapping):
        return "{" + ", ".join(f"{key!r}: {describe(value)}" for key, value in tree.items()) + "}"
    if isinstance(tree, (list, tuple)) and len(tree) > 4 and len({type(item) for item in tree}) == 1:
        what = describe(tree[0]) if _tree.children(tree[0]) else type(tree[0]).__name__
        return f"{type(tree).__name__} of {len(tree)} {what}"
    if isinstance(tree, (list, tuple)):
        return f"({', '.join(map(describe, tree))})"
    parts = [f"{key}={describe(value)}" for key, value in _tree.children(tree) if value is not None]
    return f"{type(tree).__name__}({', '.join(parts)})" if parts else type(tree).__name__


def _kept(tensor: Tensor) -> Tensor:
    """On the CPU; of one made in inference mode a copy, for that could not be explained."""
    kept = tensor.detach().cpu()
    return kept.clone() if kept.is_inference() else kept


def _take(tree: Any, n: int, rows: list[int], device: torch.device) -> Any:
    if is_per_image(tree, n):
        if isinstance(tree, Tensor):
            return tree[rows].to(device)
        if isinstance(tree, np.ndarray):
            return tree[rows]
        return type(tree)(_tree.map_tensors(lambda t: t.to(device), tree[row]) for row in rows)
    if isinstance(tree, Tensor):
        return tree.to(device)
    items = {key: _take(child, n, rows, device) for key, child in _tree.children(tree)}
    return _tree.rebuild(tree, items) if items else tree
