"""Listing, naming and choosing layers. How ``"auto"`` chooses is told in docs/layers.md."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cam_engine import _tree
from cam_engine.capture import Captured, Forward, Target, capture, gradients
from cam_engine.errors import UnknownNameError, nearest
from cam_engine.grids import (
    Grid,
    GridError,
    GridView,
    Reshape,
    entries,
    infer_grid,
    prefix_tokens,
    select_tensor,
)
from cam_engine.guard import random_streams, untouched

LayerSpec = str | nn.Module | Sequence["str | nn.Module"]

_PASSED_OVER = ("Pool", "Dropout", "DropPath", "Identity", "Flatten", "Softmax", "Permute")
_ATTENTION = ("Attention", "Attn")
_NEAR_THE_END = 32  # candidates that are tried before all of them are


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

    A layer that returns several maps, such as a feature pyramid, is listed under its bare name, which stands for the
    first of them, and then once for each: ``"fpn"``, ``"fpn[0]"``, ``"fpn[1]"``, ``"fpn[pool]"``.

    Args:
        model: Any module; left as it was.
        images: (B, C, H, W); one image is enough.
        forward: ``(model, images) -> outputs`` for models that are not called with the images alone.
    """
    names, inner = module_names(model), _inside_attention(model)
    size, prefix = (images.shape[-2], images.shape[-1]), prefix_tokens(model)
    found: dict[str, list[LayerInfo]] = {}

    def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
        name = names[module]
        found.pop(name, None)
        infos = []
        for path, tensor in _tree.tensors(output):
            if not tensor.is_floating_point() or (module in inner and not _is_sequence(tensor)):
                continue
            with suppress(GridError):
                grid = infer_grid(tuple(tensor.shape), len(images), size, layer=name, prefix=prefix)
                if grid.height * grid.width > 1:
                    stride, shape = round(size[0] / grid.height), tuple(tensor.shape)
                    entry = name + _tree.text(path)
                    infos.append(LayerInfo(entry, type(module).__name__, shape, stride, (grid.height, grid.width)))
        if infos:
            first = infos[0]
            bare = LayerInfo(name, first.type, first.shape, first.stride, first.grid)
            found[name] = [bare, *infos] if len(infos) > 1 else [bare]

    handles = [module.register_forward_hook(hook) for module, name in names.items() if name]
    try:
        with untouched(model), torch.inference_mode(False), torch.no_grad():
            images = images.detach().clone()
            _ = model(images) if forward is None else forward(model, images)
    finally:
        for handle in handles:
            handle.remove()
    return [info for infos in found.values() for info in infos]


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
    """
    names = module_names(model)
    modules = _named(model)
    chosen: dict[str, nn.Module] = {}
    for spec in [layers] if isinstance(layers, (str, nn.Module)) else _as_list(layers):
        if isinstance(spec, nn.Module):
            spec = getattr(spec, "_orig_mod", spec)
            if not names.get(spec):
                what = "the model itself" if spec is model else "not a module of this model"
                raise ValueError(
                    f"layers= was given a {type(spec).__name__} that is {what}; pass one of its inner modules."
                )
            chosen[names[spec]] = spec
            continue
        name, entry = _split(spec, modules)
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
    """``layers=`` for ``inner``, where names may also be those that the layers have in ``model``, which holds it."""
    if not isinstance(model, nn.Module) or model is inner or isinstance(layers, nn.Module):
        return layers
    prefix = next((f"{name}." for name, module in model.named_modules() if module is inner), "")
    known = _named(inner)

    def own(layer: Any) -> Any:
        if not isinstance(layer, str) or not layer.startswith(prefix):
            return layer
        parts = _split(layer, known)[0].split(".")
        return layer if any(_matches(name.split("."), parts) for name in known) else layer.removeprefix(prefix)

    return own(layers) if isinstance(layers, str) else [own(layer) for layer in layers]


def entry_of(model: nn.Module, name: str) -> str:
    """Which entry of what a layer returns a resolved name means: ``"[pool]"`` of ``"fpn[pool]"``; "" of a bare name."""
    return _split(name, _named(model))[1] if "[" in name else ""


def targets_of(
    model: nn.Module, chosen: Mapping[str, nn.Module], images: Tensor, reshape: Reshape | None = None
) -> list[Target]:
    """What :func:`cam_engine.capture.capture` takes for the layers that :func:`resolve_layers` found.

    Of a layer that returns several tensors, the entry that its name says, and of that the first with a grid for
    ``images`` (B, C, H, W), or, where ``reshape`` makes the grid, the first at all.
    """
    batch, size, prefix = len(images), (images.shape[-2], images.shape[-1]), prefix_tokens(model)

    def target(name: str, module: nn.Module) -> Target:
        entry = entry_of(model, name)
        if reshape is not None:
            return Target(name, module, lambda output: entries(output, entry, layer=name)[0][0])
        return Target(
            name,
            module,
            lambda output: select_tensor(output, batch, size, layer=name, entry=entry, prefix=prefix),
        )

    return [target(name, module) for name, module in chosen.items()]


def views_of(
    model: nn.Module, activations: Mapping[str, Tensor], images: Tensor, reshape: Reshape | None = None
) -> dict[str, GridView]:
    """For each captured layer, what turns its output into (B, C, h, w): ``reshape``, or the grid that is recognised.

    Raises:
        GridError: No grid is.
    """
    batch, size, prefix = len(images), (images.shape[-2], images.shape[-1]), prefix_tokens(model)
    return {
        name: GridView(name, reshape or infer_grid(tuple(a.shape), batch, size, layer=name, prefix=prefix), batch)
        for name, a in activations.items()
    }


def auto_layer(
    model: nn.Module, images: Tensor, *, forward: Forward | None = None, pick: Callable[[Any], Any] | None = None
) -> str:
    """Name of the last layer to finish on whose cells the model's output still depends.

    Pooling, dropout, identity and permuting layers are passed over, and what is inside an attention layer. Of the rest,
    the last is taken that has a gradient on its cells (prefix tokens do not count) in more than one channel (a single
    one is a map of the explained score itself: a segmentation's logits), and that is not the same in all cells. Where no
    layer is like that, because the model cannot be differentiated, the last one is taken as it comes.

    The gradient is that of one image of seeded noise: the choice depends on the model and on the size of the images,
    not on what they show.

    Args:
        model: Any module; left as it was.
        images: (B, C, H, W); of the values only dtype and device are used.
        forward: As in :func:`available_layers`.
        pick: What of the model's output is explained; all of it by default.

    Raises:
        ValueError: The model has no layer with a spatial grid larger than 1×1.
    """
    noise = torch.rand(images.shape[1:], generator=torch.Generator().manual_seed(0))[None].to(images)
    modules, inner = _named(model), _inside_attention(model)
    listed = [info for info in available_layers(model, noise, forward=forward) if info.name in modules]
    usable = [info for info in listed if not any(word in info.type for word in _PASSED_OVER)]
    if not usable:
        raise ValueError(
            f'layers="auto" found no layer of {type(model).__name__} with a spatial grid larger than 1x1 for images of shape '
            f"{tuple(images.shape)}. Class activation maps need one: name a layer and pass reshape= if its output can be "
            "turned into (B, C, h, w)."
        )
    usable = [info for info in usable if modules[info.name] not in inner] or usable
    names = [info.name for info in usable]

    def explained(names: list[str]) -> list[tuple[str, bool]]:
        return _depended_on(model, {name: modules[name] for name in names}, noise, forward, pick)

    found = explained(names[-_NEAR_THE_END:])
    if not any(good for _, good in found) and len(names) > _NEAR_THE_END:
        found = explained(names)
    filled = not found
    if filled:
        with _zero_weights_filled(model):  # a head that is initialised with zeros hides what it will depend on
            found = explained(names)
    good = [name for name, several in found if several] or [name for name, _ in found]
    # A model may return the very tensor that one of its layers made; then only a look at it alone tells them apart.
    alone = (name for name in reversed(good[-_NEAR_THE_END:]) if filled or explained([name]))
    return next(alone, (good or names)[-1])


def _depended_on(
    model: nn.Module,
    modules: dict[str, nn.Module],
    image: Tensor,
    forward: Forward | None,
    pick: Callable[[Any], Any] | None,
) -> list[tuple[str, bool]]:
    """Of the layers, those on whose cells the output depends, and whether through more than one channel."""
    size, prefix = (image.shape[-2], image.shape[-1]), prefix_tokens(model)

    def target(name: str, module: nn.Module) -> Target:
        return Target(name, module, lambda output: select_tensor(output, 1, size, layer=name, prefix=prefix))

    targets = [target(name, module) for name, module in modules.items()]
    try:
        captured = capture(model, image, targets, record="from_layer", forward=forward)
        if captured.interrupted:
            captured = capture(model, image, targets, record="from_start", forward=forward)
        with torch.inference_mode(False), torch.enable_grad(), random_streams():
            outputs = captured.outputs if pick is None else pick(captured.outputs)
            grads = gradients(_any_score(outputs, size), captured)
    except (RuntimeError, NotImplementedError):
        return []
    views = {
        name: infer_grid(tuple(a.shape), 1, size, layer=name, prefix=prefix) for name, a in captured.activations.items()
    }
    with torch.no_grad():
        return _alive(captured, grads, views)


def _alive(captured: Captured, grads: dict[str, Tensor], views: dict[str, Grid]) -> list[tuple[str, bool]]:
    found = []
    for name, activation in captured.activations.items():
        cells, slopes = (views[name](tensor.detach()).flatten(2) for tensor in (activation, grads[name]))
        channels = int((slopes != 0).any(2).sum())
        differ = bool((cells.amax(2) > cells.amin(2)).any())
        if channels and differ and bool(torch.isfinite(slopes).all()):
            found.append((name, channels > 1))
    return found


def _any_score(outputs: Any, size: tuple[int, int]) -> Tensor:
    """One number (1,) that stands for whatever a user may ask to explain.

    Scores of classes, (B, K) or (B, K, H, W): the largest (mean) score. Anything else, or a constant: a fixed random
    projection of all there is.
    """
    answers = [t for _, t in _tree.tensors(outputs) if t.requires_grad]
    if not answers:
        return torch.zeros(1)
    first = answers[0]
    if first.ndim == 4:
        with suppress(GridError):
            first = infer_grid(tuple(first.shape), 1, size)(first).flatten(2).sum(2)
    if first.ndim == 2:
        return first.amax(1)
    generator = torch.Generator().manual_seed(0)
    projected = [(t * torch.randn(t.shape, generator=generator).to(t)).sum() for t in answers]
    return torch.stack([p.float() for p in projected]).sum()[None]


@contextmanager
def _zero_weights_filled(model: nn.Module) -> Iterator[None]:
    """Random matrices in the place of those that are all zero; the parameters themselves are never written to."""
    aside: list[tuple[nn.Module, str, nn.Parameter]] = []
    generator = torch.Generator().manual_seed(0)
    try:
        for module in model.modules():
            for name, weight in list(module._parameters.items()):
                if weight is not None and weight.ndim > 1 and weight.is_floating_point() and not weight.any():
                    filled = 0.1 * torch.randn(weight.shape, generator=generator).to(weight)
                    aside.append((module, name, weight))
                    module._parameters[name] = nn.Parameter(filled, requires_grad=weight.requires_grad)
        yield
    finally:
        for module, name, weight in aside:
            module._parameters[name] = weight


def _inside_attention(model: nn.Module) -> set[nn.Module]:
    """Modules inside an attention layer: heads, projections, windows. One with convolutions in it is a network by that name."""
    inside: set[nn.Module] = set()
    for module in model.modules():
        if any(word in type(module).__name__ for word in _ATTENTION):
            parts = list(module.modules())
            if not any(isinstance(part, nn.Conv2d) for part in parts):
                inside.update(parts[1:])
    return inside


def module_names(model: nn.Module) -> dict[nn.Module, str]:
    """Dotted name of every module; "" for the model itself; ``torch.compile``'s ``_orig_mod`` is left out of names."""
    # A compiled wrapper and what it wraps share a shown name; hooks belong on what it wraps, which comes later.
    innermost = {_shown(name): module for name, module in model.named_modules()}
    return {module: name for name, module in innermost.items()}


def _is_sequence(tensor: Tensor) -> bool:
    """Inside an attention layer, heads, windows and tables of positions have the shapes of maps; only (B, N, C) is spatial."""
    return tensor.ndim == 3 and tensor.shape[1] != tensor.shape[2]


def _named(model: nn.Module) -> dict[str, nn.Module]:
    """Every module by each of its names, without the model itself."""
    return {_shown(name): module for name, module in model.named_modules(remove_duplicate=False) if _shown(name)}


def _split(name: str, modules: dict[str, nn.Module]) -> tuple[str, str]:
    """``"fpn[pool]"`` → ``("fpn", "[pool]")``, where there is a layer of that name; else it has no entry."""
    base, bracket, entry = name.partition("[")
    return (base, bracket + entry) if bracket and name not in modules and base in modules else (name, "")


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
