"""What people hold in their hands as "the model" → the module to explain, its input, its names."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image
from torch import Tensor, nn

from cam_engine.capture import Forward
from cam_engine.geometry import Prepare, measured
from cam_engine.layers import module_names
from cam_engine.layers.friendly import friendly_names
from cam_engine.loading.inputs import accepted, channels_of, normalised, resized
from cam_engine.loading.yolo import (
    Prediction,
    Size,
    is_classifier,
    is_ultralytics_model,
    is_yolo,
    mean_depth,
    prediction_of,
    predicts_depth,
    trained_size,
    yolo_input,
)
from cam_engine.loading.zoo import Known, Means, known_of, of_processor, of_weights

_WRAPPERS = ("AutoShape", "DetectMultiBackend", "AutoBackend", "PyTorchBackend")
_PLAIN = "RGB in [0, 1], not normalised"


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model that can be explained.

    ``net`` is run and explained. ``prepare`` makes its input from a picture; ``input`` says in words how, and
    ``input_assumed`` that this is a guess. ``friendly`` maps friendly layer names to dotted ones. ``output`` picks the class
    scores out of what ``net`` returns (see ``output=`` of :class:`cam_engine.CAM`). ``classes`` names classes by index, as
    far as the model knows. ``size`` is the side of the input that the model is made for; None if any will do or it does
    not say. ``prediction`` is what the model's own ``predict`` keeps. ``target`` is what is explained where nothing is asked for
    and there is no predicted class.

    >>> from cam_engine.loading import load_model
    >>> loaded = load_model(model)
    >>> loaded.net is model, loaded.input, loaded.size
    (True, 'RGB in [0, 1], not normalised', None)
    """

    net: nn.Module
    prepare: Prepare
    friendly: dict[str, str]
    output: Any = None
    classes: Mapping[int, str] | None = None
    size: int | None = None
    input: str = _PLAIN
    input_assumed: bool = False
    prediction: Prediction = field(default_factory=Prediction)
    target: Callable[[Any], Tensor] | None = None


def load_model(
    model: Any,
    *,
    size: Size | None = None,
    processor: Any = None,
    preprocess: Callable[[Image.Image], Tensor] | None = None,
    weights: Any = None,
    mean: Means = None,
    std: Means = None,
    half: bool = False,
    forward: Forward | None = None,
) -> Loaded:
    """Take a model as its library hands it out.

    Args:
        model: An ``nn.Module``, a LightningModule, an ultralytics ``YOLO`` or its network, a YOLOv5 wrapper, a libreyolo
            model, or a model of torchvision, timm or transformers.
        size: Side of the model's input, or (height, width): of the letterbox (YOLO; by default what the checkpoint was trained
            at, else 640), else what the picture is stretched to.
        processor: Image processor of a transformers model.
        preprocess: From a PIL image to the model's input (C, H, W); overrides what the model's family does.
        weights: The member of torchvision's weights that the model was built with.
        mean, std: Of the images in [0, 1], for each channel or for all: what the input is normalised by, in place of the
            model's own.
        half: Take a copy in half precision, on a GPU; elsewhere nothing, as in ultralytics' ``predict``.
        forward: ``(model, images) -> outputs`` for a model that is not called with the images alone.

    Raises:
        TypeError: Not a model.
        ValueError: A LightningModule without a forward of its own and more than one network in it; ``preprocess`` together
            with what it would override.

    >>> from cam_engine.loading import load_model
    >>> load_model(model, size=32, mean=0.5, std=0.25).input
    'RGB in [0, 1], mean 0.5, std 0.25'
    """
    if preprocess is not None and any(given is not None for given in (processor, weights, mean, std)):
        raise ValueError("preprocess= makes the model's whole input; leave out processor=, weights=, mean= and std=.")
    if is_libreyolo(model):
        return _libreyolo(model, size, preprocess, mean, std)
    net = _network(model)
    if half and any(parameter.device.type != "cpu" for parameter in net.parameters()):
        net = copy.deepcopy(net).half()
    loaded = Loaded(
        net, resized(None), friendly_names(net), _output(net), _class_names(net), prediction=prediction_of(model)
    )
    if preprocess is not None:
        return replace(loaded, prepare=measured(preprocess), size=_side(size), input="as preprocess= makes it")
    if is_yolo(net):
        prepare, side = yolo_input(net, size or trained_size(model, net))
        output = 1 if is_classifier(net) else None
        words = f"as predict makes it, {side} px"
        target = mean_depth if predicts_depth(net) else None
        prepare = normalised(prepare, mean, std)
        return replace(loaded, prepare=prepare, output=output, size=side, input=words, target=target)
    known = _known(net, processor, weights, mean, std)
    if known is not None:
        return _as_known(loaded, known, size)
    return _unknown(loaded, size, mean, std, forward)


