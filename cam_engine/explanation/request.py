"""What :func:`cam_engine.explain` is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from torch import Tensor, nn

from cam_engine.layers import LayerSpec
from cam_engine.methods.registry import get_method
from cam_engine.render import encode_png
from cam_engine.targets.resolve import TargetSpec

Preprocess = Callable[[Image.Image], Tensor]
LayerChoice = LayerSpec | int | Sequence["str | int | nn.Module"]


class Explanation(dict[str, Any]):
    """What :func:`cam_engine.explain` returns; a dictionary that shows its picture in a notebook."""

    def _repr_png_(self) -> bytes:
        return encode_png(self.get("sheet", self["overlay"]))


@dataclass(frozen=True, eq=False)
class Request:
    """How to explain: what :func:`cam_engine.explain` takes beside the model and the image, and means there.

    ``cam`` holds the arguments that go on to :class:`cam_engine.CAM`.
    """

    methods: tuple[str, ...]
    layer: LayerChoice | None = None
    target: TargetSpec = None
    alpha: float = 0.5
    classes: str | int | Iterable[str | int] | None = None
    per: str = "all"
    items: tuple[str, ...] = ("class",)
    matching: str = "exact"
    confidence: float = 0.25
    cam: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        method: str | Sequence[str],
        layer: LayerChoice | None = None,
        items: str | Sequence[str] = ("class",),
        **settings: Any,
    ) -> Request:
        """The request for one method or several, each once.

        Raises:
            ValueError: No method.
            UnknownNameError: (a KeyError) no such method.
        """
        names = [method] if isinstance(method, str) else list(method)
        if not names:
            raise ValueError('method= is empty; pass at least one name, such as "gradcam".')
        methods = tuple(dict.fromkeys(get_method(name).name for name in names))
        return cls(methods, layer, items=(items,) if isinstance(items, str) else tuple(items), **settings)

    def metadata(self) -> dict[str, Any]:
        """For ``metadata.json``: plain values."""
        target = self.target if self.target is None or isinstance(self.target, int) else str(self.target)
        plain = {name: value for name, value in self.cam.items() if isinstance(value, (bool, int, str))}
        return {"target": target, "classes": self.classes, "per": self.per, "items": list(self.items),
                "matching": self.matching, **plain}  # fmt: skip

    def title_of(self, layers: Iterable[str], friendly: Mapping[str, str]) -> str:
        """The layers' names as the user called them: friendly where a friendly name was asked for."""
        spec = [self.layer] if isinstance(self.layer, str) else self.layer
        names = [] if spec is None or isinstance(spec, (int, nn.Module)) else [n for n in spec if isinstance(n, str)]
        friendly_of = {friendly[name]: name for name in names if name in friendly}
        return ", ".join(friendly_of.get(layer, layer) for layer in layers)
