"""The names that ``target_layer=`` takes for a model."""

from __future__ import annotations

from typing import Any

from cam_engine.explanation.reading import read
from cam_engine.layers import available_layers, module_names
from cam_engine.loading import example, load_model


def get_available_layer_names(model: Any, image: Any = None, *, size: int | None = None) -> list[str]:
    """Names that ``target_layer=`` takes for this model: friendly ones first, where its family has them, then dotted.

    Args:
        model: As for :func:`cam_engine.explain`.
        image: An image as the model gets it; by default grey of the model's own size. The dotted names are those of
            layers with a spatial grid for it. If the model does not take that image, all its layers are listed.
        size: Side of that grey image.

    >>> import torch
    >>> get_available_layer_names(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()))
    ['0', '1']
    """
    loaded = load_model(model, size=size)
    try:
        tensor = example(loaded) if image is None else read(image, loaded.prepare).tensor
        dotted = [layer.name for layer in available_layers(loaded.net, tensor)]
    except Exception:  # the names are worth having also of a model that does not take our guess of an image
        dotted = [name for name in module_names(loaded.net).values() if name]
    return [*loaded.friendly, *(name for name in dotted if name not in loaded.friendly)]
