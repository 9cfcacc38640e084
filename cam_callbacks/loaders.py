"""Images out of a data loader, as it would hand them out itself: chosen, read, and put together by its collate function."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, Subset

from cam_callbacks.datasets import choose, dataset_labels
from cam_callbacks.items import as_image, parse
from cam_engine.pictures import to_pictures


class NotDrawable(TypeError):
    """A loader whose images cannot be had without advancing it."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """What was taken from a loader.

    ``batch``: as its collate function made it. ``ids``: a name for each image, None where they have none of their own.
    ``pictures``: (n, h, w, 3) uint8 of the items before that, None where a person could not see them as they were.
    ``class_names``: of its dataset.
    """

    batch: Any
    ids: list[str] | None = None
    pictures: NDArray[np.uint8] | None = None
    class_names: list[str] | None = None


def first_loader(loaders: Any) -> Any:
    """The first loader in whatever ``val_dataloader()`` returned.

    Raises:
        NotDrawable: None of them has a dataset.
    """
    while not hasattr(loaders, "dataset"):
        if isinstance(loaders, dict):
            loaders = next(iter(loaders.values()))
        elif isinstance(loaders, (list, tuple)) and loaders:
            loaders = loaders[0]
        elif hasattr(loaders, "iterables"):  # Lightning's CombinedLoader
            loaders = loaders.iterables
        else:
            raise NotDrawable(f"no dataset found in the loader ({type(loaders).__name__}).")
    return loaders


def draw(loader: Any, n: int, seed: int) -> Drawn:
    """``n`` images of a loader: balanced over classes where they are known by index, else the first.

    What it moves in the dataset and the samplers is the caller's to put back: :func:`cam_callbacks.unchanged.unchanged`.

    Args:
        loader: A ``torch.utils.data.DataLoader``, or what has its attributes.
        n: How many; fewer where there are no more. A loader that makes no batches of its own gives the dataset's first.
        seed: For the choice.

    Raises:
        NotDrawable: It has no collate function, or its dataset is an iterator that can be gone through only once.
        ValueError: There are no images, or none that can be read.
    """
    dataset, collate = loader.dataset, getattr(loader, "collate_fn", None)
    if not callable(collate) or not hasattr(loader, "batch_sampler"):
        raise NotDrawable(f"{type(loader).__name__} has no collate function.")
    names = class_names_of(dataset)
    if loader.batch_sampler is None and not isinstance(dataset, IterableDataset):
        return Drawn(collate(dataset[_first(loader.sampler)]), class_names=names)
    if isinstance(dataset, IterableDataset):
        iterator: Any = iter(dataset)
        if iterator is dataset:
            raise NotDrawable(f"{type(dataset).__name__} is its own iterator.")
        if not getattr(loader, "_auto_collation", True):
            return Drawn(collate(_first(iterator)), class_names=names)
        items, ids = list(islice(iterator, n)), None
        del iterator  # here, so that what a generator does at its end is undone too
    else:
        indices = _indices(loader, n, seed)
        many = getattr(dataset, "__getitems__", None)
        items = many(indices) if callable(many) else [dataset[index] for index in indices]
        ids = [str(index) for index in indices] if isinstance(indices[0], int) else None
    if not items:
        raise ValueError(f"{type(dataset).__name__} is empty; a probe set needs at least one image.")
    pictures = raw_pictures(items)  # before the collate function, which may change them
    return Drawn(collate(items), ids, pictures, names)


def raw_pictures(items: Iterable[Any]) -> NDArray[np.uint8] | None:
    """(n, h, w, 3) uint8 RGB; None where their images are none, differ in size, or are not in [0, 1] or [0, 255]."""
    try:
        images = [as_image(parse(item), index) for index, item in enumerate(items)]
    except Exception:  # of whatever kind: the batch will tell
        return None
    if len({image.shape for image in images}) != 1 or not all(map(_is_displayable, images)):
        return None
    return np.concatenate([to_pictures(image[None] / (1 if image.is_floating_point() else 255)) for image in images])


def class_names_of(dataset: Any) -> list[str] | None:
    """What a dataset, or the one that it is a part of, calls its classes."""
    while dataset is not None:
        names = getattr(dataset, "classes", None)
        if isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names):
            return list(names)
        dataset = getattr(dataset, "dataset", None)
    return None


def _indices(loader: Any, n: int, seed: int) -> list[Any]:
    """Balanced over classes where the sampler goes through numbers; else the first that it names, such as places on a map."""
    dataset, batches = loader.dataset, loader.batch_sampler
    first = next(chain.from_iterable(batches), None)
    if first is None:
        return []
    if not _is_index(first):
        return list(islice(chain.from_iterable(batches), n))
    part = getattr(loader.sampler, "indices", None)  # of a SubsetRandomSampler
    if part is None:
        return choose(dataset_labels(dataset, seed), len(dataset), n, seed)
    pool = [int(index) for index in part]
    return [pool[place] for place in choose(dataset_labels(Subset(dataset, pool), seed), len(pool), n, seed)]


def _is_index(index: Any) -> bool:
    whole = isinstance(index, (int, np.integer)) or (isinstance(index, Tensor) and index.ndim == 0)
    return whole and not isinstance(index, bool)


def _first(things: Iterable[Any]) -> Any:
    for thing in things:
        return thing
    raise ValueError("the loader is empty; a probe set needs at least one image.")


def _is_displayable(image: Tensor) -> bool:
    if image.is_floating_point():
        return bool(image.min() >= 0) and bool(image.max() <= 1)
    return not image.is_complex() and int(image.min()) >= 0 and int(image.max()) <= 255
