"""Film strips of several runs: the same images in the same rows, the same epochs in the same columns."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from cam_callbacks.compare.agree import Part
from cam_callbacks.compare.load import Run
from cam_callbacks.compare.numbers import shown
from cam_callbacks.compare.table import axis
from cam_engine.render import Tile, film_strip

IMAGES = 16
_COLUMNS_ALONE, _COLUMNS_BESIDE = 14, 7  # what is legible across a page, and across half of one


@dataclass(frozen=True)
class Strip:
    """A run's film strip. ``picture``: encoded, ``kind`` its media type; ``alt``: what it shows, in words."""

    run: int
    picture: bytes
    kind: str
    width: int
    height: int
    alt: str


def strips(runs: Sequence[Run], part: Part, images: int = IMAGES) -> list[Strip]:
    """A film strip for each run of ``part`` that has pictures; images that moved most in any of them come first."""
    shown_runs = [index for index in part.runs if "pictures" in runs[index].probe]
    if not shown_runs:
        return []
    rows = image_order([runs[index] for index in shown_runs], part)[:images]
    unit = axis(runs)
    places = sorted({getattr(record, unit) for index in shown_runs for record in runs[index].records})
    most = _COLUMNS_ALONE if len(runs) == 1 else _COLUMNS_BESIDE
    columns = [places[round(place)] for place in np.linspace(0, len(places) - 1, min(len(places), most))]
    return [_strip(runs[index], index, part, rows, columns, unit) for index in shown_runs]


def image_order(runs: Sequence[Run], part: Part) -> list[int]:
    """Indices of the probe images, largest drift from the reference at the last look first; those without one last."""
    count = min(len(run.probe["pictures"]) for run in runs)
    worst = np.full(count, -np.inf)
    for run in runs:
        drift = run.per_image("drift_ref", part.method, part.layer)
        if drift is not None and len(drift) >= count:
            worst = np.fmax(worst, drift[:count])
    return [int(index) for index in np.argsort(-worst, kind="stable")]


def _strip(run: Run, index: int, part: Part, rows: Sequence[int], columns: Sequence[int], unit: str) -> Strip:
    by_place = {getattr(record, unit): record for record in run.records}
    maps = [by_place[place].maps.get((part.method, part.layer)) if place in by_place else None for place in columns]
    count = len(run.probe["pictures"])
    note = f"{len(rows)} of {count} images" if len(rows) < count else f"all {count} images"
    pixels = film_strip(
        [[_tile(run, image, of_look) for of_look in maps] for image in rows],
        row_labels=[_label(run, image) for image in rows],
        column_labels=[f"{unit} {place}" for place in columns],
        note=f"{note}, largest drift first",
        tile_size=80,
    )
    picture, kind = _encode(pixels)
    missing = [str(place) for place, of_look in zip(columns, maps, strict=True) if of_look is None]
    words = [
        f"Film strip of {run.name}, {part.method} on {part.layer}: {note} from top to bottom, largest drift first,",
        f"{unit}s {', '.join(map(str, columns))} from left to right.",
        f"No look at {', '.join(missing)}." if missing else "",
        _numbers(run, part),
    ]
    return Strip(index, picture, kind, pixels.shape[1], pixels.shape[0], " ".join(filter(None, words)))


def _tile(run: Run, image: int, of_look: NDArray[np.float32] | None) -> Tile | None:
    if of_look is None or image >= len(of_look):
        return None
    return Tile(
        run.probe["pictures"][image],
        of_look[image],
        masks=_outline(run, "masks", image),
        nuisance=_outline(run, "nuisance", image),
    )


def _outline(run: Run, name: str, image: int) -> NDArray[np.bool_] | None:
    masks = run.probe.get(name)
    return masks[image] if masks is not None and masks[image].any() else None


def _label(run: Run, image: int) -> str:
    """Name of the image, and of its class."""
    probe = run.manifest.get("probe") or {}
    ids, names = probe.get("ids") or (), probe.get("class_names") or ()
    words = [str(ids[image]) if image < len(ids) else str(image)]
    if (labels := run.probe.get("labels")) is not None:
        label = int(labels[image])
        words.append(str(names[label]) if 0 <= label < len(names) else f"class {label}")
    return " · ".join(words)


def _numbers(run: Run, part: Part) -> str:
    """The last look's headline numbers, for those who do not see the picture."""
    said = []
    for metric, words in (("on_target_enrichment", "on-target enrichment"), ("drift_ref", "drift from the reference")):
        key = run.keys.get((metric, part.method, part.layer))
        if key:
            said.append(f"{words} {shown(run.records[-1].metrics.get(key))}")
    return f"At the last look: {', '.join(said)}." if said else ""


def _encode(pixels: NDArray[np.uint8]) -> tuple[bytes, str]:
    """WebP is a tenth of a PNG's size, and the page is written again and again during a training."""
    buffer = io.BytesIO()
    if features.check("webp") and max(pixels.shape[:2]) < 16_000:
        Image.fromarray(pixels).save(buffer, format="WEBP", quality=90, method=4)
        return buffer.getvalue(), "image/webp"
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue(), "image/png"