def example(loaded: Loaded) -> Tensor:
    """A grey picture as the model's input (1, C, H, W), of its own size or 224 (YOLO: 640).

    >>> from cam_engine.loading import example, load_model
    >>> example(load_model(model, size=64)).shape
    torch.Size([1, 3, 64, 64])
    """
    side = loaded.size or 224
    return loaded.prepare(Image.new("RGB", (side, side), (128, 128, 128)))[0]


def is_libreyolo(model: Any) -> bool:
    """A model of libreyolo, or its class."""
    return not isinstance(model, nn.Module) and all(
        hasattr(model, name) for name in ("_preprocess", "_get_available_layers", "model")
    )


def _network(model: Any) -> nn.Module:
    """The module inside what a library hands out."""
    if not isinstance(model, nn.Module) and not is_ultralytics_model(model):
        raise TypeError(
            f"model must be a torch.nn.Module, an ultralytics YOLO, a libreyolo model or a transformers model, not "
            f"{type(model).__name__}."
        )
    net: Any = model
    if is_ultralytics_model(net):  # never .predict(), which fuses and copies
        net = net.model
        if not isinstance(net, nn.Module):
            raise TypeError(f"this YOLO holds {net!r}, an exported model; load one from .pt or .yaml.")
    while type(net).__name__ in _WRAPPERS and isinstance(getattr(net, "model", None), nn.Module):
        net = net.model
    return _forwarding(net)


def _known(net: nn.Module, processor: Any, weights: Any, mean: Means, std: Means) -> Known | None:
    if processor is not None:
        return of_processor(processor, mean, std)
    return known_of(net, mean, std) if weights is None else of_weights(weights, mean, std)


def _as_known(loaded: Loaded, known: Known, size: Size | None) -> Loaded:
    """By the library's own preprocessing; of another size the picture is stretched, and normalised as there."""
    classes = loaded.classes or known.classes
    if size is None:
        side = _size_of(loaded.net)
        prepare, words = measured(known.preprocess), known.words
    else:
        side = _side(size)
        prepare = normalised(resized(_both(size)), known.mean, known.std)
        words = f"stretched to {side} px, normalised {known.words}"
    return replace(
        loaded, prepare=prepare, classes=classes, size=side, input=words, input_assumed=known.assumed
    )  # fmt: skip


def _unknown(loaded: Loaded, size: Size | None, mean: Means, std: Means, forward: Forward | None) -> Loaded:
    wanted = size or _fixed_size(loaded.net)
    homes = (base.__module__ for base in type(loaded.net).__mro__)
    detects = any(
        home.startswith("torchvision.models.detection") for home in homes
    )  # they resize and normalise themselves
    to = None if wanted is None else _both(wanted)
    prepare = resized(to, channels_of(loaded.net)) if to or detects else accepted(loaded.net, forward)
    told = mean is not None or std is not None
    return replace(
        loaded,
        prepare=normalised(prepare, mean, std),
        size=_side(size) or _size_of(loaded.net),
        input=f"RGB in [0, 1], mean {mean or 0}, std {std or 1}" if told else _PLAIN,
        input_assumed=not told and not detects,
    )


def _libreyolo(
    model: Any, size: Size | None, preprocess: Callable[[Image.Image], Tensor] | None, mean: Means, std: Means
) -> Loaded:
    def own(picture: Image.Image) -> Tensor:
        tensor: Tensor = model._preprocess(picture, input_size=_side(size))[0]
        return tensor

    net, friendly = model.model, {}
    try:
        named = module_names(net)
        friendly = {name: named[module] for name, module in model._get_available_layers().items() if module in named}
    except AttributeError:  # the table of libreyolo 1.6's YOLOX names a layer that is not there
        friendly = {}
    classes = dict(getattr(model, "names", None) or {})
    side = _side(size) or getattr(model, "input_size", None)
    words = "as libreyolo makes it" if preprocess is None else "as preprocess= makes it"
    return Loaded(net, normalised(measured(preprocess or own), mean, std), friendly, None, classes, side, words)


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


def _side(size: Size | None) -> int | None:
    """The longer side."""
    return size if size is None or isinstance(size, int) else max(size)


def _both(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[-1])
