"""Reading what ``image=`` may be: a path, bytes, a PIL image, an array, a tensor; a folder or a glob of them."""

from __future__ import annotations

import glob
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from cam_engine.geometry import Geometry, Prepare, batched
from cam_engine.pictures import IMAGE_SUFFIXES, to_pictures


@dataclass(frozen=True, eq=False)
class Picture:
    """One image as it is explained: ``original`` (RGB), ``tensor`` (1, C, H, W), and how one lies on the other.

    ``prepared``: the tensor was made from the picture, and not given as it is.
    """

    original: Image.Image
    tensor: Tensor
    geometry: Geometry
    name: str
    prepared: bool = True


def read(image: Any, prepare: Prepare) -> Picture:
    """Read one image. A tensor is the model's input as it is; everything else goes through ``prepare``.

    Raises:
        TypeError, ValueError: An image of another kind or shape.
        FileNotFoundError: No such file.
    """
    if isinstance(image, Tensor):
        tensor = batched(image)
        original = Image.fromarray(to_pictures(tensor)[0])
        size = (original.height, original.width)
        return Picture(original, tensor, Geometry.stretched(size, size), "image", prepared=False)
    name = Path(image).stem if isinstance(image, (str, os.PathLike)) else "image"
    original = _open(image)
    tensor, geometry = prepare(original)
    return Picture(original, tensor, geometry, name)


def paths_of(image: Any) -> list[Path] | None:
    """The pictures in a folder, or those that a glob matches, sorted; None if ``image`` is a single image.

    Raises:
        FileNotFoundError: The folder or the glob holds no picture.
    """
    if not isinstance(image, (str, os.PathLike)) or Path(image).is_file():
        return None
    if Path(image).is_dir():
        files = list(Path(image).iterdir())
    elif glob.has_magic(str(image)):
        files = [Path(path) for path in glob.glob(str(image), recursive=True) if Path(path).is_file()]
    else:
        return None
    pictures = sorted(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)
    if not pictures:
        raise FileNotFoundError(f"no picture in {str(image)!r}; looked for {', '.join(IMAGE_SUFFIXES)}.")
    return pictures


def _open(image: Any) -> Image.Image:
    if isinstance(image, (str, os.PathLike)):
        with Image.open(image) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    if isinstance(image, (bytes, bytearray)):
        with Image.open(io.BytesIO(image)) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4))):
            raise TypeError(
                f"an image array must be uint8 of shape (H, W, 3) or (H, W), not {image.dtype} of shape {image.shape}."
            )
        image = Image.fromarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    if not isinstance(image, Image.Image):
        raise TypeError(f"image must be a path, bytes, PIL image, array or tensor, not {type(image).__name__}.")
    return image.convert("RGB")
