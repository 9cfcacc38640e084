"""One item of a dataset, or one image's part of a batch: which of it is the image, and what is known of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cam_callbacks.inputs import describe
from cam_engine import _tree

IMAGE_KEYS = ("image", "pixel_values", "img", "images", "x", "input", "inputs")
LABEL_KEYS = ("label", "labels", "target", "targets", "class", "class_id", "gt_label", "y")
MASK_KEYS = ("mask", "masks", "gt_mask", "segmentation", "seg", "class_map")
BOX_KEYS = ("boxes", "bboxes", "bbox_xyxy", "gt_boxes")
ANNOTATION_KEYS = (*LABEL_KEYS, *MASK_KEYS, *BOX_KEYS)


@dataclass(frozen=True, eq=False)
class Item:
    """What an item, ``whole``, holds. ``picture``: the image as it lies in it, ``path``: where that is. ``target``: what is to be
    predicted, an array of any shape. ``mask``: a region, or the class of each pixel. ``boxes``: corners xyxy (n, 4), and
    ``box_labels`` their classes. None where it does not tell."""

    whole: Any
    picture: Any
    path: _tree.Path
    target: NDArray[Any] | None
    mask: NDArray[Any] | None
    boxes: NDArray[np.float64] | None
    box_labels: list[int] | None


def parse(item: Any) -> Item:
    """Read an item: an image, ``(image, target)``, a dictionary or dataclass, or ``(image, dictionary)``."""
    path = image_path(item)
    known = dict(_tree.children(item)) if not isinstance(item, (tuple, list)) else {}
    target: Any = _first(known, LABEL_KEYS)
    place = target_place(item)
    if place is not None:
        target = item[place]
    if isinstance(target, Mapping):  # (image, {"boxes": …, "labels": …})
        known = dict(target)
        target = _first(known, LABEL_KEYS)
    boxes = _array(_first(known, BOX_KEYS))
    corners = None if boxes is None else boxes.astype(np.float64).reshape(-1, 4)
    picture = _tree.get(item, path)
    if corners is not None and "class_labels" in known and isinstance(picture, Tensor):
        corners = _corners_of_shares(corners, picture.shape[-2:])  # as the processors of transformers make them
    box_labels = None if corners is None else _box_labels(known, len(corners))
    return Item(
        whole=item,
        picture=picture,
        path=path,
        target=None if box_labels is not None else _array(target),
        mask=_array(_first(known, MASK_KEYS)),
        boxes=corners,
        box_labels=box_labels,
    )


def image_path(item: Any) -> _tree.Path:
    """Where in an item the image lies: under a usual name, else the first that looks like one; () for the item itself."""
    children = _tree.children(item)
    if not children:
        return ()
    if isinstance(item, (tuple, list)):
        place = next((key for key, child in children if _holds_an_image(child)), 0)
        return (place, *image_path(item[place]))
    named = dict(children)
    key = next((k for k in IMAGE_KEYS if named.get(k) is not None), None)
    if key is None:
        key = next((k for k, value in children if k not in ANNOTATION_KEYS and _looks_like_an_image(value)), None)
    return () if key is None else (key, *image_path(named[key]))


def as_image(item: Item, index: Any) -> Tensor:
    """(C, H, W) in the dtype that it has, of what an item holds as its image.

    Raises:
        ValueError: It is none; ``index`` names it.
    """
    picture = item.picture
    if isinstance(picture, Image.Image):
        tensor = torch.from_numpy(np.asarray(picture.convert("RGB")).transpose(2, 0, 1).copy())
    elif isinstance(picture, np.ndarray):
        tensor = torch.from_numpy(np.ascontiguousarray(picture))
        if tensor.ndim == 3 and tensor.shape[-1] in (1, 3, 4) and tensor.shape[0] not in (1, 3):
            tensor = tensor.permute(2, 0, 1)
    elif isinstance(picture, Tensor):
        tensor = picture.detach().cpu()
    else:
        raise ValueError(
            f"item {index} of the dataset holds no image that can be read, but {describe(item.whole)}; items may be an image, "
            "(image, label), or a dictionary with an 'image'. Or take some images yourself: ProbeSet(images, labels)."
        )
    if tensor.ndim == 2:
        tensor = tensor[None]
    if tensor.ndim == 4:
        raise ValueError(
            f"the image of item {index} has shape {tuple(tensor.shape)}: a volume, or a series of images. Maps of volumes are not "
            "supported yet; pass a probe of single slices (N, C, H, W), with a forward= that the model takes them through."
        )
    if tensor.ndim != 3:
        raise ValueError(f"the image of item {index} has shape {tuple(tensor.shape)}; (C, H, W) is needed.")
    return tensor


def in_unit_range(image: Tensor) -> Tensor:
    """float32; uint8 divided by 255."""
    return image.float() / 255 if image.dtype == torch.uint8 else image.float()


def largest_box_class(item: Item) -> int | None:
    """The class of an item's largest box."""
    if not item.box_labels or item.boxes is None:
        return None
    sizes = (item.boxes[:, 2:] - item.boxes[:, :2]).prod(1)
    return item.box_labels[int(sizes.argmax())]


