"""The pictures behind a forward: its images, and the files or arrays that a library made them from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cam_engine import _tree
from cam_engine.explanation.reading import Picture, paths_of, read
from cam_engine.geometry import Prepare
from cam_engine.loading import Loaded, load_model
from cam_engine.loading.yolo import is_yolo, yolo_input

_ALIKE = 0.03  # mean difference of two inputs made from one picture, in shares of their range


def images_of(given: Any) -> Iterator[Tensor]:
    """The images among a forward's arguments, one by one, (1, C, H, W); an image of one value only is a warm-up."""
    tensors = [t for _, t in _tree.tensors(given) if t.is_floating_point() and t.ndim in (3, 4)]
    batches = [t if t.ndim == 4 else t[None] for t in tensors]
    batches = [t for t in batches if t.shape[1] in (1, 3, 4) and min(t.shape[2:]) > 1]
    is_list = all(t.ndim == 3 for t in tensors)  # torchvision's detectors take their images so
    for batch in batches if is_list else batches[:1]:
        for image in batch:
            if bool(image.amax() > image.amin()):
                yield image[None]


def sources_of(args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """What a library's own call was given to read: paths, PIL images, arrays; nothing for tensors."""
    named = (kwargs[name] for name in ("source", "image", "images") if name in kwargs)
    first = args[0] if args else next(named, None)
    sources: list[Any] = []
    for each in first if isinstance(first, (list, tuple)) else [first]:
        if isinstance(each, (str, os.PathLike)):
            try:
                sources += paths_of(each) or [Path(each)]
            except FileNotFoundError:
                continue
        elif isinstance(each, (Image.Image, np.ndarray)):
            sources.append(each)
    return sources


def sources_of_predictor(model: Any) -> list[tuple[str | None, Any]]:
    """Name and pixels, RGB, of each picture in the batch that an ultralytics predictor runs now."""
    batch = getattr(getattr(model, "predictor", None), "batch", None)
    if not isinstance(batch, (list, tuple)) or len(batch) < 2 or not isinstance(batch[1], list):
        return []
    paths, pictures = batch[:2]
    return [(Path(str(p)).stem, np.ascontiguousarray(i[:, :, ::-1])) for p, i in zip(paths, pictures, strict=False)]


def original_of(source: Any, name: str | None, image: Tensor, prepares: Iterable[Prepare]) -> Picture | None:
    """The picture that an image (1, C, H, W) was made from, if it was this one: in its own pixels and with its name."""
    for prepare in prepares:
        try:
            picture = read(source, prepare)
        except (OSError, TypeError, ValueError, RuntimeError):
            continue
        made, span = picture.tensor.to(image), float(image.amax() - image.amin())
        if made.shape == image.shape and float((made - image).abs().mean()) <= _ALIKE * span:
            return Picture(picture.original, image, picture.geometry, name or picture.name)
    return None


def _prepares(model: Any, loaded: Loaded, size: tuple[int, int]) -> Iterator[Prepare]:
    """The ways in which the model's library may have made an input of (H, W)."""
    if is_yolo(loaded.net):
        yield yolo_input(loaded.net, size)[0]
        return
    yield loaded.prepare
    yield load_model(model, size=size[0] if size[0] == size[1] else size).prepare


Finder = Callable[[Tensor, int], Picture | None]
"""From an image and its place among those of the call to the picture it was made from, where that is known."""


def finder(model: Any, loaded: Loaded, sources: Sequence[Any]) -> Finder:
    """Looks in the batch of an ultralytics predictor, else in what the model was called with."""

    def find(image: Tensor, place: int) -> Picture | None:
        known = sources_of_predictor(model) or [(None, source) for source in sources[place : place + 1]]
        with torch.no_grad():
            for name, source in known:
                found = original_of(source, name, image, _prepares(model, loaded, (image.shape[-2], image.shape[-1])))
                if found is not None:
                    return found
        return None

    return find
