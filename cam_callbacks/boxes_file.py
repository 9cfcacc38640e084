"""Boxes that a person drew on the probe images, from the file that the comparison page saves.

    {"format": 1, "size": [height, width], "images": {"<id>": {"boxes": [[x1, y1, x2, y2], …], "nuisance": […]}}}

Pixels are those of pictures of ``size``; a probe of another size gets them scaled.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cam_callbacks.text_table import printable

FORMAT = 1

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Marked:
    """``boxes``: for each image its objects, xyxy in pixels of the probe, [] where none was drawn. ``nuisance``: (N, H, W) bool,
    the suspected regions; None where none was drawn on any image."""

    boxes: list[list[Box]]
    nuisance: NDArray[np.bool_] | None


def read_boxes(path: str | os.PathLike[str], ids: Sequence[str], size: tuple[int, int]) -> Marked:
    """Boxes for the images of a probe, found by their ids.

    Args:
        path: The file.
        ids: Of the probe's images.
        size: (H, W) of the probe's images.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is no such file, holds a box that is none, or images that the probe does not have.
    """
    file = Path(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}")
        height, width = (float(side) for side in content["size"])
        images = {str(name): {key: [_box(box) for box in of.get(key, ())] for key in ("boxes", "nuisance")}
                  for name, of in content["images"].items()}  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"boxes={str(file)!r} is no file of boxes as the page and `cam-callbacks annotate` save it ({error})."
        ) from error
    place = {printable(name): at for at, name in enumerate(ids)} | {name: at for at, name in enumerate(ids)}
    if strange := [name for name in images if name not in place]:
        raise ValueError(
            f"boxes={str(file)!r} marks {len(strange)} images that this probe does not have, such as {strange[0]!r}; its ids are "
            f"{', '.join(ids[:3])}, …. Boxes belong to the probe that they were drawn on."
        )
    scale = (size[1] / width, size[0] / height) * 2
    boxes: list[list[Box]] = [[] for _ in ids]
    suspected = np.zeros((len(ids), *size), bool)
    for name, of in images.items():
        boxes[place[name]] = [_scaled(box, scale, size) for box in of["boxes"]]
        for x1, y1, x2, y2 in (_scaled(box, scale, size) for box in of["nuisance"]):
            suspected[place[name], math.floor(y1) : math.ceil(y2), math.floor(x1) : math.ceil(x2)] = True
    return Marked(boxes, suspected if suspected.any() else None)


def _box(values: Any) -> Box:
    x1, y1, x2, y2 = (float(value) for value in values)
    if not (math.isfinite(x1 + y1 + x2 + y2) and x1 < x2 and y1 < y2 and min(x1, y1) >= 0):
        raise ValueError(f"{values!r} is no box (x1, y1, x2, y2)")
    return x1, y1, x2, y2


def _scaled(box: Box, scale: Sequence[float], size: tuple[int, int]) -> Box:
    x1, y1, x2, y2 = (value * by for value, by in zip(box, scale, strict=True))
    return min(x1, size[1]), min(y1, size[0]), min(x2, size[1]), min(y2, size[0])
