"""What is different for a detector: which detections are explained, and a part for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cam_engine.detect import Explained, Family, explain_detections, family_of
from cam_engine.detect.explain import Part
from cam_engine.explanation.blank import blank_note
from cam_engine.explanation.figures import overlay_of, parts_sheet, plain_overlay, with_figure
from cam_engine.explanation.reading import Picture
from cam_engine.explanation.request import Classes, Explanation, Request
from cam_engine.layers.friendly import friendly_names, resolve_names
from cam_engine.loading import Loaded
from cam_engine.render.text import SEPARATOR

_MOST_DETECTIONS = 300


def detector_of(loaded: Loaded, request: Request) -> Family | None:
    """The detector family of the model; None for other models, and where the request says itself what is explained."""
    if callable(request.target) or request.cam.get("forward") is not None:
        return None
    try:
        family = family_of(loaded.net, loaded.classes)
    except TypeError:
        return None
    if request.class_names is not None and (isinstance(request.class_names, Mapping) or not family.names):
        given = request.class_names
        pairs = given.items() if isinstance(given, Mapping) else enumerate(given)
        family.names = {int(index): str(name) for index, name in pairs}
    if request.boxes.agnostic and family.agnostic is None:
        raise ValueError(f"agnostic=True means nothing for {family.title}: it chooses its boxes inside of itself.")
    if family.agnostic is not None:
        chosen = request.boxes.agnostic
        family.agnostic = bool(loaded.prediction.agnostic if chosen is None else chosen)
    return family


def explain_detector(family: Family, loaded: Loaded, picture: Picture, request: Request) -> dict[str, Explanation]:
    """For each method, what :func:`cam_engine.explain` returns for a detector."""
    friendly = friendly_names(family.model) or loaded.friendly
    layers = None if request.layer is None else resolve_names(family.model, request.layer, friendly)
    explained = _explained(family, loaded, picture, request, layers, request.methods)
    return {name: _of_method(name, explained, family, friendly, loaded, picture, request) for name in explained.methods}


def wanted_classes(family: Family, loaded: Loaded, request: Request) -> Classes:
    """The classes whose detections are explained: ``classes=``, or a ``target=`` that is a class, or names in ``class_names=``
    of a detector that knows its classes (as in the YOLOv5 explainer), or those that the model's own ``predict`` keeps.

    Raises:
        ValueError: Two of them.
    """
    filtered = None if isinstance(request.class_names, Mapping) else request.class_names
    if filtered is not None and list(family.names.values()) == list(filtered):
        filtered = None  # its own names, or those that it was given
    target: Any = request.target
    given = {"classes=": request.boxes.classes, "target=": target, "class_names=": list(filtered or ()) or None}
    said = {name: value for name, value in given.items() if value is not None}
    if len(said) > 1:
        raise ValueError(f"{' and '.join(said)} all say which classes are explained; pass one of them.")
    return next(iter(said.values()), loaded.prediction.classes)


def _explained(
    family: Family, loaded: Loaded, picture: Picture, request: Request, layers: Any, methods: Sequence[Any]
) -> Explained:
    boxes, own = request.boxes, loaded.prediction
    # How it is called and what its outputs are is the family's to say; how a layer is read is, unless the user does.
    settings = {name: value for name, value in request.cam.items() if name not in ("forward", "output", "reshape")}
    if request.cam.get("reshape") is not None:
        settings["reshape"] = request.cam["reshape"]
    return explain_detections(
        loaded.net,
        picture.tensor,
        methods,
        per=boxes.per,  # type: ignore[arg-type]
        classes=wanted_classes(family, loaded, request),
        items=boxes.items,
        matching=boxes.matching or "exact",  # type: ignore[arg-type]
        k=10 if boxes.k is None else boxes.k,
        layers=layers,
        confidence=boxes.confidence,
        iou=own.iou if boxes.iou is None else boxes.iou,
        max_detections=boxes.max_detections or own.max_detections or _MOST_DETECTIONS,
        aggregate=request.aggregate or "max",
        family=family,
        **settings,
    )[0]


def _of_method(
    method: str,
    explained: Explained,
    family: Family,
    friendly: dict[str, str],
    loaded: Loaded,
    picture: Picture,
    request: Request,
) -> Explanation:
    kept, look = explained.detections, request.look
    boxes = [picture.geometry.box(box) for box in kept.boxes.tolist()]
    rows = zip(kept.labels.tolist(), kept.scores.tolist(), boxes, strict=True)
    detections: list[dict[str, Any]] = [
        {"label": family.name_of(label), "score": score, "box": box} for label, score, box in rows
    ]
    parts = [_part(part, method, boxes, family, picture, request) for part in explained.parts]
    if kept.corners is not None:
        corners = [picture.geometry.points(each) for each in kept.corners.tolist()]
        detections = [each | {"corners": of} for each, of in zip(detections, corners, strict=True)]
        members = [part.members for part in explained.parts]
        parts = [each | {"corners": [corners[i] for i in of]} for each, of in zip(parts, members, strict=True)]
    whole, message = explained.heatmap(method), explained.note
    everything = request.boxes.per == "all" and family.indices(wanted_classes(family, loaded, request)) is None
    if everything and method in explained.features:
        whole = explained.features[method]
        message += f"; {method} shows what the network's features respond to, whatever is detected"
    heatmap, valid = picture.geometry.heatmap(whole.float().cpu().numpy()).clip(0, 1), bool(whole.any())
    layers = request.title_of(explained.layers, friendly)
    result = Explanation(
        heatmap=heatmap,
        overlay=overlay_of(picture, heatmap, valid, look) if valid or parts else plain_overlay(picture),
        original_image=picture.original,
        method=method,
        target_layer=layers,
        score=max(kept.scores.tolist(), default=None),
        parts=parts,
        detections=detections,
    )
    if parts and not valid:
        message = _why_blank(method, explained, family, friendly, loaded, picture, request)
    if message:
        result["message"] = message
    if parts:
        result["parts_sheet"] = parts_sheet(picture, parts, look)
    with_figure(result, picture, look, [detections_in_words(detections) or message, f"{method}{SEPARATOR}{layers}"])
    return result


def detections_in_words(detections: Sequence[Mapping[str, Any]]) -> str:
    """``"3 detections: 2 dog, cat · best 0.91"``; "" without any."""
    if not detections:
        return ""
    counts = Counter(str(each["label"]) for each in detections)
    labels = ", ".join(f"{count} {label}" if count > 1 else label for label, count in counts.most_common())
    best = max(each["score"] for each in detections)
    return f"{len(detections)} detection{'s' if len(detections) > 1 else ''}: {labels}{SEPARATOR}best {best:.2f}"


def _why_blank(
    name: str,
    explained: Explained,
    family: Family,
    friendly: dict[str, str],
    loaded: Loaded,
    picture: Picture,
    request: Request,
) -> str:
    """A detection is read off one size of grid: of the head's inputs one shows it."""
    method = next(method for method in request.methods if method.name == name)

    def shows(layers: list[str]) -> Mapping[str, bool]:
        each = {layer: _explained(family, loaded, picture, request, layer, [method]) for layer in layers}
        return {layer: any(part.valid[name] for part in found.parts) for layer, found in each.items()}

    return blank_note(name, explained.layers, family.layers(), shows, friendly)


def _part(
    part: Part,
    method: str,
    boxes: Sequence[tuple[float, float, float, float]],
    family: Family,
    picture: Picture,
    request: Request,
) -> dict[str, Any]:
    """A part as :func:`cam_engine.explain` returns it; ``boxes`` are all detections' on the original picture."""
    heatmap = picture.geometry.heatmap(part.heatmaps[method].float().cpu().numpy()).clip(0, 1)
    return {
        "heatmap": heatmap,
        "overlay": overlay_of(picture, heatmap, part.valid[method], request.look),
        "label": None if part.label is None else family.name_of(part.label),
        "score": part.score,
        "box": boxes[part.members[0]] if part.box is not None else None,
        "boxes": [boxes[member] for member in part.members],
    }
