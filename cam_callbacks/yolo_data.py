"""A probe from a data set in YOLO's format: pictures, and a text file of boxes beside each."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from cam_callbacks.datasets import choose
from cam_callbacks.probe import ProbeSet
from cam_engine.pictures import IMAGE_SUFFIXES

GREY = 114  # what YOLO pads with


@dataclass(frozen=True)
class Letterbox:
    """How a picture was brought to a square: resized by ``scale``, then shifted by ``left`` and ``top`` pixels."""

    scale: float
    left: int
    top: int


def probe_from_yolo(
    data: str | os.PathLike[str] | Mapping[str, Any], n: int = 16, size: int = 160, seed: int = 0, split: str = "val"
) -> ProbeSet:
    """Choose ``n`` pictures with boxes of a YOLO data set, balanced over classes and reproducibly.

    Pictures are letterboxed to ``size`` × ``size`` (grey borders, the whole picture visible), RGB in [0, 1]: what
    ultralytics' models take. Boxes are in pixels of the letterboxed picture; a picture's label is the class of its
    largest box, and ``box_labels`` has the class of each. Of polygons (oriented boxes, instances) these are the boxes around them;
    the polygons themselves are the ``masks``.

    Args:
        data: The data set's YAML, its folder (with a YAML in it, or with ``images/`` and ``labels/``), or the
            dictionary that an ultralytics trainer has in ``trainer.data``.
        n: How many.
        size: Side in pixels; a multiple of 32, the coarsest stride.
        seed: For the choice.
        split: Which part of the data set; a folder without that part is taken whole.

    Raises:
        FileNotFoundError: No such file, folder or part.
        ValueError: ``size`` is no multiple of 32, or no picture has a box.

    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from cam_callbacks.ultralytics import probe_from_yolo
    >>> for folder in ("data/images", "data/labels"):
    ...     Path(folder).mkdir(parents=True)
    >>> Image.new("RGB", (64, 48)).save("data/images/a.png")
    >>> _ = Path("data/labels/a.txt").write_text("0 0.5 0.5 0.25 0.5")  # class, centre and size, as shares
    >>> probe = probe_from_yolo({"path": "data", "val": "images", "names": ["cat"]}, n=1, size=64)
    >>> probe.boxes[0].tolist()  # xyxy in pixels
    [[24.0, 20.0, 40.0, 44.0]]
    """
    if size < 32 or size % 32:
        raise ValueError(f"size={size}: a YOLO model takes multiples of 32, such as {max(32, round(size / 32) * 32)}.")
    pictures, names = _listed(data, split)
    boxes = {i: rows for i, rows in enumerate(map(_read_boxes, pictures)) if len(rows)}
    if not boxes:
        raise ValueError(
            f"none of the {len(pictures)} pictures has a box; labels are looked for in {_label_file(pictures[0])}."
        )
    largest = {i: int(rows[np.argmax(rows[:, 3] * rows[:, 4]), 0]) for i, rows in boxes.items()}
    chosen = choose(largest, len(pictures), n, seed)
    images, in_pixels, classes, masks = [], [], [], []
    outlined = any(len(row) > 5 for index in chosen for row in _rows(pictures[index]))
    for index in chosen:
        with Image.open(pictures[index]) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
        square, box = letterbox(picture, size)
        corners, kept = _to_pixels(boxes[index], picture.size, box, size)
        if outlined:
            masks.append(_filled(_read_polygons(pictures[index]), picture.size, box, size))
        images.append(torch.from_numpy(square.transpose(2, 0, 1).copy()).float() / 255)
        in_pixels.append(corners.tolist())
        classes.append(boxes[index][kept, 0].astype(int).tolist())
    ids = [pictures[i].stem for i in chosen]
    return ProbeSet(
        torch.stack(images),
        labels=[largest[i] for i in chosen],
        masks=np.stack(masks) if masks else None,
        boxes=in_pixels,
        box_labels=classes,
        ids=ids if len(set(ids)) == len(ids) else [f"{i}_{name}" for i, name in zip(chosen, ids, strict=True)],
        class_names=names,
    )


def letterbox(picture: Image.Image, size: int) -> tuple[NDArray[np.uint8], Letterbox]:
    """The whole picture on a grey square, (size, size, 3) uint8 RGB, and how it got there."""
    scale = size / max(picture.size)
    wide, high = (max(1, round(side * scale)) for side in picture.size)
    left, top = (size - wide) // 2, (size - high) // 2
    square = Image.new("RGB", (size, size), (GREY,) * 3)
    square.paste(picture.resize((wide, high), Image.Resampling.BILINEAR), (left, top))
    return np.asarray(square), Letterbox(scale, left, top)


def _to_pixels(
    rows: NDArray[np.float64], picture: tuple[int, int], box: Letterbox, size: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Corners xyxy in the square, without boxes that are nothing there, and which of the rows they are."""
    wide, high = picture[0] * box.scale, picture[1] * box.scale
    centre, extent = rows[:, 1:3] * (wide, high) + (box.left, box.top), rows[:, 3:5] * (wide, high)
    corners = np.clip(np.concatenate([centre - extent / 2, centre + extent / 2], axis=1), 0, size)
    kept = (corners[:, 2:] - corners[:, :2] > 1e-6).all(1)
    return corners[kept], kept


