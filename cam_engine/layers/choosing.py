"""From what a user writes as ``layers=`` to modules: names, entries, globs, modules, lists of them."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from cam_engine.capture import Forward
from cam_engine.errors import UnknownNameError, nearest
from cam_engine.layers.auto import auto_layer
from cam_engine.layers.naming import module_names, named_modules, split_entry, unwrapped

LayerSpec = str | nn.Module | Sequence["str | nn.Module"]


def resolve_layers(
    model: nn.Module,
    layers: LayerSpec,
    images: Tensor,
    *,
    forward: Forward | None = None,
    pick: Callable[[Any], Any] | None = None,
) -> dict[str, nn.Module]:
    """Turn ``layers=`` into an ordered mapping from name to module.

    Args:
        model: The model.
        layers: ``"auto"``, a dotted name, a name with an entry of what the layer returns (``"fpn[pool]"``), a glob
            (``"layer[34]"``, ``"blocks.*.norm1"``; ``*`` stays within one part of the name, ``**`` is any number of
            parts), a module of the model, or a list of those.
        images: (B, C, H, W), for ``"auto"``.
        forward: As in :func:`available_layers`.
        pick: For ``"auto"``: what of the model's output is explained.

    Raises:
        KeyError: No such layer; the message lists the nearest names.
        TypeError: Neither name, module nor list.
        ValueError: An empty list, a module that is not in the model, or ``"auto"`` on a model without a spatial layer.

    >>> from cam_engine.layers import resolve_layers
    >>> resolve_layers(model, ["[13]"], images), list(resolve_layers(model, "auto", images))
    ({'1': ReLU(), '3': ReLU()}, ['3'])
    """
    names = module_names(model)
    modules = named_modules(model)
    chosen: dict[str, nn.Module] = {}
    for spec in [layers] if isinstance(layers, (str, nn.Module)) else _as_list(layers):
        if isinstance(spec, nn.Module):
            spec = unwrapped(spec)
            if not names.get(spec):
                what = "the model itself" if spec is model else "not a module of this model"
                raise ValueError(
                    f"layers= was given a {type(spec).__name__} that is {what}; pass one of its inner modules."
                )
            chosen[names[spec]] = spec
            continue
        name, entry = split_entry(spec, modules)
        if spec == "auto":
            matches = [auto_layer(model, images, forward=forward, pick=pick)]
        elif name in modules:
            matches = [name]
        else:
            matches = [name for name in modules if _matches(name.split("."), spec.split("."))]
        if not matches:
            raise UnknownNameError(
                f"no layer {spec!r}; nearest names: {nearest(str(spec), modules)}. "
                "available_layers(model, images) lists all that can be explained."
            )
        chosen.update((match + entry, modules[match]) for match in matches)
    if not chosen:
        raise ValueError('layers= is empty; pass at least one layer, or "auto".')
    return chosen


def layers_within(model: Any, inner: nn.Module, layers: LayerSpec) -> LayerSpec:
    """``layers=`` for ``inner``, where names may also be those that the layers have in ``model``, which holds it.

    >>> from cam_engine.layers import layers_within
    >>> whole = nn.ModuleDict({"net": model})
    >>> layers_within(whole, model, ["net.3", "1"])
    ['3', '1']
    """
    if not isinstance(model, nn.Module) or model is inner or isinstance(layers, nn.Module):
        return layers
    prefix = next((f"{name}." for name, module in model.named_modules() if module is inner), "")
    known = named_modules(inner)

    def own(layer: Any) -> Any:
        if not isinstance(layer, str) or not layer.startswith(prefix):
            return layer
        parts = split_entry(layer, known)[0].split(".")
        return layer if any(_matches(name.split("."), parts) for name in known) else layer.removeprefix(prefix)

    return own(layers) if isinstance(layers, str) else [own(layer) for layer in layers]


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
