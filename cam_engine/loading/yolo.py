"""ultralytics and YOLOv5 networks: their input, and what ``predict`` of the library would do with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cam_engine.geometry import Prepare, letterbox, measured
from cam_engine.loading.inputs import centre_crop, resized, unit

SIZE = 640  # what ultralytics takes where nothing says otherwise
CLASSIFIER_SIZE = 224

Size = int | Sequence[int]
"""Side of the model's input, or (height, width)."""


@dataclass(frozen=True)
class Prediction:
    """What ``predict`` of an ultralytics ``YOLO`` keeps, unless it is told otherwise in the call.

    ``iou``: threshold of suppression; ``max_detections``: most boxes kept; ``classes``: indices of those that are kept;
    ``agnostic``: boxes suppress those of other classes. None where the library's own default holds.
    """

    iou: float | None = None
    max_detections: int | None = None
    classes: tuple[int, ...] | None = None
    agnostic: bool | None = None


def is_ultralytics_model(model: Any) -> bool:
    """An ultralytics ``YOLO``, ``RTDETR``, …: what has ``predict``, and holds a network."""
    return all(hasattr(model, name) for name in ("overrides", "predictor", "task"))


def is_yolo(net: Any) -> bool:
    """An ultralytics or YOLOv5 network: a sequence of layers that know their inputs, and the strides of the head."""
    parts = getattr(net, "model", None)
    return isinstance(parts, nn.Sequential) and len(parts) > 1 and hasattr(parts[-1], "f") and hasattr(net, "stride")


def is_classifier(net: Any) -> bool:
    """Does such a network classify whole pictures?"""
    return type(net.model[-1]).__name__ == "Classify"


def predicts_depth(net: Any) -> bool:
    """Does such a network predict how far away each place is?"""
    return type(net.model[-1]).__name__ == "Depth"


def mean_depth(outputs: Any) -> Tensor:
    """Of predicted depths (B, 1, h, w): (B,)."""
    depth: Tensor = outputs[0] if isinstance(outputs, (tuple, list)) else outputs
    return depth.flatten(1).mean(1)


def prediction_of(model: Any) -> Prediction:
    """What an ultralytics model's ``predict`` keeps; the defaults for any other model."""
    settings = getattr(model, "overrides", None)
    if not is_ultralytics_model(model) or not isinstance(settings, Mapping):
        return Prediction()
    classes = settings.get("classes")
    classes = [classes] if isinstance(classes, int) else classes
    kept = None if classes is None else tuple(classes)
    return Prediction(settings.get("iou"), settings.get("max_det"), kept, settings.get("agnostic_nms"))


def trained_size(model: Any, net: Any) -> Size | None:
    """The size that a checkpoint was trained at, which ``predict`` uses; None where neither the model nor the network says."""
    for settings in (getattr(model, "overrides", None), getattr(net, "args", None)):
        known = settings.get("imgsz") if isinstance(settings, Mapping) else getattr(settings, "imgsz", None)
        if isinstance(known, (int, list, tuple)) and known:
            return known
    return None


def yolo_input(net: Any, size: Size | None) -> tuple[Prepare, int]:
    """From a picture to the network's input as ``predict`` makes it, and the longer side of that."""
    if is_classifier(net):
        return _classifier_input(net, size or CLASSIFIER_SIZE)
    stride = max(int(torch.as_tensor(net.stride).max()), 32)
    height, width = (math.ceil(side / stride) * stride for side in _both(size or SIZE))
    if type(net.model[-1]).__name__ == "RTDETRDecoder":  # trained on stretched pictures, not on letterboxes
        return resized((height, width)), max(height, width)

    def prepare(picture: Any) -> Any:
        boxed, geometry = letterbox(picture, (height, width), stride)
        return unit(boxed), geometry

    return prepare, max(height, width)


def _classifier_input(net: Any, size: Size) -> tuple[Prepare, int]:
    """The transforms that the checkpoint holds, where they are of this size."""
    height, width = _both(size)
    own = getattr(net, "transforms", None)
    first = getattr(own, "transforms", [None])[0]
    side = getattr(first, "size", None)
    if callable(own) and side is not None and _both(side) == (height, width):
        return measured(own), max(height, width)
    return (measured(centre_crop(height)) if height == width else resized((height, width))), max(height, width)


def _both(size: Size) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    return (size[0], size[0]) if len(size) == 1 else (size[0], size[1])
