"""Names that people use for layers: stages of a family, places counted from the end, beside the dotted names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from cam_engine.errors import UnknownNameError
from cam_engine.layers.choosing import LayerSpec
from cam_engine.layers.naming import module_names

# The names that LibreYOLO gave to the layers of YOLOv8 and YOLO11.
_NUMBERED = ("C2f", "C3k2")
_NECK_BLOCKS = ("21", "11", "12", "22")
_LEVEL_OF_BLOCK = {2: "_P3", 3: "_P4"}
_CONVS = ("Conv", "Focus", "GhostConv", "DWConv", "SCDown")
_PASSED_OVER = ("Upsample", "Concat")


def resolve_names(net: nn.Module, spec: LayerSpec | int | Iterable[Any] | None, friendly: dict[str, str]) -> LayerSpec:
    """What :class:`cam_engine.CAM` takes as ``layers=`` for a friendly name, a dotted name, a module, an index into the
    model's sequence of layers (``-3``, as a number or a string), or a list of those.

    Raises:
        IndexError: An index outside the sequence.
        ValueError: An index, and the model has no sequence.
    """
    if spec is None:
        return "auto"
    if isinstance(spec, nn.Module):
        return spec
    if isinstance(spec, str):
        return _by_name(net, spec, friendly)
    if isinstance(spec, int):
        return _by_index(net, spec)
    layers: list[str | nn.Module] = []
    for each in spec:
        resolved = resolve_names(net, each, friendly)
        layers += [resolved] if isinstance(resolved, (str, nn.Module)) else list(resolved)
    return layers


def friendly_names(net: nn.Module) -> dict[str, str]:
    """Friendly name → dotted name, for ultralytics-style networks (a sequence of layers that know their inputs).

    ``backbone_p1`` … ``p5`` are the convolutions that halve the grid, ``backbone_c2f2_P3`` the block at stride 8,
    ``neck_c2f21``, ``11``, ``12``, ``22`` the neck's four blocks from the first to the last, ``head8_conv11`` and
    ``head8_conv21`` the first convolutions of the head's box and class branches at stride 8. Families with blocks of
    another type carry its name: ``backbone_c3_2_P3``, ``neck_c3_4``. Empty for other networks.
    """
    sequence = layer_sequence(net)
    if sequence is None or len(sequence) < 2 or not all(hasattr(layer, "f") for layer in sequence):
        return {}
    prefix = module_names(net)[sequence]
    layers = list(sequence)
    kinds = [type(layer).__name__ for layer in layers]
    neck = next((i for i, kind in enumerate(kinds) if kind == "Upsample"), len(layers) - 1)
    lateral = neck > 1 and kinds[neck - 1] in _CONVS and _stride(layers[neck - 1]) == 1  # YOLOv5
    neck -= lateral
    names = {**_backbone(kinds[:neck]), **_neck(kinds, neck)}
    dotted = {name: f"{prefix}.{index}" if prefix else str(index) for name, index in names.items()}
    return dotted | _head(layers[-1], dotted_head=f"{prefix}.{len(layers) - 1}" if prefix else str(len(layers) - 1))


def layer_sequence(net: nn.Module) -> nn.Sequential | None:
    """The sequence that an index counts in: the model itself, or ``.model``, ``.model.model``, …"""
    inner: Any = net
    while isinstance(inner, nn.Module):
        if isinstance(inner, nn.Sequential):
            return inner
        inner = getattr(inner, "model", None)
    return None


def _backbone(kinds: list[str]) -> dict[str, int]:
    names: dict[str, int] = {}
    convs = blocks = 0
    last = len(kinds) - 1
    for index, kind in enumerate(kinds):
        if kind in _CONVS:
            convs += 1
            names[f"backbone_p{convs}"] = index
        elif kind in ("SPPF", "SPP", "C2PSA", "PSA"):
            names[f"backbone_{kind.lower()}{'_P5' if index == last else ''}"] = index
        elif kind not in _PASSED_OVER:
            blocks += 1
            block = f"c2f{blocks}" if kind in _NUMBERED else f"{kind.lower()}_{blocks}"
            names[f"backbone_{block}{_LEVEL_OF_BLOCK.get(blocks, '')}"] = index
    return names


def _neck(kinds: list[str], start: int) -> dict[str, int]:
    names: dict[str, int] = {}
    places = range(start, len(kinds) - 1)
    blocks = [i for i in places if kinds[i] not in (*_CONVS, *_PASSED_OVER)]
    numbered = len(blocks) == len(_NECK_BLOCKS) and all(kinds[i] in _NUMBERED for i in blocks)
    for count, index in enumerate(blocks):
        name = f"c2f{_NECK_BLOCKS[count]}" if numbered else f"{kinds[index].lower()}_{count + 1}"
        names[f"neck_{name}"] = index
    for count, index in enumerate(i for i in places if kinds[i] in _CONVS):
        names[f"neck_conv{count + 1}"] = index
    return dict(sorted(names.items(), key=lambda item: item[1]))


def _head(head: nn.Module, dotted_head: str) -> dict[str, str]:
    names: dict[str, str] = {}
    strides = getattr(head, "stride", None)
    if not isinstance(strides, torch.Tensor):
        return names
    for level, stride in enumerate(strides.tolist()):
        for branch, name in (("cv2", "conv11"), ("cv3", "conv21")):
            of_level = getattr(head, branch, None)
            if isinstance(of_level, nn.ModuleList) and len(of_level) > level:
                names[f"head{int(stride)}_{name}"] = f"{dotted_head}.{branch}.{level}.0"
    return names


def _by_name(net: nn.Module, name: str, friendly: dict[str, str]) -> str | nn.Module:
    if name in friendly:
        return friendly[name]
    if name.startswith("-") and name[1:].isdigit():
        return _by_index(net, int(name))
    if friendly and name.split("_")[0] in ("backbone", "neck") and not hasattr(net, name.split(".")[0]):
        raise UnknownNameError(f"no layer {name!r}; this model has {', '.join(friendly)}, and the dotted names.")
    return name


def _by_index(net: nn.Module, index: int) -> nn.Module:
    sequence = layer_sequence(net)
    if sequence is None:
        raise ValueError(
            f"target_layer={index} counts in a model's sequence of layers, and {type(net).__name__} has none (neither a "
            "Sequential itself nor as .model). Name a layer: get_available_layer_names(model) lists them."
        )
    if not -len(sequence) <= index < len(sequence):
        raise IndexError(f"target_layer={index} is outside the model's sequence of {len(sequence)} layers.")
    return sequence[index]


def _stride(layer: nn.Module) -> int:
    conv = getattr(layer, "conv", layer)
    stride = getattr(conv, "stride", 1)
    return int(stride[0]) if isinstance(stride, tuple) else 1
