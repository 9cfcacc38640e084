"""Reading a balanced, reproducible choice of images out of any map-style dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from cam_callbacks.annotations import read_maps, read_targets
from cam_callbacks.items import Item, as_image, in_unit_range, largest_box_class, parse

SCAN_LIMIT = 1000  # items opened to learn labels where the dataset does not list them
UNLABELLED = 16  # so many without a label, and the rest is taken to have none either


def read_items(dataset: Any, n: int, seed: int) -> dict[str, Any]:
    """Images, ids and what is known of ``n`` items, as arguments of ProbeSet.

    Raises:
        TypeError: The dataset has no length or index.
        ValueError: It is empty, ``n`` is below 1, or an item holds no image.
    """
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise TypeError(
            f"{type(dataset).__name__} cannot be read by index (it has no length or no __getitem__); "
            "take some images yourself and pass ProbeSet(images, labels)."
        )
    if n < 1:
        raise ValueError(f"n={n}: a probe set needs at least one image.")
    if len(dataset) == 0:
        raise ValueError(f"{type(dataset).__name__} is empty; a probe set needs at least one image.")
    chosen = choose(dataset_labels(dataset, seed), len(dataset), n, seed)
    items = [parse(dataset[index]) for index in chosen]
    images = [in_unit_range(as_image(item, index)) for item, index in zip(items, chosen, strict=True)]
    return {"images": stacked(images), "ids": [str(index) for index in chosen], **known_of(items, images[0].shape[-2:])}


def stacked(images: Sequence[Tensor]) -> Tensor:
    """Images (C, H, W) as one tensor (N, C, H, W).

    Raises:
        ValueError: They differ in shape.
    """
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise ValueError(
            f"the images differ in shape ({sorted(shapes)}); a probe set needs one size: resize in the "
            "dataset, or pass size= to from_folder."
        )
    return torch.stack(list(images))


def known_of(items: Sequence[Item], size: Sequence[int]) -> dict[str, Any]:
    """Labels or other targets, masks and boxes of all items, as arguments of ProbeSet; what one of them lacks is left out.

    Args:
        items: The items.
        size: Height and width of their images.
    """
    high, wide = size
    known: dict[str, Any] = {}
    if all(item.boxes is not None for item in items):
        known["boxes"] = [item.boxes for item in items]
        if all(item.box_labels is not None for item in items):
            known["box_labels"] = [item.box_labels for item in items]
    largest = [largest_box_class(item) for item in items]
    if all(label is not None for label in largest):
        known["labels"] = np.array(largest)
    else:
        known |= read_targets([item.target for item in items], (high, wide))
    maps = read_maps([item.mask for item in items], (high, wide))
    if maps is not None:
        alone = not known.keys() & {"labels", "label_sets", "class_maps", "values"}
        if alone:
            known["class_maps"] = maps
        if not alone or maps.max() <= 1:  # a region; or of two classes the one that is no ground
            known["masks"] = maps > 0
    return known


def choose(labels: dict[int, int] | None, size: int, n: int, seed: int) -> list[int]:
    """Indices of ``n`` items, as equally many of each class as there are, in a seeded order; sorted by class, then index."""
    rng = np.random.default_rng(seed)
    if labels is None:
        return sorted(rng.permutation(size)[: min(n, size)].tolist())
    pools: dict[int, list[int]] = {}
    for index in rng.permutation(np.array(sorted(labels))).tolist():
        pools.setdefault(labels[index], []).append(index)
    rounds = max(len(pool) for pool in pools.values())
    classes = sorted(pools)
    if n < len(classes):  # not one of each: take a seeded choice of classes rather than always the first
        classes = sorted(rng.permutation(classes)[:n].tolist())
    turns = [(turn, c) for turn in range(rounds) for c in classes if turn < len(pools[c])]
    return [pools[c][turn] for c, turn in sorted((c, turn) for turn, c in turns[:n])]


def dataset_labels(dataset: Any, seed: int) -> dict[int, int] | None:
    """Label of each item, without opening images where the dataset lists labels; otherwise of up to a thousand opened items."""
    listed = _listed_labels(dataset)
    if listed is not None and len(listed) == len(dataset):
        return _labelled({i: int(v) for i, v in enumerate(listed)})
    targets: dict[int, Any] = {}
    for opened, index in enumerate(np.random.default_rng(seed).permutation(len(dataset))[:SCAN_LIMIT].tolist()):
        item = parse(dataset[index])
        target = item.target if item.box_labels is None else largest_box_class(item)
        if target is not None and np.ndim(target) < 2:
            targets[index] = target
        elif opened >= UNLABELLED and not targets:
            return None
    if all(np.size(target) == 1 and np.asarray(target).dtype.kind in "iu" for target in targets.values()):
        targets = _labelled({index: int(np.reshape(target, -1)[0]) for index, target in targets.items()})
    labels = read_targets(list(targets.values()), (0, 0)).get("labels") if targets else None
    return None if labels is None else dict(zip(targets, labels.tolist(), strict=True))


def _labelled(labels: dict[int, int]) -> dict[int, int]:
    """Without the −1 of items that have no label; beside 1 alone it is a class."""
    known = {index: label for index, label in labels.items() if label != -1}
    return known if set(known.values()) - {1} else labels


def _listed_labels(dataset: Any) -> NDArray[np.int64] | None:
    if isinstance(dataset, Subset):
        inner = _listed_labels(dataset.dataset)
        return None if inner is None else inner[np.asarray(dataset.indices)]
    if isinstance(dataset, TensorDataset):
        if len(dataset.tensors) < 2:
            return None
        values: Any = dataset.tensors[1]
    else:
        values = getattr(dataset, "targets", None)
        if values is None:
            values = getattr(dataset, "labels", None)
    if values is None or isinstance(values, (str, bytes)) or callable(values):
        return None
    try:
        array = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
    except (TypeError, ValueError):
        return None
    return array.astype(np.int64) if array.ndim == 1 and array.dtype.kind in "iu" else None
