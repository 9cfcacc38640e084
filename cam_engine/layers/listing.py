"""Which layers can be explained: those with a spatial grid."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cam_engine import _tree
from cam_engine.capture import Forward, call
from cam_engine.grids import GridError, infer_grid, prefix_tokens
from cam_engine.guard import untouched
from cam_engine.layers.naming import module_names

_ATTENTION = ("Attention", "Attn")


@dataclass(frozen=True)
class LayerInfo:
    """A layer that can be explained.

    ``name`` is what ``layers=`` takes; ``type`` its class; ``shape`` what it returned; ``stride`` the image's pixels
    per cell (height); ``grid`` is (h, w).

    >>> from cam_engine import available_layers
    >>> available_layers(model, images)[-1]
    LayerInfo(name='3', type='ReLU', shape=(6, 8, 16, 16), stride=2, grid=(16, 16))
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

    >>> from cam_engine import available_layers
    >>> [(layer.name, layer.type, layer.grid) for layer in available_layers(model, images)]
    [('0', 'Conv2d', (16, 16)), ('1', 'ReLU', (16, 16)), ('2', 'Conv2d', (16, 16)), ('3', 'ReLU', (16, 16))]
    """
    names, inner = module_names(model), inside_attention(model)
    size, prefix = (images.shape[-2], images.shape[-1]), prefix_tokens(model)
    listed: dict[str, list[LayerInfo]] = {}

    def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
        name = names[module]
        listed.pop(name, None)
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
            listed[name] = [bare, *infos] if len(infos) > 1 else [bare]

    handles = [module.register_forward_hook(hook) for module, name in names.items() if name]
    try:
        with untouched(model), torch.inference_mode(False), torch.no_grad():
            images = images.detach().clone()
            call(model, images, forward)
    finally:
        for handle in handles:
            handle.remove()
    return [info for infos in listed.values() for info in infos]


def inside_attention(model: nn.Module) -> set[nn.Module]:
    """Modules inside an attention layer: heads, projections, windows. One with convolutions in it is a network by that name."""
    inside: set[nn.Module] = set()
    for module in model.modules():
        if any(word in type(module).__name__ for word in _ATTENTION):
            parts = list(module.modules())
            if not any(isinstance(part, nn.Conv2d) for part in parts):
                inside.update(parts[1:])
    return inside


def _is_sequence(tensor: Tensor) -> bool:
    """Inside an attention layer, heads, windows and tables of positions have the shapes of maps; only (B, N, C) is spatial."""
    return tensor.ndim == 3 and tensor.shape[1] != tensor.shape[2]
