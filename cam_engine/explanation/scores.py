"""The explanation of one score of a model: of a classifier, a segmenter, a ``target=``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cam_engine.cam import CAM
from cam_engine.explanation.blank import blank_note
from cam_engine.explanation.figures import overlay_of, with_figure
from cam_engine.explanation.naming import ExplainedClass, check_names, explained_class, names_by_index, target_index
from cam_engine.explanation.reading import Picture
from cam_engine.explanation.request import Explanation, Request
from cam_engine.layers import available_layers
from cam_engine.layers.friendly import resolve_names
from cam_engine.loading import Loaded
from cam_engine.methods.registry import Method
from cam_engine.render.text import SEPARATOR
from cam_engine.result import CAMResult


def explain_scores(loaded: Loaded, picture: Picture, request: Request) -> dict[str, Explanation]:
    """For each method, what :func:`cam_engine.explain` returns.

    Raises:
        ValueError: Arguments that mean something for a detector only.
        UnknownNameError: (a KeyError) no class of the name that ``target=`` gives.
    """
    given = request.boxes.given()
    if given:
        raise ValueError(
            f"{', '.join(f'{name}=' for name in given)} {'is' if len(given) == 1 else 'are'} about a detector's boxes, and what is "
            f"explained here is a score of {type(loaded.net).__name__}; the class of a classifier is target=."
        )
    names = names_by_index(request.class_names, loaded.classes)
    target = target_index(loaded.target if request.target is None else request.target, names)
    cam = _cam(loaded, request, request.methods)
    try:
        result = cam(picture.tensor, target, outputs=True)
    except (TypeError, ValueError):
        if target is not None or cam.plan.score:
            raise
        result = cam(picture.tensor)  # no method explains a score, so an output that holds none is no hindrance
    scored = None if result.outputs is None else cam.scores_of(result.outputs)
    check_names(request.class_names, scored)
    of = explained_class(scored, target, loaded.net, names)
    return {name: _of_method(name, result, of, target, loaded, picture, request) for name in result.methods}


def _of_method(
    name: str, result: CAMResult, of: ExplainedClass, target: Any, loaded: Loaded, picture: Picture, request: Request
) -> Explanation:
    heatmap = picture.geometry.heatmap(result[name][0].float().cpu().numpy()).clip(0, 1)
    valid = bool(result.valid[name][0])
    layers = request.title_of(result.layers, loaded.friendly)
    explained = Explanation(
        heatmap=heatmap,
        overlay=overlay_of(picture, heatmap, valid, request.look),
        original_image=picture.original,
        method=name,
        target_layer=layers,
        score=None if result.scores is None else float(result.scores[0]),
        class_index=of.index,
        class_name=of.name,
        probability=of.probability,
    )
    if not valid:
        explained["message"] = _why_blank(name, result, target, loaded, picture, request)
    with_figure(explained, picture, request.look, [of.words() or _target_words(target), f"{name}{SEPARATOR}{layers}"])
    return explained


def _why_blank(name: str, result: CAMResult, target: Any, loaded: Loaded, picture: Picture, request: Request) -> str:
    method = next(method for method in request.methods if method.name == name)

    def shows(layers: list[str]) -> Mapping[str, bool]:
        found = _cam(loaded, request, (method,), layers)(picture.tensor, target)
        return {layer: bool(found.raw[name, layer].sum() > 0) for layer in found.layers}

    candidates = [
        info.name for info in available_layers(loaded.net, picture.tensor, forward=request.cam.get("forward"))
    ]
    return blank_note(name, result.layers, candidates, shows, loaded.friendly)


def _cam(loaded: Loaded, request: Request, methods: tuple[Method, ...], layers: Any = None) -> CAM:
    options = dict(request.cam)
    if options.get("output") is None:
        options["output"] = loaded.output
    chosen = resolve_names(loaded.net, request.layer, loaded.friendly) if layers is None else layers
    return CAM(loaded.net, methods, chosen, aggregate=request.aggregate or "mean", **options)


def _target_words(target: Any) -> str:
    """A callable's own name, for the caption."""
    if not callable(target):
        return ""
    name = str(getattr(target, "__name__", type(target).__name__))
    return "" if name == "<lambda>" else name.replace("_", " ").strip()
