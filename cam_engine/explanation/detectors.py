"""What is different for a detector: which detections are explained, and a part for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cam_engine.detect import Explained, Family, explain_detections, family_of
from cam_engine.detect.explain import Part
from cam_engine.explanation.reading import Picture
from cam_engine.explanation.request import Explanation, Request
from cam_engine.layers.friendly import friendly_names, resolve_names
from cam_engine.loading import Loaded
from cam_engine.render import Tile, contact_sheet, overlay

MOST_PARTS = 16  # on one sheet
MOST_BOXES = 10  # on one picture, the best


def detector_of(loaded: Loaded, request: Request) -> Family | None:
    """The detector family of the model; None for other models, and where the request says itself what is explained."""
    if callable(request.target) or request.cam.get("forward") is not None:
        return None
    try:
        return family_of(loaded.net, loaded.classes)
    except TypeError:
        return None


def explain_detector(family: Family, loaded: Loaded, picture: Picture, request: Request) -> dict[str, Explanation]:
    """For each method, what :func:`cam_engine.explain` returns for a detector."""
    friendly = friendly_names(family.model) or loaded.friendly
    layers = None if request.layer is None else resolve_names(family.model, request.layer, friendly)
    # A target= that is no callable is a class, as it is for a classifier.
    classes: Any = request.target if request.classes is None else request.classes
    # How it is called and what its outputs are is the family's to say; how a layer is read is, unless the user does.
    settings = {name: value for name, value in request.cam.items() if name not in ("forward", "output", "reshape")}
    if request.cam.get("reshape") is not None:
        settings["reshape"] = request.cam["reshape"]
    explained = explain_detections(
        loaded.net,
        picture.tensor,
        request.methods,
        per=request.per,  # type: ignore[arg-type]
        classes=classes,
        items=request.items,
        matching=request.matching,  # type: ignore[arg-type]
        layers=layers,
        confidence=request.confidence,
        family=family,
        **settings,
    )[0]
    return {method: _of_method(method, explained, family, friendly, picture, request) for method in request.methods}


def parts_sheet(pixels: NDArray[np.uint8], parts: Sequence[dict[str, Any]], alpha: float) -> NDArray[np.uint8]:
    """Each part's map on the picture, with its box, label and score; the first sixteen."""
    tiles = []
    for part in parts[:MOST_PARTS]:
        count = len(part["boxes"])
        words = [part["label"] or "all detections", f"{part['score']:.2f}"]
        words += [f"{MOST_BOXES} of {count} boxes"] if count > MOST_BOXES else []
        tiles.append(Tile(pixels, part["heatmap"], (" · ".join(words),), boxes=part["boxes"][:MOST_BOXES]))
    title = f"{len(tiles)} of {len(parts)} parts" if len(parts) > len(tiles) else ""
    return contact_sheet(tiles, title=title, tile_size=320, alpha=alpha)


def _of_method(
    method: str, explained: Explained, family: Family, friendly: dict[str, str], picture: Picture, request: Request
) -> Explanation:
    pixels = np.asarray(picture.original)
    kept = explained.detections
    boxes = [picture.geometry.box(box) for box in kept.boxes.tolist()]
    rows = zip(kept.labels.tolist(), kept.scores.tolist(), boxes, strict=True)
    detections = [{"label": family.name_of(label), "score": score, "box": box} for label, score, box in rows]
    parts = [_part(part, method, boxes, family, picture, request.alpha) for part in explained.parts]
    whole, message = explained.heatmap(method), explained.note
    everything = request.target is None and request.per == "all" and family.indices(request.classes) is None
    if everything and method in explained.features:
        whole = explained.features[method]
        message += f"; {method} shows what the network's features respond to, whatever is detected"
    heatmap = picture.geometry.heatmap(whole.float().cpu().numpy()).clip(0, 1)
    result = Explanation(
        heatmap=heatmap,
        overlay=overlay(pixels, heatmap, alpha=request.alpha),
        original_image=picture.original,
        method=method,
        target_layer=request.title_of(explained.layers, friendly),
        score=max(kept.scores.tolist(), default=None),
        parts=parts,
        detections=detections,
    )
    if message:
        result["message"] = message
    if parts:
        result["parts_sheet"] = parts_sheet(pixels, parts, request.alpha)
    return result


def _part(
    part: Part,
    method: str,
    boxes: Sequence[tuple[float, float, float, float]],
    family: Family,
    picture: Picture,
    alpha: float,
) -> dict[str, Any]:
    """A part as :func:`cam_engine.explain` returns it; ``boxes`` are all detections' on the original picture."""
    heatmap = picture.geometry.heatmap(part.heatmaps[method].float().cpu().numpy()).clip(0, 1)
    return {
        "heatmap": heatmap,
        "overlay": overlay(np.asarray(picture.original), heatmap if part.valid[method] else None, alpha=alpha),
        "label": None if part.label is None else family.name_of(part.label),
        "score": part.score,
        "box": boxes[part.members[0]] if part.box is not None else None,
        "boxes": [boxes[member] for member in part.members],
    }
