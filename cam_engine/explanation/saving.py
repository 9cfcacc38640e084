"""Explanations on disk. A folder that exists is never written into."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cam_engine.render import write_png


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


def save_explanation(explained: Mapping[str, Any], folder: Path, settings: Mapping[str, Any]) -> Path:
    """Write ``overlay.png``, ``heatmap.png``, ``heatmap.npy`` and ``metadata.json``; for a detector each part's the same,
    numbered, in ``parts/``, and ``parts.png``, a sheet of them. Of several methods each has a folder, beside ``methods.png``."""
    folder = new_folder(folder)
    _write_maps(explained, folder, "")
    _write_parts(explained, folder)
    if "sheet" in explained:
        write_png(folder / "methods.png", explained["sheet"])
    if "parts_sheet" in explained:
        write_png(folder / "parts.png", explained["parts_sheet"])
    for method, of_method in explained.get("methods", {}).items():
        inner = folder / method
        inner.mkdir()
        _write_maps(of_method, inner, "")
        _write_parts(of_method, inner)
        _write_metadata(of_method, inner, settings)
    _write_metadata(explained, folder, settings)
    return folder


def _numbered(path: Path) -> Iterator[Path]:
    yield path
    number, suffix = 2, path.suffix if path.suffix in (".png", ".json") else ""
    while True:
        yield path.with_name(f"{path.name.removesuffix(suffix)}-{number}{suffix}")
        number += 1


def _write_parts(explained: Mapping[str, Any], folder: Path) -> None:
    for number, part in enumerate(explained.get("parts", []), 1):
        if part["label"] is not None:  # one part of all detections is the whole
            (folder / "parts").mkdir(exist_ok=True)
            _write_maps(part, folder / "parts", f"{number:03d}_")


def _write_maps(explained: Mapping[str, Any], folder: Path, prefix: str) -> None:
    heatmap: NDArray[np.float32] = explained["heatmap"]
    grey = (heatmap * 255).round().astype(np.uint8)
    write_png(folder / f"{prefix}overlay.png", explained["overlay"])
    write_png(folder / f"{prefix}heatmap.png", np.repeat(grey[:, :, None], 3, axis=2))
    np.save(folder / f"{prefix}heatmap.npy", heatmap, allow_pickle=False)


def _write_metadata(explained: Mapping[str, Any], folder: Path, settings: Mapping[str, Any]) -> None:
    metadata = {
        "method": explained["method"],
        "target_layer": explained["target_layer"],
        "score": explained.get("score"),
        "image_size": list(explained["heatmap"].shape),
        **settings,
    }
    if "message" in explained:
        metadata["message"] = explained["message"]
    if "detections" in explained:
        metadata["detections"] = explained["detections"]
        metadata["parts"] = [
            {"number": number} | {key: part.get(key) for key in ("label", "score", "box")}
            for number, part in enumerate(explained["parts"], 1)
        ]
    text = json.dumps(metadata, indent=1, default=str)
    (folder / "metadata.json").write_text(text, encoding="utf-8")
