"""What a probe is made of, checked: each says what was given, what was expected, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Channels = Sequence[float] | float | None

IGNORED = 255  # the class that segmentation data sets give to pixels that count for nothing


def check_images(images: Any, name: str = "images", dtype: torch.dtype | None = None) -> Tensor:
    """(N, C, H, W) float32 on the CPU, a copy; integers too where ``dtype`` says that the model takes them."""
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(images)
    if not isinstance(images, Tensor):
        raise TypeError(f"{name} must be a Tensor (N, C, H, W), not {type(images).__name__}.")
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"{name} must have shape (N, C, H, W) with N of at least 1, not {tuple(images.shape)}.")
    if not images.is_floating_point() and dtype is None:
        raise TypeError(
            f"{name} must be floating point, as the model gets them, not {images.dtype}; for a model that takes integers say "
            f"so: dtype={images.dtype}."
        )
    bad = (~images.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"{name} holds NaN or infinite pixels, in image {', '.join(map(str, bad[:5]))}; look at its normalisation."
        )
    return images.detach().to("cpu", torch.float32, copy=True)


def check_label_sets(label_sets: Any, n: int, class_names: list[str] | None) -> Tensor | None:
    """(N, K) bool."""
    if label_sets is None:
        return None
    tensor = torch.as_tensor(label_sets).detach().cpu()
    if tensor.ndim != 2 or len(tensor) != n:
        raise ValueError(f"label_sets has shape {tuple(tensor.shape)}; (N, K) is needed, a row for each of {n} images.")
    if not bool(((tensor == 0) | (tensor == 1)).all()):
        raise ValueError(
            "label_sets holds other values than 0 and 1; a row says of each class whether the image has it."
        )
    if class_names is not None and tensor.shape[1] != len(class_names):
        raise ValueError(f"label_sets is of {tensor.shape[1]} classes, but class_names has {len(class_names)} names.")
    return tensor.bool()


def check_class_maps(class_maps: Any, shape: tuple[int, int, int], class_names: list[str] | None) -> Tensor | None:
    """(N, H, W) int64, −1 where ignored."""
    if class_maps is None:
        return None
    tensor = torch.as_tensor(class_maps).detach().cpu()
    if tensor.is_floating_point() or tensor.is_complex():
        raise TypeError(f"class_maps must hold the class of each pixel (integers), not {tensor.dtype}.")
    if tensor.shape != shape:
        raise ValueError(f"class_maps has shape {tuple(tensor.shape)}; the images need {shape}.")
    tensor = tensor.long()
    tensor = tensor.masked_fill((tensor < 0) | (tensor == IGNORED), -1)
    if class_names is not None and int(tensor.max()) >= len(class_names):
        raise ValueError(f"class_maps holds class {int(tensor.max())}, but class_names has {len(class_names)} names.")
    return tensor


def check_values(values: Any, n: int) -> Tensor | None:
    """(N,) or (N, D) float32."""
    if values is None:
        return None
    tensor = torch.as_tensor(values).detach().cpu()
    if tensor.ndim not in (1, 2) or len(tensor) != n or tensor.is_complex():
        raise ValueError(f"values has shape {tuple(tensor.shape)} for {n} images; (N,) or (N, D) is needed.")
    if not bool(tensor.isfinite().all()):
        raise ValueError("values holds NaN or infinite numbers; leave out the images that have none.")
    return tensor.float()


def check_shown(shown: Any, shape: tuple[int, int, int]) -> NDArray[np.uint8] | None:
    """(N, H, W, 3) uint8."""
    if shown is None:
        return None
    array = shown.detach().cpu().numpy() if isinstance(shown, Tensor) else np.asarray(shown)
    if array.dtype != np.uint8 or array.shape != (*shape, 3):
        raise ValueError(
            f"shown is {array.dtype} of shape {array.shape}; pictures for people are uint8 RGB of shape {(*shape, 3)}."
        )
    return array.copy()


def check_labels(labels: Any, n: int, class_names: list[str] | None) -> Tensor | None:
    """(N,) int64."""
    if labels is None:
        return None
    tensor = torch.as_tensor(labels).detach().cpu()
    if tensor.is_floating_point() or tensor.dtype == torch.bool:
        raise TypeError(f"labels must be class indices (integers), not {tensor.dtype}.")
    if tensor.shape != (n,):
        raise ValueError(f"labels has shape {tuple(tensor.shape)} for {n} images; one class index for each is needed.")
    if int(tensor.min()) < 0:
        raise ValueError(f"labels holds {int(tensor.min())}; class indices are 0 and above.")
    if class_names is not None and int(tensor.max()) >= len(class_names):
        raise ValueError(f"labels holds class {int(tensor.max())}, but class_names has {len(class_names)} names.")
    return tensor.long()


def check_masks(name: str, masks: Any, shape: tuple[int, int, int]) -> NDArray[np.bool_] | None:
    """(N, H, W) bool, a copy."""
    if masks is None:
        return None
    array = masks.detach().cpu().numpy() if isinstance(masks, Tensor) else np.asarray(masks)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; the images need {shape}.")
    if array.dtype != bool:
        if not np.isin(array, (0, 1)).all():
            raise TypeError(
                f"{name} must be bool (True where the region is), not {array.dtype} with other values than 0 and 1."
            )
        array = array.astype(bool)
    return array.copy()


def check_boxes(boxes: Any, n: int, size: tuple[int, int]) -> list[NDArray[np.float64]] | None:
    """N arrays (n, 4) of corners in pixels, inside the image."""
    if boxes is None:
        return None
    if len(boxes) != n:
        raise ValueError(
            f"boxes holds {len(boxes)} lists for {n} images; pass one list for each, empty where there is none."
        )
    checked = []
    for index, image_boxes in enumerate(boxes):
        array = np.asarray(image_boxes, dtype=np.float64).reshape(-1, 4) if len(image_boxes) else np.zeros((0, 4))
        x1, y1, x2, y2 = array.T
        inside = (x1 >= 0) & (y1 >= 0) & (x2 <= size[1]) & (y2 <= size[0])
        if not ((x1 < x2) & (y1 < y2) & inside).all():
            raise ValueError(
                f"boxes[{index}] holds {array.tolist()}; boxes are x1, y1, x2, y2 in pixels with x1 < x2 and y1 < y2, "
                f"inside the {size[1]}x{size[0]} image."
            )
        checked.append(array)
    return checked


def check_box_labels(
    labels: Sequence[Sequence[int]] | None, boxes: list[NDArray[np.float64]] | None
) -> list[list[int]] | None:
    """A class for each box of each image."""
    if labels is None:
        return None
    counts = None if boxes is None else [len(image_boxes) for image_boxes in boxes]
    if counts != [len(image_labels) for image_labels in labels]:
        raise ValueError(f"box_labels must hold one class for each box; the images have {counts} boxes.")
    return [[int(label) for label in image_labels] for image_labels in labels]


def check_names(name: str, values: Iterable[Any], n: int) -> list[str]:
    """One for each image."""
    names = [str(value) for value in values]
    if len(names) != n:
        raise ValueError(f"{name} holds {len(names)} names for {n} images.")
    return names


def check_channels(name: str, values: Channels, channels: int) -> NDArray[np.float32] | None:
    """(C,), from one number or one for each channel."""
    if values is None:
        return None
    array = np.asarray(values, dtype=np.float32).reshape(-1)
    if array.size not in (1, channels):
        raise ValueError(f"{name} has {array.size} numbers for {channels} channels; pass one, or one for each.")
    return np.broadcast_to(array, (channels,)).copy()
