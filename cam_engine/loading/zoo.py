"""How torchvision, timm and transformers feed their own models, and what they call the classes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor, nn

from cam_engine.loading.inputs import processed

Means = float | Sequence[float] | None


@dataclass(frozen=True)
class Known:
    """What a library knows of one of its models.

    ``preprocess``: from a picture to the input, as the library does it. ``words`` say how, and where that comes from.
    ``assumed``: that is a guess. ``classes``: names by index. ``mean``, ``std`` are the normalisation in it; None where it has
    none, or does not say.
    """

    preprocess: Callable[[Image.Image], Tensor]
    words: str
    assumed: bool = False
    classes: Mapping[int, str] | None = None
    mean: Means = None
    std: Means = None


def known_of(net: nn.Module, mean: Means = None, std: Means = None) -> Known | None:
    """What its library knows of a model; None for a model of no such library. ``mean`` and ``std`` replace the library's own.

    The library is asked only where the model is one of its own; none is imported that is not there already.
    """
    homes = {base.__module__.split(".")[0] for base in type(net).__mro__}
    if "timm" in homes and getattr(net, "pretrained_cfg", None):
        return _of_timm(net, mean, std)
    if "torchvision" in homes:
        return _of_torchvision(net, mean, std)
    if "transformers" in homes:
        return _of_transformers(net, mean, std)
    return None


def of_weights(weights: Any, mean: Means = None, std: Means = None, *, assumed: bool = False) -> Known:
    """The same of a member of torchvision's weights, such as ``MobileNet_V2_Weights.IMAGENET1K_V1``.

    Raises:
        TypeError: No such member.
    """
    if not callable(getattr(weights, "transforms", None)) or not isinstance(getattr(weights, "meta", None), Mapping):
        raise TypeError(
            f"weights= takes a member of torchvision's weights, such as MobileNet_V2_Weights.IMAGENET1K_V1, not {weights!r}; "
            "a file of weights is for the model: model.load_state_dict(...)."
        )
    given = {name: _three(value) for name, value in (("mean", mean), ("std", std)) if value is not None}
    transforms = weights.transforms(**given)
    names = weights.meta.get("categories")
    return Known(
        transforms,
        f"as {weights} has it",
        assumed,
        None if assumed or not names else dict(enumerate(names)),
        getattr(transforms, "mean", None),
        getattr(transforms, "std", None),
    )


def _of_timm(net: Any, mean: Means, std: Means) -> Known:
    from timm.data import ImageNetInfo, create_transform, infer_imagenet_subset, resolve_model_data_config

    config = resolve_model_data_config(net)
    sides = getattr(getattr(net, "patch_embed", None), "img_size", None)  # of a model made for another size
    if sides is not None:
        config["input_size"] = (config["input_size"][0], *sides)
    config |= {name: _three(value) for name, value in (("mean", mean), ("std", std)) if value is not None}
    names, subset = net.pretrained_cfg.get("label_names"), infer_imagenet_subset(net)
    if not names and subset:
        info = ImageNetInfo(subset)
        names = [info.index_to_description(index) for index in range(info.num_classes())]
    classes = dict(enumerate(names)) if names and len(names) == getattr(net, "num_classes", None) else None
    words = "as timm has it for this model (default_cfg)"
    return Known(create_transform(**config), words, False, classes, config["mean"], config["std"])


def _of_torchvision(net: nn.Module, mean: Means, std: Means) -> Known | None:
    """A built model does not say which weights it holds. Those of its architecture are told by their number of parameters:
    with as many, classes and preprocessing are theirs; with another head the preprocessing is a guess."""
    home = next(base.__module__ for base in type(net).__mro__ if base.__module__.startswith("torchvision."))
    if not home.startswith("torchvision.models.") or ".detection" in home or ".video" in home:
        return None  # detectors normalise by themselves
    count = sum(parameter.numel() for parameter in net.parameters())
    members = list(_weights_in(home))
    same = [weights for weights in members if weights.meta.get("num_params") == count]
    if not members:
        return None
    return of_weights((same or members)[0], mean, std, assumed=not same)


def _weights_in(module: str) -> Iterator[Any]:
    from torchvision.models import WeightsEnum

    for value in vars(sys.modules[module]).values():
        if isinstance(value, type) and issubclass(value, WeightsEnum) and value.__module__ == module:
            members: Any = value
            yield from members


def _of_transformers(net: Any, mean: Means, std: Means) -> Known | None:
    """By the image processor that lies beside the weights, on this machine."""
    from transformers import AutoImageProcessor

    origin = getattr(getattr(net, "config", None), "_name_or_path", "")
    if not origin:
        return None
    try:
        processor = AutoImageProcessor.from_pretrained(origin, local_files_only=True)
    except (OSError, ValueError, ImportError, KeyError):
        return None
    return of_processor(processor, mean, std)


def of_processor(processor: Any, mean: Means = None, std: Means = None) -> Known:
    """The same of a transformers image processor."""
    given = {
        name: list(_three(value)) for name, value in (("image_mean", mean), ("image_std", std)) if value is not None
    }
    own = (getattr(processor, "image_mean", None), getattr(processor, "image_std", None))
    words = f"as {type(processor).__name__} does it"
    return Known(processed(processor, **given), words, mean=mean or own[0], std=std or own[1])


def _three(values: float | Sequence[float]) -> tuple[float, ...]:
    """One value for each channel of RGB."""
    return (float(values),) * 3 if isinstance(values, (int, float)) else tuple(values)
