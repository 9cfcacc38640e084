"""One image in, heatmap and overlay out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cam_engine.capture import Forward
from cam_engine.explanation.detectors import detections_in_words, detector_of, explain_detector
from cam_engine.explanation.figures import methods_sheet
from cam_engine.explanation.naming import ExplainedClass
from cam_engine.explanation.reading import Picture, paths_of, read
from cam_engine.explanation.request import Classes, ClassNames, Explanation, LayerChoice, Preprocess, Request
from cam_engine.explanation.saving import is_picture_file, save_explanation, save_picture
from cam_engine.explanation.scores import explain_scores
from cam_engine.explanation.spellings import IN_EXPLAIN, MethodName, understands
from cam_engine.grids import Reshape
from cam_engine.loading import Loaded, Size, load_model
from cam_engine.render import DEFAULT_COLORMAP
from cam_engine.render.text import SEPARATOR
from cam_engine.result import Aggregate
from cam_engine.targets.resolve import TargetSpec


@understands(IN_EXPLAIN)
def explain(
    model: Any,
    image: Any,
    method: MethodName | Sequence[MethodName] = "gradcam",
    target_layer: LayerChoice | None = None,
    target: TargetSpec | str = None,
    eigen_smooth: bool = False,
    aug_smooth: bool = False,
    alpha: float = 0.5,
    save: bool = False,
    output_path: str | os.PathLike[str] | None = None,
    preprocess: Preprocess | None = None,
    *,
    classes: Classes = None,
    per: str = "all",
    items: str | Sequence[str] = ("class",),
    matching: str | None = None,
    k: int | None = None,
    confidence: float = 0.25,
    iou: float | None = None,
    max_detections: int | None = None,
    agnostic: bool | None = None,
    half: bool = False,
    aggregate: Aggregate | None = None,
    component: int = 0,
    center: bool = True,
    class_names: ClassNames = None,
    processor: Any = None,
    weights: Any = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    size: Size | None = None,
    reshape: Reshape | None = None,
    forward: Forward | None = None,
    output: Any = None,
    colormap: str = DEFAULT_COLORMAP,
    caption: bool = True,
) -> Any:
    """Explain one image, or each of a folder.

    Arguments may also be called as in LibreYOLO, the YOLOv5 explainer, ultralytics and grad-cam:
    :mod:`cam_engine.explanation.spellings` lists the names.

    Args:
        model: A classifier or detector: an ``nn.Module``, a LightningModule, an ultralytics ``YOLO``, a libreyolo model, a
            torchvision, timm or transformers model. Left as it was.
        image: A path, encoded bytes, a PIL image, an array (H, W, 3) or (H, W) uint8, or a tensor (C, H, W) or
            (1, C, H, W) as the model gets it. A folder or a glob gives an iterator of results.
        method: Name from :func:`cam_engine.available_methods`, a class derived from :class:`cam_engine.BaseCAM`, or several,
            which are shown on one sheet. One of several that this model cannot have is left out, and ``message`` says why.
        target_layer: As ``layers`` of :class:`cam_engine.CAM`; or a friendly name from
            :func:`cam_engine.get_available_layer_names`, an index into the model's sequence of layers (``-2``), or a list.
            None is ``"auto"``, for a detector all inputs of its head.
        target: None (the predicted class), a class by index or by name (a detector: the detections of that class; a
            segmenter: that class inside its predicted mask), or a callable ``(outputs) -> Tensor (1,)``.
        eigen_smooth, aug_smooth, component, center, reshape, forward, output: As for :class:`cam_engine.CAM`.
        alpha: Share of the heatmap's colour at its peak, 0 to 1.
        save: Write overlay, figure, heatmap (PNG and ``.npy``) and ``metadata.json`` to a folder of their own.
        output_path: That folder; by default ``runs/<method>/<image name>``. One that holds something is never written
            into: a number is appended. For several images each has a folder in it. A path that ends as a picture does,
            ``"results/my.png"``, is one file instead: the overlay, of several methods their sheet; it is replaced.
        preprocess: From a PIL image to the model's input (C, H, W): pass what the model was trained with. How it resizes,
            crops and pads is measured, and undone in the result. By default what the model's family does (ultralytics at the
            size that the checkpoint was trained at, timm's ``default_cfg``, torchvision's weights, the processor beside a
            transformers model); for others RGB in [0, 1] at its own size, or the nearest usual one that the model takes.
        classes: For detectors: names or indices of the classes whose detections are explained; None or empty is all.
        per: For detectors: ``"all"`` (one map), ``"class"`` or ``"detection"``.
        items: For detectors: what of a detection is explained; several are averaged: ``"class"``, ``"confidence"``,
            ``"class_confidence"``, ``"x_center"``, ``"y_center"``, ``"width"``, ``"height"``, ``"mask"`` (of an
            instance segmenter).
        matching: For detectors: ``"exact"`` (the row that a box came from, the default) or ``"overlap"`` (the ``k`` rows that
            overlap it most; 10).
        k: Those rows; it asks for ``"overlap"``.
        confidence, iou, max_detections: Detections above this score, by this threshold of suppression, at most so many, are
            explained: as ``predict`` of the model's own library has them, unless given.
        agnostic: Let boxes suppress those of other classes, as ``agnostic_nms`` of ultralytics; YOLO families only.
        half: As in ultralytics' ``predict``: half precision, on a GPU.
        aggregate: ``"mean"`` or ``"max"`` over several layers; by default the mean, for detectors the maximum.
        class_names: Names of a classifier's classes, or a mapping from index to name. Of a detector that knows its classes, the
            names of those that are explained, as in the YOLOv5 explainer.
        processor: Image processor of a transformers model.
        weights: The member of torchvision's weights that the model was built with; by default told by its size.
        mean, std: Of the images in [0, 1], for each channel: what the input is normalised by, in place of the model's own.
        size: Side of the model's input, or (height, width): of the letterbox for YOLO, else the picture is stretched to it.
        colormap: A name from :data:`cam_engine.render.COLORMAPS`: ``"inferno"``; ``"viridis"``; with a red peak ``"red"``,
            ``"turbo"``, ``"jet"``; …
        caption: Draw figures, with class, probability, method and layer below the picture.

    Returns:
        An :class:`Explanation`, a dictionary that shows its picture in a notebook, with ``save(path)``:
        ``heatmap`` (H, W) float32 in [0, 1] and ``overlay`` (H, W, 3) uint8 RGB in the original image's size, ``figure`` (the
        overlay with its caption), ``original_image`` (PIL), ``method``, ``target_layer``, ``score``, ``preprocessing`` (how the
        input was made, in words); ``saved_path``, the overlay's file, when ``save`` is set.

        For a classifier ``class_index``, ``class_name`` and ``probability``. For a detector ``parts``: dictionaries with
        ``heatmap``, ``overlay``, ``label``, ``score``, ``box`` (xyxy in the original image's pixels; None unless
        ``per="detection"``) and ``boxes`` (of all that it explains); ``detections``: label, score and box of each; and
        ``parts_sheet``: a picture of the parts with their boxes. Of oriented boxes ``box`` is the upright one around it, and a
        detection and a part have ``corners``: the four (x, y) of each, which are drawn.

        ``seen``: where the model saw a part of the picture only, that part, xyxy in pixels; the rest is hatched. ``message``
        says what is not as one may expect: a map is blank ("no focus" in the picture) and which layer would show it; a method
        was left out; a normalisation was assumed; nothing was detected: then there are no parts, and the overlay is the plain
        picture. (Methods that explain no score, such as EigenCAM, have a map all the same, unless a class or parts
        were asked for.)

        Of several methods ``methods`` has each one's result and ``sheet`` shows them side by side; the other keys are the first's.

    Raises:
        TypeError, ValueError: An image or an argument of another kind or shape, or one that means nothing for this model.
        KeyError: No such method, layer or class.
        FileNotFoundError: No such file.

    >>> from cam_engine import explain
    >>> result = explain(model, images[0], method="gradcam", save=True, output_path="cat.png")
    >>> result["heatmap"].shape, result["target_layer"], result["saved_path"]
    ((32, 32), '3', 'cat.png')
    """
    request = Request.of(
        method,
        target_layer,
        {"eigen_smooth": eigen_smooth, "aug_smooth": aug_smooth, "component": component, "center": center,
         "reshape": reshape, "forward": forward, "output": output},
        target=target,
        alpha=alpha,
        classes=classes,
        per=per,
        items=items,
        matching=matching,
        k=k,
        confidence=confidence,
        iou=iou,
        max_detections=max_detections,
        agnostic=agnostic,
        aggregate=aggregate,
        class_names=class_names,
        colormap=colormap,
        caption=caption,
    )  # fmt: skip
    loaded = load_model(
        model,
        size=size,
        processor=processor,
        preprocess=preprocess,
        weights=weights,
        mean=mean,
        std=std,
        half=half,
        forward=forward,
    )
    place = Path(output_path) if output_path is not None else None
    paths = paths_of(image)
    if paths is None:
        picture = read(image, loaded.prepare)
        explanation = explain_picture(loaded, picture, request)
        return _saved(explanation, picture, request, place) if save else explanation
    if save and place is not None and is_picture_file(place):
        raise ValueError(f"output_path={str(place)!r} is one file, and there are {len(paths)} pictures; pass a folder.")
    return _each(loaded, paths, request, place, save)


def compare_methods(model: Any, image: Any, methods: Sequence[MethodName], **settings: Any) -> Any:
    """:func:`explain` with several methods: one forward and one gradient call for all of them, one sheet.

    >>> from cam_engine import compare_methods
    >>> compared = compare_methods(model, images[0], ["eigencam", "gradcam"])
    >>> list(compared["methods"]), compared["methods"]["eigencam"]["heatmap"].shape
    (['eigencam', 'gradcam'], (32, 32))
    """
    return explain(model, image, list(methods), **settings)


def explain_picture(loaded: Loaded, picture: Picture, request: Request) -> Explanation:
    """Explain one image that is read already; nothing is written."""
    family = detector_of(loaded, request)

    def explained(request: Request) -> dict[str, Explanation]:
        if family is None:
            return explain_scores(loaded, picture, request)
        return explain_detector(family, loaded, picture, request)

    by_method, left_out = _of_those_that_can(explained, request)
    known: dict[str, Any] = {
        "preprocessing": loaded.input if picture.prepared else "none: the image is the model's input"
    }
    if picture.geometry.seen() is not None:
        known["seen"] = picture.geometry.seen()
    by_method = {name: Explanation(each, **known) for name, each in by_method.items()}
    notes = [_assumed(loaded)] if loaded.input_assumed and picture.prepared else []
    if len(by_method) == 1:
        (only,) = by_method.values()
        return _with_message(only, [only.get("message"), *left_out, *notes])
    first = next(iter(by_method.values()))
    whole = Explanation(first, method=", ".join(by_method), methods=by_method)
    whole["sheet"] = methods_sheet(by_method, picture, request.look, _title(first))
    whole.pop("figure", None)
    messages = dict.fromkeys(each["message"] for each in by_method.values() if "message" in each)
    return _with_message(whole, [*messages, *left_out, *notes])


def _of_those_that_can(
    explained: Callable[[Request], dict[str, Explanation]], request: Request
) -> tuple[dict[str, Explanation], list[str]]:
    """All methods together; where that fails each alone, and what is said about those that cannot.

    Raises:
        Whatever the first of them raises, where none can.
    """
    try:
        return explained(request), []
    except (ValueError, RuntimeError, TypeError, NotImplementedError):
        if len(request.methods) == 1:
            raise
    by_method: dict[str, Explanation] = {}
    errors: dict[str, Exception] = {}
    for method in request.methods:
        try:
            by_method |= explained(replace(request, methods=(method,)))
        except (ValueError, RuntimeError, TypeError, NotImplementedError) as error:
            errors[method.name] = error
    if not by_method:
        raise next(iter(errors.values()))
    return by_method, [f"{name} was left out: {error}" for name, error in errors.items()]


def _with_message(explanation: Explanation, messages: Sequence[str | None]) -> Explanation:
    said = "; ".join(message for message in messages if message)
    return Explanation(explanation, message=said) if said else explanation


def _assumed(loaded: Loaded) -> str:
    return f"the input was assumed to be {loaded.input}; pass mean= and std=, or preprocess=, if the model was trained otherwise"


def _title(first: Mapping[str, Any]) -> str:
    """Of the sheet: what is explained, and at which layer."""
    names = ("class_index", "class_name", "probability")
    of = ExplainedClass(*(first.get(name) for name in names)).words() or detections_in_words(
        first.get("detections", [])
    )
    return f"{of}{SEPARATOR}{first['target_layer']}" if of else str(first["target_layer"])


def _each(
    loaded: Loaded, paths: list[Path], request: Request, folder: Path | None, save: bool
) -> Iterator[Explanation]:
    for path in paths:
        picture = read(path, loaded.prepare)
        explanation = Explanation(explain_picture(loaded, picture, request), path=str(path))
        inner = None if folder is None else folder / picture.name
        yield _saved(explanation, picture, request, inner) if save else explanation


def _saved(explanation: Explanation, picture: Picture, request: Request, place: Path | None) -> Explanation:
    """The explanation with ``saved_path``, and so each method's; written to ``place`` or the default folder."""
    if place is not None and is_picture_file(place):
        return Explanation(explanation, saved_path=str(save_picture(explanation, place)))
    wanted = Path("runs", "_".join(request.names), picture.name) if place is None else place
    written = save_explanation(explanation, wanted, picture.name, request.metadata())
    saved = Explanation(explanation, saved_path=str(written.file))
    if "methods" in explanation:
        saved["methods"] = {
            name: Explanation(each, saved_path=str(written.files[name]))
            for name, each in explanation["methods"].items()
        }
    return saved
