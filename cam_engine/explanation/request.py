"""What :func:`cam_engine.explain` is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from cam_engine.explanation.spellings import MethodName, methods_of
from cam_engine.layers import LayerSpec
from cam_engine.methods.registry import Method, available_methods, get_method
from cam_engine.render import DEFAULT_COLORMAP, encode_png, write_png
from cam_engine.result import Aggregate
from cam_engine.targets.resolve import TargetSpec

Preprocess = Callable[[Image.Image], Tensor]
LayerChoice = LayerSpec | int | Sequence["str | int | nn.Module"]
Classes = str | int | Iterable[str | int] | None
ClassNames = Sequence[str] | Mapping[int, str] | None


class Explanation(dict[str, Any]):
    """What :func:`cam_engine.explain` returns: a dictionary that shows its picture in a notebook, and saves it.

    >>> from cam_engine import explain
    >>> explanation = explain(model, images[0])
    >>> explanation["heatmap"].shape, explanation["class_index"], explanation.save("picture.png").name
    ((32, 32), 2, 'picture.png')
    """

    @property
    def picture(self) -> NDArray[np.uint8]:
        """(height, width, 3) uint8 RGB: the sheet of several methods, else the figure with its caption, else the overlay."""
        return next(self[key] for key in ("sheet", "figure", "overlay") if key in self)

    def save(self, path: str | Path) -> Path:
        """Write :attr:`picture` as a PNG, replacing what is there; missing folders are made."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, self.picture)
        return path

    def _repr_png_(self) -> bytes:
        return encode_png(self.picture)


@dataclass(frozen=True)
class Look:
    """How the pictures look: ``alpha`` is the colour's share at a map's peak; ``caption``: draw figures with words."""

    alpha: float = 0.5
    colormap: str = DEFAULT_COLORMAP
    caption: bool = True


@dataclass(frozen=True)
class Boxes:
    """What of a detector's boxes is explained; the same as in :func:`cam_engine.detect.explain_detections`."""

    classes: Classes = None
    per: str = "all"
    items: tuple[str, ...] = ("class",)
    matching: str | None = None
    k: int | None = None
    confidence: float = 0.25
    iou: float | None = None
    max_detections: int | None = None
    agnostic: bool | None = None

    def given(self) -> list[str]:
        """Names of what differs from the default."""
        return [f.name for f in fields(self) if getattr(self, f.name) != f.default]


@dataclass(frozen=True, eq=False)
class Request:
    """How to explain: what :func:`cam_engine.explain` takes beside the model and the image, and means there.

    ``cam`` holds the arguments that go on to :class:`cam_engine.CAM`.
    """

    methods: tuple[Method, ...]
    layer: LayerChoice | None = None
    target: TargetSpec | str = None
    class_names: ClassNames = None
    aggregate: Aggregate | None = None
    look: Look = field(default_factory=Look)
    boxes: Boxes = field(default_factory=Boxes)
    cam: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        method: MethodName | Sequence[MethodName],
        layer: LayerChoice | None = None,
        cam: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Request:
        """The request for one method or several, each once; ``settings`` are fields of :class:`Look`, :class:`Boxes` and this.

        Raises:
            ValueError: No method, a ``component`` or ``center`` that none of the methods has, an unknown ``matching``, ``k``
                where rows are not matched by overlap.
            UnknownNameError: (a KeyError) no such method.
        """
        look, boxes = ({f.name: settings.pop(f.name) for f in fields(c) if f.name in settings} for c in (Look, Boxes))
        items = boxes.get("items", ("class",))
        boxes["items"] = (items,) if isinstance(items, str) else tuple(items)
        if boxes.get("k") is not None and boxes.setdefault("matching", None) is None:
            boxes["matching"] = "overlap"
        if boxes.get("k") is not None and boxes["matching"] != "overlap":
            raise ValueError(
                f"k={boxes['k']} counts rows that overlap a box; it means nothing with matching={boxes['matching']!r}."
            )
        request = cls(
            methods_of(method), layer, look=Look(**look), boxes=Boxes(**boxes), cam=dict(cam or {}), **settings
        )
        request._check_options()
        return request

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(method.name for method in self.methods)

    def metadata(self) -> dict[str, Any]:
        """For ``metadata.json``: plain values."""
        target = self.target if self.target is None or isinstance(self.target, (int, str)) else str(self.target)
        plain = {name: value for name, value in self.cam.items() if isinstance(value, (bool, int, str))}
        boxes = {f.name: getattr(self.boxes, f.name) for f in fields(self.boxes)}
        return {"target": target, **boxes, "items": list(self.boxes.items), "colormap": self.look.colormap, **plain}

    def title_of(self, layers: Iterable[str], friendly: Mapping[str, str]) -> str:
        """The layers' names as the user called them: friendly where a friendly name was asked for."""
        spec = [self.layer] if isinstance(self.layer, str) else self.layer
        names = [] if spec is None or isinstance(spec, (int, nn.Module)) else [n for n in spec if isinstance(n, str)]
        friendly_of = {friendly[name]: name for name in names if name in friendly}
        return ", ".join(friendly_of.get(layer, layer) for layer in layers)

    def _check_options(self) -> None:
        for option, default in (("component", 0), ("center", True)):
            value = self.cam.get(option, default)
            if value != default and not any(option in method.options for method in self.methods):
                have = [name for name in available_methods() if option in get_method(name).options]
                raise ValueError(
                    f"{option}={value!r} means nothing to {', '.join(self.names)}; methods that have it: {', '.join(have)}."
                )
