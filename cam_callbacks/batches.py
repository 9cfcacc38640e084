"""A batch as the model gets it, read as a probe: its images, what else the model takes, and what is known of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cam_callbacks.datasets import known_of, stacked
from cam_callbacks.inputs import Form, Inputs, describe, leaves, row_of
from cam_callbacks.items import ANNOTATION_KEYS, image_path, parse, target_place
from cam_callbacks.loaders import Drawn
from cam_callbacks.normalisation import find_normalisation
from cam_engine import _tree
from cam_engine.pictures import to_pictures

_ALIKE = 0.9  # correlation between a picture and what the model gets of it, grey; a crop or a flip has less


def read_batch(drawn: Drawn, n: int, *roots: Any) -> dict[str, Any]:
    """Everything that a probe holds, as arguments of ProbeSet, out of a batch that went through the whole pipeline.

    Args:
        drawn: The batch, and what is known of it from before the pipeline.
        n: How many of its images at most: the first.
        roots: What may know how images were normalised: the loader, the data module, the module.

    Raises:
        ValueError: It holds no images (N, C, H, W).
    """
    path, images, form = images_in(drawn.batch)
    batch = _tree.replace(drawn.batch, path, images)
    inputs = Inputs(batch, path, form, _annotations(batch, len(images))).first(n)
    images = inputs.images
    items = [parse(row_of(inputs.batch, len(images), row)) for row in range(len(images))]
    read: dict[str, Any] = {
        "images": images,
        "dtype": None if images.is_floating_point() else images.dtype,
        "inputs": inputs if path or form != "tensor" else None,
        **known_of(items, images.shape[-2:]),
    }
    if drawn.ids is not None and len(drawn.ids) >= len(images):
        read["ids"] = drawn.ids[: len(images)]
    read["shown"] = _corresponding(drawn.pictures, images)
    normalised = find_normalisation(images, *roots) if images.is_floating_point() else None
    if normalised is not None:
        read["mean"], read["std"] = (values.tolist() for values in normalised)
    if drawn.class_names and _names_fit(drawn.class_names, read):
        read["class_names"] = drawn.class_names
    return read


def images_in(batch: Any) -> tuple[_tree.Path, Tensor, Form]:
    """Where the images of a batch lie, the images (N, C, H, W), and the form in which they are there.

    Raises:
        ValueError: There are none, or volumes.
    """
    path = image_path(batch)
    images = _tree.get(batch, path)
    siblings = _tree.get(batch, path[:-1]) if path else None
    if isinstance(siblings, (list, tuple)) and all(isinstance(one, Tensor) and one.ndim == 3 for one in siblings):
        return path[:-1], stacked(list(siblings)), "list"
    if isinstance(images, np.ndarray):
        images = torch.as_tensor(images)
    if not isinstance(images, Tensor) or images.ndim != 4 or not len(images):
        volume = isinstance(images, Tensor) and images.ndim == 5
        raise ValueError(
            f"no images (N, C, H, W) found in the batch, which holds {describe(batch)}"
            f"{': volumes, or series of images, are not supported yet' if volume else ''}; take some images yourself, and pass "
            "ProbeSet(images, labels), with forward=lambda model, images: … where the model takes them in another way."
        )
    if images.shape[-1] in (1, 3, 4) and min(images.shape[1:3]) > 4:
        return path, images.movedim(-1, 1), "channels last"
    return path, images, "tensor"


def _annotations(batch: Any, n: int) -> list[_tree.Path]:
    place = target_place(row_of(batch, n, 0))
    paths = [path for path, _ in leaves(batch, n)]
    return [
        p for p in paths if p and (p[0] == place or any(key in ANNOTATION_KEYS for key in p if isinstance(key, str)))
    ]


def _corresponding(pictures: NDArray[np.uint8] | None, images: Tensor) -> NDArray[np.uint8] | None:
    """The pictures, where they show what the model gets, pixel by pixel; None where that lies in [0, 1] and is shown itself."""
    if pictures is None or len(pictures) < len(images) or pictures.shape[1:3] != images.shape[-2:]:
        return None
    if images.is_floating_point() and images.min() >= 0 and images.max() <= 1:
        return None
    pictures = pictures[: len(images)]
    pairs = zip(_grey(pictures), _grey(to_pictures(images)), strict=True)
    return pictures if all(_correlation(a, b) > _ALIKE for a, b in pairs) else None


def _grey(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    return pictures.reshape(len(pictures), -1, 3).mean(2)


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / size if size > 1e-9 else 1.0  # a plain image says nothing against it


def _names_fit(names: list[str], read: dict[str, Any]) -> bool:
    """Are there as many names as the classes need?"""
    if "label_sets" in read:
        return len(names) == read["label_sets"].shape[1]
    known = [np.max(read[key]) for key in ("labels", "class_maps") if key in read]
    return all(most < len(names) for most in known)
