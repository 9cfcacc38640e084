"""Which family a model belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from torch import nn

from cam_engine.detect.family import Family
from cam_engine.detect.queries import LibreQueries, Transformers, UltralyticsRTDETR
from cam_engine.detect.torchvision import FCOS, SSD, FasterRCNN, RetinaNet
from cam_engine.detect.yolo import LibreYolo9, Ultralytics, YoloV5Style

Known = TypeVar("Known", bound=Family)

FAMILIES: list[type[Family]] = [
    YoloV5Style,
    Ultralytics,
    UltralyticsRTDETR,
    LibreYolo9,
    Transformers,
    LibreQueries,
    FasterRCNN,
    RetinaNet,
    FCOS,
    SSD,
]
"""In the order in which they are asked whether a model is theirs."""


def register_family(family: type[Known]) -> type[Known]:
    """Let detectors of the user's own be explained like the known ones; a decorator.

    The family is asked before those that are here already: by :func:`cam_engine.explain`, by
    ``cam_callbacks.CAMCallback``, wherever a detector is recognised.

    Raises:
        TypeError: No class derived from :class:`Family`, or one with a method left abstract or without a ``title``.

    >>> from cam_engine.detect import family_of, register_family
    >>> @register_family
    ... class Named(Cells):
    ...     title = "cells, named"
    >>> family_of(detector).title
    'cells, named'
    """
    if not (isinstance(family, type) and issubclass(family, Family)):
        raise TypeError(f"register_family takes a class derived from cam_engine.detect.Family, not {family!r}.")
    missing = sorted(family.__abstractmethods__) + ([] if hasattr(family, "title") else ["title"])
    if missing:
        raise TypeError(f"the detector family {family.__name__} still needs {', '.join(missing)}.")
    FAMILIES.insert(0, family)
    return family


def family_of(model: Any, names: Mapping[int, str] | Sequence[str] | None = None) -> Family:
    """The family of a detector, bound to the network inside it.

    Args:
        model: A detector, or what holds one as its ``.model``: an ultralytics ``YOLO``, a libreyolo model, a
            LightningModule.
        names: Class names by index, where neither the model nor what holds it knows any.

    Raises:
        TypeError: No known family; the message lists them.

    >>> from cam_engine.detect import family_of
    >>> family_of(detector).title
    'cells'
    """
    known_names, inner = None, model
    for _ in range(4):
        if isinstance(inner, nn.Module):
            for family in FAMILIES:
                if family.recognises(inner):
                    bound = family(inner, known_names)
                    return bound if bound.names or not names else family(inner, names)
        known_names = getattr(inner, "names", None) or known_names
        inner = getattr(inner, "model", None)
    known = "; ".join(family.title for family in FAMILIES)
    raise TypeError(
        f"{type(model).__name__} is no detector of a known family. Known are: {known}. For another one, derive from "
        "cam_engine.detect.Family and register the class: cam_engine.detect.register_family."
    )
