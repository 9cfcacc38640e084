"""A folder of pictures as a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from cam_engine.pictures import IMAGE_SUFFIXES


class PictureFolder:
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


def images_in_folder(folder: Path, size: int | None) -> PictureFolder:
    """Open a folder of pictures, one sub-folder a class, or without classes."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {str(folder)!r} to read probe images from.")

    def pictures(where: Path) -> list[Path]:
        return sorted(p for p in where.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)

    classes = sorted(p.name for p in folder.iterdir() if p.is_dir() and pictures(p))
    if classes:
        pairs = [(file, label) for label, name in enumerate(classes) for file in pictures(folder / name)]
        return PictureFolder([f for f, _ in pairs], [label for _, label in pairs], classes, size)
    files = pictures(folder)
    if not files:
        raise FileNotFoundError(f"no picture in {str(folder)!r}; looked for {', '.join(IMAGE_SUFFIXES)}.")
    return PictureFolder(files, [], [], size)


def _center_crop(picture: Image.Image, size: int) -> Image.Image:
    scale = size / min(picture.size)
    wide, high = (max(size, round(side * scale)) for side in picture.size)
    picture = picture.resize((wide, high), Image.Resampling.BILINEAR)
    left, top = (wide - size) // 2, (high - size) // 2
    return picture.crop((left, top, left + size, top + size))
