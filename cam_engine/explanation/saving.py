"""Explanations on disk. A folder that exists is never written into."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cam_engine.pictures import IMAGE_SUFFIXES
from cam_engine.render import write_png


@dataclass(frozen=True)
class Written:
    """What was written: ``folder``; ``file``, the overlay or, of several methods, their sheet; the overlay of each of those."""

    folder: Path
    file: Path
    files: Mapping[str, Path]


def new_folder(folder: Path) -> Path:
    """The folder, or the first of ``folder-2``, ``folder-3``, … that does not exist or is empty; made."""
    for candidate in _numbered(folder):
        try:
            candidate.mkdir(parents=True)
            return candidate
        except FileExistsError:
            if candidate == folder and candidate.is_dir() and not any(candidate.iterdir()):
                return candidate
    raise AssertionError("unreachable")


def is_picture_file(path: Path) -> bool:
    """Does a path name one picture, and not a folder?"""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()


def save_picture(explained: Mapping[str, Any], path: Path) -> Path:
    """Write the overlay, of several methods their sheet, to one file of the user's choice, which is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = explained.get("sheet", explained["overlay"])
    if path.suffix.lower() == ".png":
        write_png(path, pixels)
    else:
        Image.fromarray(pixels).save(path)
    return path


def save_explanation(explained: Mapping[str, Any], folder: Path, image: str, settings: Mapping[str, Any]) -> Written:
    """Write an explanation to a folder of its own.

    ``<image>_<method>_overlay.png``, ``…_figure.png`` (with its caption), ``…_heatmap.png``, ``…_heatmap.npy`` and
    ``metadata.json``; for a detector each part's the same, numbered, in ``parts/``, and ``<image>_<method>_parts.png``, a sheet of
    them. Of several methods each has a folder, beside ``<image>_methods.png``.
    """
    folder = new_folder(folder)
    if "methods" not in explained:
        return Written(folder, _write(explained, folder, image, settings), {})
    files = {}
    for method, of_method in explained["methods"].items():
        inner = folder / _file_name(method)
        inner.mkdir()
        files[method] = _write(of_method, inner, image, settings)
    sheet = folder / f"{image}_methods.png"
    write_png(sheet, explained["sheet"])
    _write_metadata(explained, folder, settings)
    return Written(folder, sheet, files)


def _numbered(path: Path) -> Iterator[Path]:
    yield path
    number, suffix = 2, path.suffix if path.suffix in (".png", ".json") else ""
    while True:
        yield path.with_name(f"{path.name.removesuffix(suffix)}-{number}{suffix}")
        number += 1


def _write(explained: Mapping[str, Any], folder: Path, image: str, settings: Mapping[str, Any]) -> Path:
    """One method's files; the overlay's path."""
    stem = f"{image}_{_file_name(explained['method'])}"
    overlay = _write_maps(explained, folder, stem)
    for key in ("figure", "parts_sheet"):
        if key in explained:
            write_png(folder / f"{stem}_{key.removesuffix('_sheet')}.png", explained[key])
    for number, part in enumerate(explained.get("parts", []), 1):
        if part["label"] is not None:  # one part of all detections is the whole
            (folder / "parts").mkdir(exist_ok=True)
            _write_maps(part, folder / "parts", f"{number:03d}_{stem}")
    _write_metadata(explained, folder, settings)
    return overlay


def _write_maps(explained: Mapping[str, Any], folder: Path, stem: str) -> Path:
    heatmap: NDArray[np.float32] = explained["heatmap"]
    grey = (heatmap * 255).round().astype(np.uint8)
    overlay = folder / f"{stem}_overlay.png"
    write_png(overlay, explained["overlay"])
    write_png(folder / f"{stem}_heatmap.png", np.repeat(grey[:, :, None], 3, axis=2))
    np.save(folder / f"{stem}_heatmap.npy", heatmap, allow_pickle=False)
    return overlay


def _write_metadata(explained: Mapping[str, Any], folder: Path, settings: Mapping[str, Any]) -> None:
    said = ("score", "class_index", "class_name", "probability", "preprocessing", "seen", "message", "detections")
    metadata = {
        "method": explained["method"],
        "target_layer": explained["target_layer"],
        "image_size": list(explained["heatmap"].shape),
        **{key: explained[key] for key in said if key in explained},
        **settings,
    }
    if "parts" in explained:
        metadata["parts"] = [
            {"number": number} | {key: part.get(key) for key in ("label", "score", "box")}
            for number, part in enumerate(explained["parts"], 1)
        ]
    text = json.dumps(metadata, indent=1, default=str)
    (folder / "metadata.json").write_text(text, encoding="utf-8")


def _file_name(method: str) -> str:
    return "".join("_" if character in '/\\:*?"<>|' else character for character in method)