def target_place(item: Any) -> int | None:
    """Where in a tuple ``(image, …)`` that is which is to be predicted; None where nothing is, or the item is no tuple.

    Not another image, nor a row of floats where there is more to come.
    """
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        return None
    if len(item) == 2:
        return 1
    shape = item[0].shape if isinstance(item[0], (Tensor, np.ndarray)) else None
    usable = []
    for place, value in enumerate(item[1:], 1):
        if isinstance(value, Mapping):
            return place
        array = _array(value)
        if array is None or (array.shape == shape and array.dtype.kind == "f"):
            continue
        usable.append(place)
        if array.ndim > 1 or array.dtype.kind != "f":
            return place
    return usable[-1] if usable else None


def _first(known: Mapping[Any, Any], keys: tuple[str, ...]) -> Any:
    return next((known[key] for key in keys if known.get(key) is not None), None)


def _holds_an_image(value: Any) -> bool:
    return _looks_like_an_image(value) or any(_holds_an_image(child) for _, child in _tree.children(value))


def _looks_like_an_image(value: Any) -> bool:
    return isinstance(value, Image.Image) or (isinstance(value, (Tensor, np.ndarray)) and value.ndim in (3, 4))


def _array(value: Any) -> NDArray[Any] | None:
    """Numbers as an array; None of anything else."""
    if value is None or isinstance(value, (str, bytes, Mapping)):
        return None
    try:
        array = np.asarray(value.detach().cpu().float() if _is_half(value) else _on_host(value))
    except (TypeError, ValueError, RuntimeError):
        return None
    return array if array.dtype.kind in "buif" else None


def _is_half(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.bfloat16  # numpy has none


def _on_host(value: Any) -> Any:
    return value.detach().cpu() if isinstance(value, Tensor) else value


def _corners_of_shares(boxes: NDArray[np.float64], size: tuple[int, ...]) -> NDArray[np.float64]:
    """Corners xyxy in pixels of boxes cx, cy, w, h in shares of an image of that height and width."""
    centre, extent = boxes[:, :2], boxes[:, 2:]
    shares = np.concatenate([centre - extent / 2, centre + extent / 2], axis=1)
    corners: NDArray[np.float64] = shares.clip(0, 1) * np.array([size[1], size[0]] * 2)
    return corners


def _box_labels(known: Mapping[Any, Any], count: int) -> list[int] | None:
    """The class of each of ``count`` boxes; None where the item does not tell."""
    array = _array(_first(known, ("labels", "label", "class_labels", *LABEL_KEYS)))
    if array is None or array.shape != (count,):
        return None
    return array.astype(int).tolist() if array.dtype.kind in "iu" or not count else None
