"""Listing, naming and choosing layers."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cam_engine import _tree
from cam_engine.capture import Forward
from cam_engine.errors import UnknownNameError, nearest
from cam_engine.grids import GridError, infer_grid, select_tensor
from cam_engine.guard import untouched

LayerSpec = str | nn.Module | Sequence["str | nn.Module"]

_PASSED_OVER = ("Pool", "Dropout", "DropPath", "Identity", "Flatten", "Softmax")


@dataclass(frozen=True)
class LayerInfo:
    """A layer that can be explained.

    ``name`` is what ``layers=`` takes; ``type`` its class; ``shape`` what it returned; ``stride`` the image's pixels
    per cell (height); ``grid`` is (h, w).
    """

    name: str
    type: str
    shape: tuple[int, ...]
    stride: int
    grid: tuple[int, int]


def available_layers(model: nn.Module, images: Tensor, *, forward: Forward | None = None) -> list[LayerInfo]:
    """List the layers with a spatial grid larger than 1×1, in the order in which they finish their (last) call.

    Args:
        model: Any module; left as it was.
        images: (B, C, H, W); one image is enough.
        forward: ``(model, images) -> outputs`` for models that are not called with the images alone.
    """
    names = module_names(model)
    size = (images.shape[-2], images.shape[-1])
    found: dict[str, LayerInfo] = {}

    def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
        name = names[module]
        found.pop(name, None)
        try:
            path = select_tensor(output, len(images), size, layer=name)
            shape = tuple(_tree.get(output, path).shape)
            grid = infer_grid(shape, len(images), size, layer=name)
        except GridError:
            return
        if grid.height * grid.width > 1:
            stride = round(size[0] / grid.height)
            found[name] = LayerInfo(name, type(module).__name__, shape, stride, (grid.height, grid.width))

    handles = [module.register_forward_hook(hook) for module, name in names.items() if name]
    try:
        with untouched(model), torch.inference_mode(False), torch.no_grad():
            images = images.detach().clone()
            _ = model(images) if forward is None else forward(model, images)
    finally:
        for handle in handles:
            handle.remove()
    return list(found.values())


def resolve_layers(
    model: nn.Module, layers: LayerSpec, images: Tensor, *, forward: Forward | None = None
) -> dict[str, nn.Module]:
    """Turn ``layers=`` into an ordered mapping from name to module.

    Args:
        model: The model.
        layers: ``"auto"``, a dotted name, a glob (``"layer[34]"``, ``"blocks.*.norm1"``; ``*`` stays within one part of
            the name, ``**`` is any number of parts), a module of
            the model, or a list of those.
        images: (B, C, H, W), for ``"auto"``.
        forward: As in :func:`available_layers`.

    Raises:
        KeyError: No such layer; the message lists the nearest names.
        TypeError: Neither name, module nor list.
        ValueError: An empty list, a module that is not in the model, or ``"auto"`` on a model without a spatial layer.
    """
    names = module_names(model)
    modules = {_shown(name): module for name, module in model.named_modules(remove_duplicate=False) if _shown(name)}
    chosen: dict[str, nn.Module] = {}
    for spec in [layers] if isinstance(layers, (str, nn.Module)) else _as_list(layers):
        if isinstance(spec, nn.Module):
            spec = getattr(spec, "_orig_mod", spec)
            if not names.get(spec):
                what = "the model itself" if spec is model else "not a module of this model"
                raise ValueError(
                    f"layers= was given a {type(spec).__name__} that is {what}; pass one of its inner modules."
                )
            matches = [names[spec]]
        elif spec == "auto":
            matches = [auto_layer(model, images, forward=forward)]
        elif spec in modules:
            matches = [spec]
        else:
            matches = [name for name in modules if _matches(name.split("."), spec.split("."))]
        if not matches:
            raise UnknownNameError(
                f"no layer {spec!r}; nearest names: {nearest(str(spec), modules)}. "
                "available_layers(model, images) lists all that can be explained."
            )
        chosen.update((name, modules[name]) for name in matches)
    if not chosen:
        raise ValueError('layers= is empty; pass at least one layer, or "auto".')
    return chosen


def auto_layer(model: nn.Module, images: Tensor, *, forward: Forward | None = None) -> str:
    """Name of the last layer with a spatial grid larger than 1×1, not itself a pooling, dropout or identity layer.

    Raises:
        ValueError: The model has none.
    """
    layers = available_layers(model, images[:1], forward=forward)
    usable = [info for info in layers if not any(word in info.type for word in _PASSED_OVER)]
    if not usable:
        raise ValueError(
            f'layers="auto" found no layer of {type(model).__name__} with a spatial grid larger than 1x1 for images of shape '
            f"{tuple(images.shape)}. Class activation maps need one: name a layer and pass reshape= if its output can be "
            "turned into (B, C, h, w)."
        )
    return usable[-1].name


def module_names(model: nn.Module) -> dict[nn.Module, str]:
    """Dotted name of every module; "" for the model itself; ``torch.compile``'s ``_orig_mod`` is left out of names."""
    # A compiled wrapper and what it wraps share a shown name; hooks belong on what it wraps, which comes later.
    innermost = {_shown(name): module for name, module in model.named_modules()}
    return {module: name for name, module in innermost.items()}


def _shown(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _matches(parts: list[str], pattern: list[str]) -> bool:
    """Does a dotted name match a glob, part by part?"""
    if not parts or not pattern:
        return parts == pattern or pattern == ["**"]
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or _matches(parts[1:], pattern)
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _as_list(layers: Any) -> list[Any]:
    if not isinstance(layers, Iterable):
        raise TypeError(
            f"layers= takes a name, a glob, a module or a list of them, not {type(layers).__name__} ({layers!r})."
        )
    items = list(layers)
    for item in items:
        if not isinstance(item, (str, nn.Module)):
            raise TypeError(f"layers= takes names and modules, but the list holds a {type(item).__name__} ({item!r}).")
    return items
