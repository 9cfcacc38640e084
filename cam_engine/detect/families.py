"""Which family a model belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from cam_engine.detect.family import Family
from cam_engine.detect.queries import LibreQueries, Transformers, UltralyticsRTDETR
from cam_engine.detect.torchvision import FCOS, SSD, FasterRCNN, RetinaNet
from cam_engine.detect.yolo import LibreYolo9, Ultralytics, YoloV5Style

FAMILIES: tuple[type[Family], ...] = (
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
)


def family_of(model: Any, names: Mapping[int, str] | Sequence[str] | None = None) -> Family:
    """The family of a detector, bound to the network inside it.

    Args:
        model: A detector, or what holds one as its ``.model``: an ultralytics ``YOLO``, a libreyolo model, a
            LightningModule.
        names: Class names by index, where neither the model nor what holds it knows any.

    Raises:
        TypeError: No known family; the message lists them.
    """
    known_names, inner = None, model
    for _ in range(4):
        if isinstance(inner, nn.Module):
            for family in FAMILIES:
                if family.recognises(inner):
                    found = family(inner, known_names)
                    return found if found.names or not names else family(inner, names)
        known_names = getattr(inner, "names", None) or known_names
        inner = getattr(inner, "model", None)
    known = "; ".join(family.title for family in FAMILIES)
    raise TypeError(
        f"{type(model).__name__} is no detector of a known family. Known are: {known}. For another one, derive from "
        "cam_engine.detect.Family and pass it as family=."
    )
