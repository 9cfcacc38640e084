"""What people hold in their hands as "the model" → the module to explain, its input, its names."""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cam_engine.geometry import Geometry, Prepare, letterbox, measured
from cam_engine.layers import module_names
from cam_engine.names import friendly_names

YOLO_SIZE = 640
_WRAPPERS = ("AutoShape", "DetectMultiBackend", "AutoBackend", "PyTorchBackend")
_PREFIXES = ("_orig_mod.", "module.", "model.", "net.", "network.", "backbone.")


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
    if _is_libreyolo(model):
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
        return Loaded(net, measured(_processed(processor)), friendly, _output(net), classes, size)
    if _is_yolo(net):
        return _yolo(net, size, friendly, classes)
    wanted = size or _size_of(net)
    return Loaded(net, _resized(size or _fixed_size(net)), friendly, _output(net), classes, wanted)


def example(loaded: Loaded) -> Tensor:
    """A grey picture as the model's input (1, C, H, W), of its own size or 224 (YOLO: 640)."""
    side = loaded.size or 224
    return loaded.prepare(Image.new("RGB", (side, side), (128, 128, 128)))[0]


def normalising(
    prepare: Prepare, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Callable[[Image.Image], Tensor]:
    """``preprocess=`` for :func:`cam_engine.explain`: ``prepare``, then ``(input - mean) / std`` for each channel."""

    def preprocess(picture: Image.Image) -> Tensor:
        tensor = prepare(picture)[0]
        shift, scale = (torch.tensor(v or d, dtype=tensor.dtype) for v, d in ((mean, [0.0]), (std, [1.0])))
        return (tensor - shift.reshape(-1, 1, 1)) / scale.reshape(-1, 1, 1)

    return preprocess


def import_model(path: str) -> Any:
    """The model that ``package.module:name`` stands for: an object, or what a function or class returns.

    The current folder is searched too.

    Raises:
        ValueError: Not of that form, or no such name in the module.
        ImportError: No such module.
    """
    module_name, colon, attribute = path.partition(":")
    if not colon or not module_name or not attribute:
        raise ValueError(f"MODEL is package.module:name, such as torchvision.models:resnet18, not {path!r}.")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    found: Any = importlib.import_module(module_name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = ", ".join(name for name in dir(found) if not name.startswith("_"))[:300]
            raise ValueError(f"{module_name!r} has no {attribute!r}; it has {near}.")
        found = getattr(found, part)
    is_model = isinstance(found, nn.Module) or (_is_libreyolo(found) and not isinstance(found, type))
    return found if is_model or not callable(found) else found()


def load_checkpoint(model: Any, path: str | Path) -> dict[str, int]:
    """Load weights into a model: a state dict, or a checkpoint that holds one under ``state_dict`` (Lightning), ``model``
    or ``model_state_dict``; or ``.safetensors``. Prefixes such as ``module.`` and ``net.`` are taken off where that makes
    the keys fit.

    Returns:
        ``epoch`` and ``global_step`` of the training, as far as the file knows them.

    Raises:
        ValueError: No weights in the file, one that needs more than ``weights_only=True`` allows, or keys that do not
            fit; the message names them.
    """
    net = load_model(model).net
    loaded = _read(Path(path))
    state = _state_dict(loaded, path)
    wanted = net.state_dict().keys()
    state = _fitted(state, set(wanted))
    missing, unexpected = [k for k in wanted if k not in state], [k for k in state if k not in set(wanted)]
    if missing or unexpected:
        raise ValueError(
            f"{str(path)!r} does not fit {type(net).__name__}: {_listed('missing', missing)}; "
            f"{_listed('unexpected', unexpected)}."
        )
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{str(path)!r} does not fit {type(net).__name__}: {error}") from error
    return {key: loaded[key] for key in ("epoch", "global_step") if isinstance(loaded.get(key), int)}


def _read(path: Path) -> Any:
    """What a file of weights holds; nothing in it is run."""
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{str(path)!r} is damaged or no safetensors file: {error}") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{str(path)!r} holds more than weights, and loading it could run code: {str(error).splitlines()[0]} "
            "Save the weights alone, torch.save(model.state_dict(), path), or let MODEL's factory load the file."
        ) from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"{str(path)!r} is damaged or no checkpoint: {str(error).splitlines()[0]}") from error


