"""What ``layers="auto"`` picks. docs/layers.md tells it in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from cam_engine import _tree
from cam_engine.capture import Captured, Forward, capture, gradients
from cam_engine.grids import GridError, GridView, infer_grid
from cam_engine.guard import random_streams
from cam_engine.layers.listing import LayerInfo, available_layers, inside_attention
from cam_engine.layers.naming import named_modules
from cam_engine.layers.taps import taps_of, views_of

_PASSED_OVER = ("Pool", "Dropout", "DropPath", "Identity", "Flatten", "Softmax", "Permute")
_ENCODERS = ("encoder", "backbone")
_FEWEST_CELLS = 16  # of a grid that shows a place
_NEAR_THE_END = 32  # candidates that are tried before all of them are


def auto_layer(
    model: nn.Module, images: Tensor, *, forward: Forward | None = None, pick: Callable[[Any], Any] | None = None
) -> str:
    """Name of the last layer to finish on whose cells the model's output still depends.

    Pooling, dropout, identity and permuting layers are passed over, and what is inside an attention layer. Of the rest,
    the last is taken that has a gradient on its cells (prefix tokens do not count) in more than one channel (a single
    one is a map of the explained score itself: a segmentation's logits), and that is not the same in all cells. Where no
    layer is like that, because the model cannot be differentiated, the last one is taken as it comes, if there is one of more
    than one channel.

    The gradient is that of one image of seeded noise: the choice depends on the model and on the size of the images,
    not on what they show.

    Args:
        model: Any module; left as it was.
        images: (B, C, H, W); of the values only dtype and device are used.
        forward: As in :func:`available_layers`.
        pick: What of the model's output is explained; all of it by default.

    Raises:
        ValueError: The model has no layer with a spatial grid larger than 1×1.

    >>> from cam_engine.layers import auto_layer
    >>> auto_layer(model, images)
    '3'
    """
    noise = _noise(images)
    modules, usable = named_modules(model), _usable(model, noise, forward)
    names = [info.name for info in usable]

    def explained(names: list[str]) -> list[tuple[str, bool]]:
        return _depended_on(model, {name: modules[name] for name in names}, noise, forward, pick)

    dependent = explained(names[-_NEAR_THE_END:])
    if not any(good for _, good in dependent) and len(names) > _NEAR_THE_END:
        dependent = explained(names)
    filled = not dependent
    if filled:
        with _zero_weights_filled(model):  # a head that is initialised with zeros hides what it will depend on
            dependent = explained(names)
    good = [name for name, several in dependent if several] or [name for name, _ in dependent]
    # A model may return the very tensor that one of its layers made; then only a look at it alone tells them apart.
    alone = (name for name in reversed(good[-_NEAR_THE_END:]) if filled or explained([name]))
    features = [info.name for info in usable if 1 not in info.shape[1:]]
    return next(alone, (good or features or names)[-1])


def encoder_layer(model: nn.Module, images: Tensor, *, forward: Forward | None = None) -> str:
    """Name of the last layer before a model's grids grow again, for one that returns an image and no score.

    Where parts are called an encoder or a backbone, the layer is one of theirs. A grid below 4×4 shows no place: the last layer
    before it that is finer is taken.

    Args:
        model: Any module; left as it was.
        images: (B, C, H, W); of the values only dtype and device are used.
        forward: As in :func:`available_layers`.

    Raises:
        ValueError: The model has no layer with a spatial grid larger than 1×1.

    >>> from cam_engine.layers import encoder_layer
    >>> down, up = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU()), nn.Upsample(scale_factor=2)
    >>> encoder_layer(nn.Sequential(down, up, nn.Conv2d(4, 3, 1)), images)
    '0'
    """
    usable = _usable(model, _noise(images), forward)
    usable = [info for info in usable if _is_in_encoder(info.name)] or usable
    sizes = [info.grid[0] * info.grid[1] for info in usable]
    end = sizes.index(min(sizes))
    while end + 1 < len(sizes) and sizes[end + 1] == sizes[end]:
        end += 1
    fine = [info for info, size in zip(usable[: end + 1], sizes, strict=False) if size >= _FEWEST_CELLS]
    return (fine or usable[: end + 1])[-1].name


def _noise(images: Tensor) -> Tensor:
    """(1, C, H, W), seeded."""
    return torch.rand(images.shape[1:], generator=torch.Generator().manual_seed(0))[None].to(images)


def _usable(model: nn.Module, image: Tensor, forward: Forward | None) -> list[LayerInfo]:
    """Layers of features, in the order in which they finish.

    Raises:
        ValueError: There is none.
    """
    modules, inner = named_modules(model), inside_attention(model)
    listed = [info for info in available_layers(model, image, forward=forward) if info.name in modules]
    usable = [info for info in listed if not any(word in info.type for word in _PASSED_OVER)]
    if not usable:
        raise ValueError(
            f'layers="auto" found no layer of {type(model).__name__} with a spatial grid larger than 1x1 for images of shape '
            f"{tuple(image.shape)}. Class activation maps need one: name a layer and pass reshape= if its output can be "
            "turned into (B, C, h, w)."
        )
    return [info for info in usable if modules[info.name] not in inner] or usable


def _is_in_encoder(name: str) -> bool:
    return any(word in name.lower() and "decoder" not in name.lower() for word in _ENCODERS)


def _depended_on(
    model: nn.Module,
    modules: dict[str, nn.Module],
    image: Tensor,
    forward: Forward | None,
    pick: Callable[[Any], Any] | None,
) -> list[tuple[str, bool]]:
    """Of the layers, those on whose cells the output depends, and whether through more than one channel."""
    try:
        captured = capture(model, image, taps_of(model, modules, image), record="from_layer", forward=forward)
        with torch.inference_mode(False), torch.enable_grad(), random_streams():
            outputs = captured.outputs if pick is None else pick(captured.outputs)
            score = _any_score(outputs, (image.shape[-2], image.shape[-1]))
            grads = gradients(score, captured.activations)
    except (RuntimeError, NotImplementedError):
        return []
    views = views_of(model, captured.activations, image)
    with torch.no_grad():
        return _alive(captured, grads, views)


def _alive(captured: Captured, grads: dict[str, Tensor], views: dict[str, GridView]) -> list[tuple[str, bool]]:
    alive = []
    for name, activation in captured.activations.items():
        cells, slopes = (views[name](tensor).flatten(2) for tensor in (activation, grads[name]))
        channels = int((slopes != 0).any(2).sum())
        differ = bool((cells.amax(2) > cells.amin(2)).any())
        if channels and differ and bool(torch.isfinite(slopes).all()):
            alive.append((name, channels > 1))
    return alive


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
