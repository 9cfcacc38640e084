"""What a call returns: maps on the layers' own grids, and heatmaps for pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cam_engine.methods.registry import get_method
from cam_engine.validity import MASS_FLOOR

if TYPE_CHECKING:
    import PIL.Image

Aggregate = Literal["mean", "max"]


@dataclass(frozen=True, eq=False)
class CAMResult:
    """Heatmaps of one batch.

    ``raw[method, layer]``: (B, h, w) float32 (float64 from a float64 model) on the layer's own grid, after ReLU, not
    rescaled, on the model's device.
    ``outputs``: what the model returned, detached; None if the forward was stopped at the last layer.
    ``scores``: (B,) the score that was explained; None then too.
    ``size``: (H, W) of the images.
    ``aggregate``: how several layers become one heatmap.
    ``images``: (B, C, H, W) what was explained.

    In a notebook the result shows itself; :meth:`plot` returns the same picture.

    >>> from cam_engine import CAM
    >>> result = CAM(model, ["gradcam", "eigencam"])(images)
    >>> result.raw["gradcam", "3"].shape, result["gradcam"].shape  # the layer's grid; the images'
    (torch.Size([6, 16, 16]), torch.Size([6, 32, 32]))
    >>> result.methods, result.layers, bool(result.valid["gradcam"].all())
    (('gradcam', 'eigencam'), ('3',), True)
    >>> result.plot().save("maps.png")
    """

    raw: dict[tuple[str, str], Tensor]
    outputs: Any
    scores: Tensor | None
    size: tuple[int, int]
    aggregate: Aggregate = "mean"
    images: Tensor | None = field(default=None, repr=False)
    _heatmaps: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(method for method, _ in self.raw))

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(layer for _, layer in self.raw))

    @property
    def valid(self) -> dict[str, Tensor]:
        """For each method, (B,) bool: is there a map, on any layer, that is finite and has mass?"""
        return {m: torch.stack([is_valid(self.raw[m, layer]) for layer in self.layers]).any(0) for m in self.methods}

    def __getitem__(self, method: str) -> Tensor:
        """The heatmap for pictures: (B, H, W) float32 in [0, 1], upsampled to the images.

        Each layer's map is min–max scaled, upsampled (bilinear, half-pixel centres) and averaged over layers
        (detectors: maximum), then scaled again. An invalid map is zero everywhere.
        """
        method = method if method in self.methods else get_method(method).name
        if method not in self.methods:
            raise KeyError(f"{method!r} was not computed; this result holds {', '.join(self.methods)}")
        if method not in self._heatmaps:
            self._heatmaps[method] = self._heatmap(method)
        return self._heatmaps[method]

    def plot(self, images: Tensor | None = None, *, most: int = 16) -> PIL.Image.Image:
        """A picture: one row for each image (``most`` at most), one column for each method.

        ``images`` (B, C, H, W), in place of those that were explained, are shown as they are if they lie in [0, 1], else
        scaled to their range.
        """
        from PIL import Image

        from cam_engine.pictures import to_pictures
        from cam_engine.render import Tile, film_strip

        images = self.images if images is None else images
        if images is None:
            raise ValueError("this result holds no images; pass plot(images).")
        pictures = to_pictures(images[:most])
        maps = [self[method][:most].float().cpu().numpy() for method in self.methods]
        rows = [[Tile(picture, of[i]) for of in maps] for i, picture in enumerate(pictures)]
        size = min(max(pictures.shape[1:3]), 224)
        labels = [str(i) for i in range(len(rows))]
        sheet = film_strip(rows, row_labels=labels, column_labels=self.methods, tile_size=max(size, 112))
        return Image.fromarray(sheet)

    def _repr_png_(self) -> bytes:
        """For notebooks."""
        from cam_engine.render import encode_png

        return encode_png(np.asarray(self.plot()))

    def _heatmap(self, method: str) -> Tensor:
        layers = []
        for layer in self.layers:
            scaled = minmax(self.raw[method, layer])
            layers.append(
                F.interpolate(scaled[:, None], size=self.size, mode="bilinear", align_corners=False).squeeze(1)
            )
        stacked = torch.stack(layers)
        return minmax(stacked.mean(0) if self.aggregate == "mean" else stacked.amax(0))


def minmax(maps: Tensor) -> Tensor:
    """Scale each of (B, h, w) maps to [0, 1], whatever the size of its values. Constant and invalid maps become zero."""
    valid = is_valid(maps)[:, None, None]
    maps = torch.where(valid, maps, 0.0)
    low = maps.amin((1, 2), keepdim=True)
    span = maps.amax((1, 2), keepdim=True) - low
    return torch.where(span > 0, (maps - low) / torch.where(span > 0, span, 1.0), 0.0)


def is_valid(maps: Tensor) -> Tensor:
    """(B,) bool: finite everywhere, and a sum after ReLU above 1e-12."""
    total = maps.relu().sum((1, 2), dtype=torch.float64 if maps.device.type != "mps" else torch.float32)
    return torch.isfinite(maps).flatten(1).all(1) & (total > MASS_FLOOR)
