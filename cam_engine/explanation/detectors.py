"""What is different for a detector: which detections are explained, and a part for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cam_engine.names import friendly_names, resolve_names

if TYPE_CHECKING:
    from cam_engine.detect import Explained, Family
    from cam_engine.explanation.one import Explanation, Request
    from cam_engine.explanation.pictures import Picture
    from cam_engine.loading import Loaded

_SHOWN = 16  # parts on one sheet
_DRAWN = 10  # boxes on one picture, the best


def detector_of(loaded: Loaded, request: Request) -> Family | None:
    """The detector family of the model; None for other models, and where the request says itself what is explained."""
    from cam_engine.detect import family_of

    if callable(request.target) or request.cam.get("forward") is not None:
        return None
    try:
        return family_of(loaded.net, loaded.classes)
    except TypeError:
        return None


def explain_detector(family: Family, loaded: Loaded, picture: Picture, request: Request) -> dict[str, Explanation]:
    """For each method, what :func:`cam_engine.explain` returns for a detector."""
    from cam_engine.detect import explain_detections

    friendly = friendly_names(family.model) or loaded.friendly
    layers = None if request.layer is None else resolve_names(family.model, request.layer, friendly)
    # A target= that is no callable is a class, as it is for a classifier.
    classes: Any = request.target if request.classes is None else request.classes
    settings = {name: value for name, value in request.cam.items() if name not in ("forward", "output")}
    if settings.get("reshape") is None:
        settings.pop("reshape", None)
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
    from cam_engine.render import Tile, contact_sheet

    tiles = []
    for part in parts[:_SHOWN]:
        count = len(part["boxes"])
        words = [part["label"] or "all detections", f"{part['score']:.2f}"]
        words += [f"{_DRAWN} of {count} boxes"] if count > _DRAWN else []
        tiles.append(Tile(pixels, part["heatmap"], (" · ".join(words),), boxes=part["boxes"][:_DRAWN]))
    left = len(parts) - len(tiles)
    title = f"{len(tiles)} of {len(parts)} parts" if left else ""
    return contact_sheet(tiles, title=title, tile_size=320, alpha=alpha)


def _of_method(
    method: str, explained: Explained, family: Family, friendly: dict[str, str], picture: Picture, request: Request
) -> Explanation:
    from cam_engine.explanation.one import Explanation, shown_layer
    from cam_engine.render import overlay

    pixels = np.asarray(picture.original)
    found = explained.detections
    boxes = [picture.geometry.box(box) for box in found.boxes.tolist()]
    rows = zip(found.labels.tolist(), found.scores.tolist(), boxes, strict=True)
    detections = [{"label": family.name_of(label), "score": score, "box": box} for label, score, box in rows]
    parts: list[dict[str, Any]] = []
    for part in explained.parts:
        heatmap = picture.geometry.heatmap(part.heatmaps[method].float().cpu().numpy()).clip(0, 1)
        parts.append(
            {
                "heatmap": heatmap,
                "overlay": overlay(pixels, heatmap if part.valid[method] else None, alpha=request.alpha),
                "label": None if part.label is None else family.name_of(part.label),
                "score": part.score,
                "box": boxes[part.members[0]] if part.box is not None else None,
                "boxes": [boxes[member] for member in part.members],
            }
        )
    whole = explained.heatmap(method).float().cpu().numpy()
    message = explained.note
    nothing_asked = request.target is None and request.per == "all" and family.indices(request.classes) is None
    if nothing_asked and method in explained.features:
        whole = explained.features[method].float().cpu().numpy()
        message += f"; {method} shows what the network's features respond to, whatever is detected"
    heatmap = picture.geometry.heatmap(whole).clip(0, 1)
    result = Explanation(
        heatmap=heatmap,
        overlay=overlay(pixels, heatmap, alpha=request.alpha),
        original_image=picture.original,
        method=method,
        target_layer=shown_layer(request.layer, explained.layers, friendly),
        score=max(found.scores.tolist(), default=None),
        parts=parts,
        detections=detections,
    )
    if message:
        result["message"] = message
    if parts:
        result["parts_sheet"] = parts_sheet(pixels, parts, request.alpha)
    return result
