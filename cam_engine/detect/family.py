"""What all detector families have in common: how a model is called, and where in its outputs the scores lie."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cam_engine.detect.raw import Detections, Raw
from cam_engine.errors import UnknownNameError, nearest
from cam_engine.grids import Reshape


class Family(ABC):
    """One kind of detector, bound to a model. Another kind is a class derived from this one: four methods and a ``title``.

    ``model`` is what is explained: inside an ultralytics ``YOLO`` that is its ``.model``. ``names`` maps class indices to
    names, as far as the model knows them. ``iou`` is the family's own threshold for suppression. ``fixed_rows``: a row is
    the same place (anchor, query) for every image; where it is not, variants of an image are matched by overlap.
    ``agnostic``: suppress boxes of other classes too; None in families that cannot.
    ``title`` names the kind in messages.

    >>> family = Cells(detector, names=["cat", "dog"])
    >>> family.layers(), family.raw(detector(images)).classes.shape
    (['features'], torch.Size([6, 16, 2]))
    """

    title: ClassVar[str]
    iou: ClassVar[float] = 0.7
    fixed_rows: ClassVar[bool] = True
    agnostic: bool | None = None

    def __init__(self, model: nn.Module, names: Mapping[int, str] | Sequence[str] | None = None) -> None:
        self.model = model
        known = getattr(model, "names", None) or names or {}
        pairs = known.items() if isinstance(known, Mapping) else enumerate(known)
        self.names: dict[int, str] = {int(index): str(name) for index, name in pairs}

    @staticmethod
    @abstractmethod
    def recognises(model: nn.Module) -> bool:
        """Is this a model of the family? By what it is made of, not by its class."""

    @abstractmethod
    def layers(self) -> list[str]:
        """Names of the layers whose outputs the detection head reads: all of them."""

    def forward(self, model: nn.Module, images: Tensor) -> Any:
        """Call the model; ``forward=`` of :class:`cam_engine.CAM`. What it returns is what the other methods take.

        Every tensor in it has the batch first.
        """
        return model(images)

    @abstractmethod
    def raw(self, outputs: Any) -> Raw:
        """All rows before suppression, in the graph."""

    @abstractmethod
    def detections(
        self, outputs: Any, *, confidence: float = 0.25, iou: float | None = None, max_detections: int = 300
    ) -> list[Detections]:
        """What the model detects in each image, chosen as the family's own library does."""

    def masks(self, outputs: Any, image: int, detections: Detections) -> tuple[Tensor, Tensor]:
        """Mask logits (n, h, w) of an image's detections, in the graph, and their own predicted masks (n, h, w), bool.

        Raises:
            ValueError: The model predicts no masks.
        """
        raise ValueError(f"{type(self.model).__name__} predicts no instance masks, so there is no item 'mask'.")

    def reshape(self, size: tuple[int, int]) -> Reshape | None:
        """What turns the default layers' outputs into (B, C, h, w), for images of (H, W); None: they are recognised."""
        return None

    def canvas(self, outputs: Any) -> tuple[float, float]:
        """Height and width of what the layers saw, in images: above 1 where the model pads images at the bottom right."""
        return 1.0, 1.0

    def name_of(self, label: int) -> str:
        """Class name, or the index as text."""
        return self.names.get(label, str(label))

    def indices(self, classes: str | int | Iterable[str | int] | None) -> set[int] | None:
        """Class names or indices as indices; None (all classes) stays None, an empty list is None.

        A number as text that is no name is an index.

        Raises:
            UnknownNameError: (a KeyError) a name that the model does not know.
        """
        if classes is None:
            return None
        by_name = {name: index for index, name in self.names.items()}
        given = [classes] if isinstance(classes, (str, int)) else classes
        wanted = [int(c) if isinstance(c, str) and c not in by_name and c.isdecimal() else c for c in given]
        for name in wanted:
            if isinstance(name, str) and name not in by_name:
                known = f"nearest names: {nearest(name, by_name)}" if by_name else "this model has no class names"
                raise UnknownNameError(f"no class {name!r}; {known}.")
            if not isinstance(name, str) and self.names and name not in self.names:
                raise UnknownNameError(
                    f"no class {name}; the model has classes {min(self.names)} to {max(self.names)}."
                )
        return {by_name[c] if isinstance(c, str) else int(c) for c in wanted} or None


def padded(parts: Sequence[Tensor], fill: float = 0.0) -> Tensor:
    """Stack (n_i, …) tensors into (B, max n_i, …)."""
    most = max(len(part) for part in parts)
    missing = [part.new_full((most - len(part), *part.shape[1:]), fill) for part in parts]
    return torch.stack([torch.cat(pair) for pair in zip(parts, missing, strict=True)])
