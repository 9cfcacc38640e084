"""Reading a balanced, reproducible choice of images out of any map-style dataset or folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from cam_engine.pictures import IMAGE_SUFFIXES

IMAGE_KEYS = ("image", "pixel_values", "img", "images", "x", "input")
LABEL_KEYS = ("label", "labels", "target", "targets", "class", "y")
SCAN_LIMIT = 1000  # items opened to learn labels where the dataset does not list them


def read_items(dataset: Any, n: int, seed: int) -> dict[str, Any]:
    """Images, labels, masks, boxes and ids of ``n`` items, as arguments of ProbeSet.

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
    items = [_parse(dataset[index], index) for index in chosen]
    shapes = {tuple(item["image"].shape) for item in items}
    if len(shapes) > 1:
        raise ValueError(
            f"the images differ in shape ({sorted(shapes)}); a probe set needs one size: resize in the "
            "dataset, or pass size= to from_folder."
        )
    read: dict[str, Any] = {
        "images": torch.stack([item["image"] for item in items]),
        "ids": [str(index) for index in chosen],
    }
    if all(item["label"] is not None for item in items):
        read["labels"] = torch.tensor([item["label"] for item in items])
    if all(item["mask"] is not None for item in items):
        read["masks"] = np.stack([item["mask"] for item in items])
    if all(item["boxes"] is not None for item in items):
        read["boxes"] = [item["boxes"] for item in items]
        if all(item["box_labels"] is not None for item in items):
            read["box_labels"] = [item["box_labels"] for item in items]
    return read


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
        return {i: int(v) for i, v in enumerate(listed)}
    indices = np.random.default_rng(seed).permutation(len(dataset))[:SCAN_LIMIT]
    labels = {int(i): _parse(dataset[int(i)], int(i))["label"] for i in indices}
    return {i: label for i, label in labels.items() if label is not None} or None


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


def _parse(item: Any, index: int) -> dict[str, Any]:
    label: Any = None
    extra: dict[str, Any] = {}
    if isinstance(item, dict):
        image = next((item[k] for k in IMAGE_KEYS if k in item), None)
        label = next((item[k] for k in LABEL_KEYS if k in item), None)
        extra = item
    elif isinstance(item, (tuple, list)):
        image = item[0] if item else None
        label = item[1] if len(item) > 1 else None
    else:
        image = item
    if isinstance(label, dict):  # detection: (image, {"boxes": …, "labels": …})
        extra, label = label, None
    mask, boxes = extra.get("mask"), extra.get("boxes")
    corners = None if boxes is None else np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    box_labels = None if corners is None else _box_labels(extra, len(corners))
    return {
        "image": _image(image, index),
        "label": _label(label) if box_labels is None else _largest(corners, box_labels),
        "mask": None if mask is None else np.asarray(mask).astype(bool),
        "boxes": None if corners is None else corners.tolist(),
        "box_labels": box_labels,
    }


def _box_labels(item: dict[str, Any], count: int) -> list[int] | None:
    """The class of each of ``count`` boxes; None where the item does not tell."""
    labels = next((item[k] for k in LABEL_KEYS if k in item), None)
    if labels is None or isinstance(labels, (str, bytes)):
        return None
    array = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    return array.astype(int).tolist() if array.shape == (count,) and (array.dtype.kind in "iu" or not count) else None


def _largest(corners: Any, labels: list[int]) -> int | None:
    """The class of the largest box."""
    sizes = (corners[:, 2:] - corners[:, :2]).prod(1)
    return labels[int(sizes.argmax())] if labels else None


def _image(image: Any, index: int) -> Tensor:
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    if isinstance(image, np.ndarray):
        tensor = torch.from_numpy(np.ascontiguousarray(image))
        if tensor.ndim == 3 and tensor.shape[-1] in (1, 3, 4) and tensor.shape[0] not in (1, 3):
            tensor = tensor.permute(2, 0, 1)
    elif isinstance(image, Tensor):
        tensor = image
    else:
        raise ValueError(
            f"item {index} of the dataset holds no image that can be read (found {type(image).__name__}); "
            "items may be an image, (image, label), or a dictionary with an 'image'."
        )
    if tensor.ndim == 2:
        tensor = tensor[None]
    if tensor.ndim != 3:
        raise ValueError(f"the image of item {index} has shape {tuple(tensor.shape)}; (C, H, W) is needed.")
    return tensor.float() / 255 if tensor.dtype == torch.uint8 else tensor.detach().cpu().float()


def _label(label: Any) -> int | None:
    if isinstance(label, (bool, str)) or label is None:
        return None
    array = np.asarray(label)
    return int(array) if array.size == 1 and array.dtype.kind in "iu" else None


class _Folder:
    """Pictures of a folder as a dataset of (image, label)."""

    def __init__(self, files: Sequence[Path], labels: list[int], classes: list[str], size: int | None) -> None:
        self.files, self.classes, self.size = list(files), classes, size
        if labels:
            self.targets = labels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        with Image.open(self.files[index]) as opened:
            picture = opened.convert("RGB")
        if self.size is not None:
            picture = _center_crop(picture, self.size)
        return (picture, self.targets[index]) if self.classes else picture


def images_in_folder(folder: Path, size: int | None) -> _Folder:
    """Open a folder of pictures, one sub-folder a class, or without classes."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {str(folder)!r} to read probe images from.")

    def pictures(where: Path) -> list[Path]:
        return sorted(p for p in where.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)

    classes = sorted(p.name for p in folder.iterdir() if p.is_dir() and pictures(p))
    if classes:
        pairs = [(file, label) for label, name in enumerate(classes) for file in pictures(folder / name)]
        return _Folder([f for f, _ in pairs], [label for _, label in pairs], classes, size)
    files = pictures(folder)
    if not files:
        raise FileNotFoundError(f"no picture in {str(folder)!r}; looked for {', '.join(IMAGE_SUFFIXES)}.")
    return _Folder(files, [], [], size)


def _center_crop(picture: Image.Image, size: int) -> Image.Image:
    scale = size / min(picture.size)
    wide, high = (max(size, round(side * scale)) for side in picture.size)
    picture = picture.resize((wide, high), Image.Resampling.BILINEAR)
    left, top = (wide - size) // 2, (high - size) // 2
    return picture.crop((left, top, left + size, top + size))
