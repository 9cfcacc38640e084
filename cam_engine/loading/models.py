"""What people hold in their hands as "the model" → the module to explain, its input, its names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from cam_engine.geometry import Geometry, Prepare, letterbox, measured
from cam_engine.layers import module_names
from cam_engine.layers.friendly import friendly_names
from cam_engine.loading.inputs import centre_crop, processed, resized, unit

YOLO_SIZE = 640
_WRAPPERS = ("AutoShape", "DetectMultiBackend", "AutoBackend", "PyTorchBackend")


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model that can be explained.

    ``net`` is run and explained. ``prepare`` makes its input from a picture. ``friendly`` maps friendly layer names to
    dotted ones. ``output`` picks the class scores out of what ``net`` returns (see ``output=`` of
    :class:`cam_engine.CAM`). ``classes`` names classes by index, as far as the model knows. ``size`` is the side of the
    input that the model is made for; None if any will do or it does not say.
    """

    net: nn.Module
    prepare: Prepare
    friendly: dict[str, str]
    output: Any = None
    classes: Mapping[int, str] | None = None
    size: int | None = None


def load_model(
    model: Any,
    *,
    size: int | None = None,
    processor: Any = None,
    preprocess: Callable[[Image.Image], Tensor] | None = None,
) -> Loaded:
    """Take a model as its library hands it out.

    Args:
        model: An ``nn.Module``, a LightningModule, an ultralytics ``YOLO`` or its network, a YOLOv5 wrapper, a libreyolo
            model, or a transformers model.
        size: Side of the model's input: of the letterbox (YOLO; 640 by default), else what the picture is resized to.
        processor: Image processor of a transformers model.
        preprocess: From a PIL image to the model's input (C, H, W); overrides what the model's family does.

    Raises:
        TypeError: Not a model.
        ValueError: A LightningModule without a forward of its own and more than one network in it.
    """
    if is_libreyolo(model):
        return _libreyolo(model, size, preprocess)
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module, an ultralytics YOLO, a libreyolo model or a transformers model, not "
            f"{type(model).__name__}."
        )
    net: Any = model
    if all(hasattr(net, name) for name in ("overrides", "predictor", "task")):  # an ultralytics YOLO; never .predict()
        net = net.model
        if not isinstance(net, nn.Module):
            raise TypeError(f"this YOLO holds {net!r}, an exported model; load one from .pt or .yaml.")
    while type(net).__name__ in _WRAPPERS and isinstance(getattr(net, "model", None), nn.Module):
        net = net.model
    net = _forwarding(net)
    friendly, classes = friendly_names(net), _class_names(net)
    if preprocess is not None:
        return Loaded(net, measured(preprocess), friendly, _output(net), classes, size)
    if processor is not None:
        return Loaded(net, measured(processed(processor)), friendly, _output(net), classes, size)
    if _is_yolo(net):
        return _yolo(net, size, friendly, classes)
    wanted = size or _size_of(net)
    return Loaded(net, resized(size or _fixed_size(net)), friendly, _output(net), classes, wanted)


def example(loaded: Loaded) -> Tensor:
    """A grey picture as the model's input (1, C, H, W), of its own size or 224 (YOLO: 640)."""
    side = loaded.size or 224
    return loaded.prepare(Image.new("RGB", (side, side), (128, 128, 128)))[0]


def is_libreyolo(model: Any) -> bool:
    """A model of libreyolo, or its class."""
    return not isinstance(model, nn.Module) and all(
        hasattr(model, name) for name in ("_preprocess", "_get_available_layers", "model")
    )


def _libreyolo(model: Any, size: int | None, preprocess: Callable[[Image.Image], Tensor] | None) -> Loaded:
    def own(picture: Image.Image) -> Tensor:
        tensor: Tensor = model._preprocess(picture, input_size=size)[0]
        return tensor

    net, friendly = model.model, {}
    try:
        named = module_names(net)
        friendly = {name: named[module] for name, module in model._get_available_layers().items() if module in named}
    except AttributeError:  # the table of libreyolo 1.6's YOLOX names a layer that is not there
        friendly = {}
    classes = dict(getattr(model, "names", None) or {})
    return Loaded(net, measured(preprocess or own), friendly, None, classes, size or getattr(model, "input_size", None))


def _is_yolo(net: Any) -> bool:
    """An ultralytics or YOLOv5 network: a sequence of layers that know their inputs, and the strides of the head."""
    parts = getattr(net, "model", None)
    return isinstance(parts, nn.Sequential) and len(parts) > 1 and hasattr(parts[-1], "f") and hasattr(net, "stride")


def _yolo(net: Any, size: int | None, friendly: dict[str, str], classes: Mapping[int, str] | None) -> Loaded:
    head = type(net.model[-1]).__name__
    if head == "Classify":
        side = size or 224
        return Loaded(net, measured(centre_crop(side)), friendly, 1, classes, side)
    side = size or YOLO_SIZE
    if head == "RTDETRDecoder":  # trained on squares, not on letterboxes
        return Loaded(net, resized(side), friendly, None, classes, side)
    stride = max(int(torch.as_tensor(net.stride).max()), 32)

    def prepare(picture: Image.Image) -> tuple[Tensor, Geometry]:
        boxed, geometry = letterbox(picture, side, stride)
        return unit(boxed), geometry

    return Loaded(net, prepare, friendly, None, classes, side)


def _forwarding(net: nn.Module) -> nn.Module:
    """A LightningModule whose ``forward`` was never written is one network and what trains it: the network."""
    libraries = ("pytorch_lightning", "lightning", "torch")
    bases = [base for base in type(net).__mro__ if base.__module__.split(".")[0] in libraries]
    if not any("lightning" in base.__module__ for base in bases):
        return net
    if any("forward" in vars(base) for base in type(net).__mro__ if base not in bases) or "forward" in vars(net):
        return net
    inner = {name: child for name, child in net.named_children() if any(True for _ in child.parameters())}
    if len(inner) != 1:
        raise ValueError(
            f"{type(net).__name__} has no forward of its own; pass the network in it: "
            f"{', '.join('model.' + name for name in inner) or 'there is none with parameters'}."
        )
    return next(iter(inner.values()))


def _class_names(net: Any) -> Mapping[int, str] | None:
    names = getattr(net, "names", None) or getattr(getattr(net, "config", None), "id2label", None)
    if isinstance(names, (list, tuple)):
        return {index: str(name) for index, name in enumerate(names)}
    return {int(k): str(v) for k, v in names.items()} if isinstance(names, Mapping) else None


def _output(net: Any) -> Any:
    """Transformers models return an object with ``logits`` in it, torchvision's segmenters a dictionary with ``out``."""
    if type(net).__module__.startswith("torchvision.models.segmentation"):
        return "out"
    return "logits" if hasattr(net, "config") and hasattr(net, "main_input_name") else None


def _fixed_size(net: Any) -> int | None:
    """The side of a transformers model that takes no other: one with learned positions for its patches."""
    config = getattr(net, "config", None)
    side = getattr(config, "image_size", None)
    return side if isinstance(side, int) and hasattr(config, "patch_size") else None


def _size_of(net: Any) -> int | None:
    """The side that the model says it was made for: transformers' ``image_size``, timm's ``default_cfg``."""
    side = _fixed_size(net)
    of_timm = getattr(net, "default_cfg", None)
    if side is None and isinstance(of_timm, Mapping) and of_timm.get("input_size"):
        return int(of_timm["input_size"][-1])
    return side