def _is_libreyolo(model: Any) -> bool:
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
    found = dict(getattr(model, "names", None) or {})
    return Loaded(net, measured(preprocess or own), friendly, None, found, size or getattr(model, "input_size", None))


def _is_yolo(net: Any) -> bool:
    """An ultralytics or YOLOv5 network: a sequence of layers that know their inputs, and the strides of the head."""
    parts = getattr(net, "model", None)
    return isinstance(parts, nn.Sequential) and len(parts) > 1 and hasattr(parts[-1], "f") and hasattr(net, "stride")


def _yolo(net: Any, size: int | None, friendly: dict[str, str], classes: Mapping[int, str] | None) -> Loaded:
    head = type(net.model[-1]).__name__
    if head == "Classify":
        side = size or 224
        return Loaded(net, measured(_centre_crop(side)), friendly, 1, classes, side)
    side = size or YOLO_SIZE
    if head == "RTDETRDecoder":  # trained on squares, not on letterboxes
        return Loaded(net, _resized(side), friendly, None, classes, side)
    stride = max(int(torch.as_tensor(net.stride).max()), 32)

    def prepare(picture: Image.Image) -> tuple[Tensor, Geometry]:
        boxed, geometry = letterbox(picture, side, stride)
        return _unit(boxed), geometry

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


def _processed(processor: Any) -> Callable[[Image.Image], Tensor]:
    def preprocess(picture: Image.Image) -> Tensor:
        found: Tensor = processor(images=picture, return_tensors="pt")["pixel_values"]
        return found

    return preprocess


def _resized(side: int | None) -> Prepare:
    def prepare(picture: Image.Image) -> tuple[Tensor, Geometry]:
        size = (picture.height, picture.width)
        if side is None:
            return _unit(picture), Geometry.stretched(size, size)
        return _unit(picture.resize((side, side), Image.Resampling.BILINEAR)), Geometry.stretched(size, (side, side))

    return prepare


def _centre_crop(side: int) -> Callable[[Image.Image], Tensor]:
    def preprocess(picture: Image.Image) -> Tensor:
        factor = side / min(picture.size)
        width, height = (max(side, round(length * factor)) for length in picture.size)
        left, top = (width - side) // 2, (height - side) // 2
        resized = picture.resize((width, height), Image.Resampling.BILINEAR)
        return _unit(resized.crop((left, top, left + side, top + side)))

    return preprocess


def _unit(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255


def _state_dict(loaded: Any, path: str | Path) -> dict[str, Tensor]:
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(v, Tensor) for v in loaded.values()):
        found = f"keys {list(loaded)[:8]}" if isinstance(loaded, Mapping) else type(loaded).__name__
        raise ValueError(
            f"{str(path)!r} holds no weights: {found}; a state dict, or one under 'state_dict', is expected."
        )
    return {str(key): value for key, value in loaded.items()}


def _fitted(state: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """The keys with prefixes taken off, as long as more of them then fit. A Lightning checkpoint also holds a loss's
    weights and metrics: where all that the model wants is there under one prefix, the rest is left out."""
    best = state
    while True:
        prefixes = {key.partition(".")[0] + "." for key in best if "." in key} | set(_PREFIXES)
        variants = [{k.removeprefix(p): v for k, v in best.items() if k.startswith(p)} for p in sorted(prefixes)]
        better = max(variants, key=lambda variant: len(wanted & variant.keys()))
        if len(wanted & better.keys()) <= len(wanted & best.keys()):
            return best
        best = better


def _listed(what: str, keys: list[str]) -> str:
    return f"{len(keys)} {what}" + (f" ({', '.join(keys[:5])}{', …' if len(keys) > 5 else ''})" if keys else "")