def _filled(
    polygons: list[NDArray[np.float64]], picture: tuple[int, int], box: Letterbox, size: int
) -> NDArray[np.bool_]:
    """(size, size) what polygons cover of the square."""
    canvas = Image.new("1", (size, size))
    scale, shift = np.array(picture) * box.scale, (box.left, box.top)
    for polygon in polygons:
        ImageDraw.Draw(canvas).polygon([tuple(point) for point in polygon * scale + shift], fill=1)
    return np.array(canvas)


def _read_boxes(picture: Path) -> NDArray[np.float64]:
    """(n, 5) class, centre and extent as shares of the picture; (0, 5) where a picture has no boxes."""
    return np.array([row if len(row) == 5 else _around(row) for row in _rows(picture)]).reshape(-1, 5)


def _read_polygons(picture: Path) -> list[NDArray[np.float64]]:
    """The corners (n, 2) of each, as shares of the picture; those of a box where the row is one."""
    around = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
    return [row[1:3] + around * row[3:5] if len(row) == 5 else _points(row) for row in _rows(picture)]


def _rows(picture: Path) -> list[NDArray[np.float64]]:
    try:
        lines = _label_file(picture).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [np.array(line.split(), dtype=np.float64) for line in lines if line.strip()]


def _points(row: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of a polygon: class x1 y1 x2 y2 …"""
    return row[1 : 1 + (len(row) - 1) // 2 * 2].reshape(-1, 2)


def _around(row: NDArray[np.float64]) -> NDArray[np.float64]:
    """The box around a polygon."""
    points = _points(row)
    low, high = points.min(0), points.max(0)
    return np.array([row[0], *(low + high) / 2, *(high - low)])


def _label_file(picture: Path) -> Path:
    parts = list(picture.with_suffix(".txt").parts)
    for index in range(len(parts) - 2, -1, -1):  # the last "images" of the path, as ultralytics reads it
        if parts[index] == "images":
            return Path(*parts[:index], "labels", *parts[index + 1 :])
    return picture.with_suffix(".txt")


def _listed(data: str | os.PathLike[str] | Mapping[str, Any], split: str) -> tuple[list[Path], list[str] | None]:
    """The pictures of a part of a data set, and the names of its classes."""
    if isinstance(data, Mapping):
        root, described = Path(), data
    else:
        given = Path(data)
        if not given.exists():
            raise FileNotFoundError(f"no data set {str(given)!r}; pass its YAML or its folder.")
        yamls = [given] if given.is_file() else sorted([*given.glob("*.yaml"), *given.glob("*.yml")])
        if not yamls:
            return _pictures_in(_part_of(given, split)), None
        import yaml  # type: ignore[import-untyped]  # pytorch-lightning brings it

        root, described = yamls[0].parent, yaml.safe_load(yamls[0].read_text(encoding="utf-8"))
    where = described.get(split)
    if where is None:
        raise FileNotFoundError(f"the data set has no {split!r}; it has {', '.join(map(repr, described))}.")
    base = root / Path(described.get("path") or "")
    names = described.get("names")
    ordered = [str(names[i]) for i in sorted(names)] if isinstance(names, Mapping) else names
    sources: Sequence[Any] = where if isinstance(where, (list, tuple)) else [where]
    return [picture for source in sources for picture in _pictures_in(base / source)], ordered


def _part_of(folder: Path, split: str) -> Path:
    for place in (folder / "images" / split, folder / split / "images", folder / split, folder / "images"):
        if place.is_dir():
            return place
    return folder


def _pictures_in(source: Path) -> list[Path]:
    """All pictures below a folder, or those that a text file lists."""
    if source.is_file():
        lines = [line.strip() for line in source.read_text(encoding="utf-8").splitlines() if line.strip()]
        pictures = [source.parent / line for line in lines]
    elif source.is_dir():
        pictures = sorted(p for p in source.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    else:
        raise FileNotFoundError(f"no folder or list of pictures at {str(source)!r}.")
    if not pictures:
        raise FileNotFoundError(f"no picture in {str(source)!r}; looked for {', '.join(IMAGE_SUFFIXES)}.")
    return pictures
