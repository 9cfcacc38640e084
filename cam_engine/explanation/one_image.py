"""One image in, heatmap and overlay out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cam_engine.cam import CAM
from cam_engine.capture import Forward
from cam_engine.explanation.detectors import MOST_BOXES, detector_of, explain_detector
from cam_engine.explanation.reading import Picture, paths_of, read
from cam_engine.explanation.request import Explanation, LayerChoice, Preprocess, Request
from cam_engine.explanation.saving import save_explanation
from cam_engine.grids import Reshape
from cam_engine.layers.friendly import resolve_names
from cam_engine.loading import Loaded, load_model
from cam_engine.render import Tile, contact_sheet, overlay
from cam_engine.targets.resolve import TargetSpec


def explain(
    model: Any,
    image: Any,
    method: str | Sequence[str] = "gradcam",
    target_layer: LayerChoice | None = None,
    target: TargetSpec = None,
    eigen_smooth: bool = False,
    aug_smooth: bool = False,
    alpha: float = 0.5,
    save: bool = False,
    output_path: str | os.PathLike[str] | None = None,
    preprocess: Preprocess | None = None,
    *,
    classes: str | int | Iterable[str | int] | None = None,
    per: str = "all",
    items: str | Sequence[str] = ("class",),
    matching: str = "exact",
    confidence: float = 0.25,
    component: int = 0,
    center: bool = True,
    processor: Any = None,
    size: int | None = None,
    reshape: Reshape | None = None,
    forward: Forward | None = None,
    output: Any = None,
) -> Any:
    """Explain one image, or each of a folder.

    Args:
        model: A classifier or detector: an ``nn.Module``, a LightningModule, an ultralytics ``YOLO``, a libreyolo model,
            a transformers model. Left as it was.
        image: A path, encoded bytes, a PIL image, an array (H, W, 3) or (H, W) uint8, or a tensor (C, H, W) or
            (1, C, H, W) as the model gets it. A folder or a glob gives an iterator of results.
        method: Name from :func:`cam_engine.available_methods`, or several, which are shown on one sheet.
        target_layer: As ``layers`` of :class:`cam_engine.CAM`; or a friendly name from
            :func:`cam_engine.get_available_layer_names`, an index into the model's sequence of layers (``-2``), or a list.
            None is ``"auto"``, for a detector all inputs of its head.
        target: None (the predicted class), a class index (a detector: the detections of that class; a segmenter: that class
            inside its predicted mask), or a callable ``(outputs) -> Tensor (1,)``.
        eigen_smooth, aug_smooth, component, center, reshape, forward, output: As for :class:`cam_engine.CAM`.
        alpha: Share of the heatmap's colour in the overlay, 0 to 1.
        save: Write overlay, heatmap (PNG and ``.npy``) and ``metadata.json`` to a folder of their own.
        output_path: That folder; by default ``runs/<method>/<image name>``. One that holds something is never written
            into: a number is appended. For several images each has a folder in it.
        preprocess: From a PIL image to the model's input (C, H, W): pass what the model was trained with. How it resizes,
            crops and pads is measured, and undone in the result. By default what the model's family does; for others RGB
            in [0, 1] at its own size.
        classes: For detectors: names or indices of the classes whose detections are explained; None or empty is all.
        per: ``"all"`` (one map), ``"class"`` or ``"detection"``.
        items: What of a detection is explained; several are averaged: ``"class"``, ``"confidence"``,
            ``"class_confidence"``, ``"x_center"``, ``"y_center"``, ``"width"``, ``"height"``, ``"mask"`` (of an
            instance segmenter).
        matching: ``"exact"`` (the row that a box came from) or ``"overlap"`` (the rows that overlap it most).
        confidence: Detections above it are explained.
        processor: Image processor of a transformers model.
        size: Side of the model's input; for YOLO the longer side of the letterbox (640).

    Returns:
        ``heatmap`` (H, W) float32 in [0, 1] and ``overlay`` (H, W, 3) uint8 RGB in the original image's size,
        ``original_image`` (PIL), ``method``, ``target_layer``, ``score``; ``saved_path`` when ``save`` is set. For a
        detector also ``parts``: dictionaries with ``heatmap``, ``overlay``, ``label``, ``score``, ``box`` (xyxy in the
        original image's pixels; None unless ``per="detection"``) and ``boxes`` (of all that it explains);
        ``detections``: label, score and box of each; ``parts_sheet``: a picture of the parts with their boxes; and
        ``message`` where nothing was detected: then there are no parts, and the overlay is the plain picture. (Methods
        that explain no score, such as EigenCAM, have a map all the same, unless a class or parts were asked for.) Of
        several methods ``methods`` has each one's result and ``sheet`` shows them side by side; the other keys are the
        first's.

    Raises:
        TypeError, ValueError: An image or an argument of another kind or shape.
        KeyError: No such method, layer or class.
        FileNotFoundError: No such file.
    """
    request = Request.of(
        method,
        target_layer,
        items,
        target=target,
        alpha=alpha,
        classes=classes,
        per=per,
        matching=matching,
        confidence=confidence,
        cam={"eigen_smooth": eigen_smooth, "aug_smooth": aug_smooth, "component": component, "center": center,
             "reshape": reshape, "forward": forward, "output": output},
    )  # fmt: skip
    loaded = load_model(model, size=size, processor=processor, preprocess=preprocess)
    folder = None if output_path is None else Path(output_path)
    paths = paths_of(image)
    if paths is None:
        picture = read(image, loaded.prepare)
        explanation = explain_picture(loaded, picture, request)
        return _saved(explanation, picture, request, folder) if save else explanation
    return _each(loaded, paths, request, folder, save)


def compare_methods(model: Any, image: Any, methods: Sequence[str], **settings: Any) -> Any:
    """:func:`explain` with several methods: one forward and one gradient call for all of them, one sheet.

    >>> from cam_engine import compare_methods
    >>> compared = compare_methods(model, "cat.jpg", ["eigencam", "gradcam"], save=True)   # doctest: +SKIP
    >>> compared["sheet"].shape, compared["methods"]["eigencam"]["heatmap"].shape          # doctest: +SKIP
    """
    return explain(model, image, list(methods), **settings)


def explain_picture(loaded: Loaded, picture: Picture, request: Request) -> Explanation:
    """Explain one image that is read already; nothing is written."""
    family = detector_of(loaded, request)
    if family is None:
        by_method = _explain_scores(loaded, picture, request)
    else:
        by_method = explain_detector(family, loaded, picture, request)
    first = by_method[request.methods[0]]
    if len(by_method) == 1:
        return first
    sheet = _methods_sheet(by_method, request.alpha)
    return Explanation(first, method=", ".join(request.methods), methods=by_method, sheet=sheet)


def _explain_scores(loaded: Loaded, picture: Picture, request: Request) -> dict[str, Explanation]:
    """For each method, the explanation of one score of the model: of a classifier, a segmenter, a ``target=``."""
    options = dict(request.cam)
    if options.get("output") is None:
        options["output"] = loaded.output
    cam = CAM(loaded.net, request.methods, resolve_names(loaded.net, request.layer, loaded.friendly), **options)
    result = cam(picture.tensor, request.target, outputs=True)
    pixels = np.asarray(picture.original)
    by_method = {}
    for method in result.methods:
        heatmap = picture.geometry.heatmap(result[method][0].float().cpu().numpy()).clip(0, 1)
        by_method[method] = Explanation(
            heatmap=heatmap,
            overlay=overlay(pixels, heatmap if bool(result.valid[method][0]) else None, alpha=request.alpha),
            original_image=picture.original,
            method=method,
            target_layer=request.title_of(result.layers, loaded.friendly),
            score=None if result.scores is None else float(result.scores[0]),
        )
    return by_method


def _methods_sheet(by_method: Mapping[str, Explanation], alpha: float) -> NDArray[np.uint8]:
    """The picture and each method's overlay, side by side."""
    first = next(iter(by_method.values()))
    pixels = np.asarray(first["original_image"])
    boxes = [detection["box"] for detection in first.get("detections", [])[:MOST_BOXES]]
    tiles = [Tile(pixels, None, ("image",), boxes=boxes)]
    tiles += [Tile(pixels, each["heatmap"], (method,), boxes=boxes) for method, each in by_method.items()]
    return contact_sheet(tiles, title=first["target_layer"], columns=min(len(tiles), 4), tile_size=320, alpha=alpha)


def _each(
    loaded: Loaded, paths: list[Path], request: Request, folder: Path | None, save: bool
) -> Iterator[Explanation]:
    for path in paths:
        picture = read(path, loaded.prepare)
        explanation = Explanation(explain_picture(loaded, picture, request), path=str(path))
        inner = None if folder is None else folder / picture.name
        yield _saved(explanation, picture, request, inner) if save else explanation


def _saved(explanation: Explanation, picture: Picture, request: Request, folder: Path | None) -> Explanation:
    """The explanation with ``saved_path``, and so each method's; written to ``folder`` or the default one."""
    wanted = Path("runs", "_".join(request.methods), picture.name) if folder is None else folder
    written = save_explanation(explanation, wanted, request.metadata())
    saved = Explanation(explanation, saved_path=str(written))
    if "methods" in explanation:
        saved["methods"] = {
            name: Explanation(each, saved_path=str(written / name)) for name, each in explanation["methods"].items()
        }
    return saved
