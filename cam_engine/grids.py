"""Any layer's output → (B, C, h, w).

CNN maps (B, C, h, w), channels-last maps (B, h, w, C) and token sequences (B, prefix + h·w, C) are told apart by the
sizes of the batch and of the images. A grid keeps the images' aspect ratio; that decides. How many tokens stand before
the patches is asked of the model first (:func:`prefix_tokens`), because a count alone can be read in two ways.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cam_engine import _tree

Reshape = Callable[[Tensor], Tensor]

PREFIXES = (0, 1, 2, 5)  # none; class; class and distillation; class and four registers

_PREFIX_PARAMETERS = frozenset(
    {"cls_token", "class_token", "class_embedding", "dist_token", "distillation_token", "reg_token", "register_tokens"}
)


class GridError(ValueError):
    """A layer's output has no spatial grid that could be recognised."""


@dataclass(frozen=True)
class Grid:
    """How to view a layer's output as (B, C, h, w). Call it with a tensor of the shape that it was inferred from."""

    layout: Literal["maps", "channels_last", "tokens"]
    height: int
    width: int
    prefix: int = 0

    def __call__(self, activation: Tensor) -> Tensor:
        if self.layout == "maps":
            return activation
        if self.layout == "channels_last":
            return activation.permute(0, 3, 1, 2)
        tokens = activation[:, self.prefix :]
        return tokens.transpose(1, 2).unflatten(2, (self.height, self.width))

    def put_back(self, activation: Tensor, maps: Tensor) -> Tensor:
        """The layer's output with its grid replaced by ``maps`` (B, C, h, w); prefix tokens stay as they are."""
        maps = maps.to(activation.dtype)
        if self.layout == "maps":
            return maps
        if self.layout == "channels_last":
            return maps.permute(0, 2, 3, 1)
        return torch.cat([activation[:, : self.prefix], maps.flatten(2).transpose(1, 2)], dim=1)


@dataclass(frozen=True)
class GridView:
    """A layer's output as float32 (float64 stays) maps (B, C, h, w), by its grid or by the user's ``reshape``."""

    layer: str
    view: Grid | Reshape
    batch: int

    def __call__(self, activation: Tensor) -> Tensor:
        shaped = self.view(activation.detach())
        if not isinstance(shaped, Tensor) or shaped.ndim != 4 or len(shaped) != self.batch:
            shape = tuple(shaped.shape) if isinstance(shaped, Tensor) else type(shaped).__name__
            raise GridError(
                f"reshape= turned the output of layer {self.layer!r}, {tuple(activation.shape)}, into {shape}; "
                f"it must return a tensor (B, C, h, w), with B = {self.batch} images."
            )
        return shaped if shaped.dtype == torch.float64 else shaped.float()

    def put_back(self, activation: Tensor, maps: Tensor) -> Tensor:
        """Undo the view; see :meth:`Grid.put_back`."""
        if not isinstance(self.view, Grid):
            raise GridError(
                f"this method changes the activations of layer {self.layer!r} and runs the model on from there, which needs "
                "a grid that is recognised; with reshape= there is no way back."
            )
        return self.view.put_back(activation, maps)


def infer_grid(
    shape: tuple[int, ...], batch: int, image_size: tuple[int, int], *, layer: str = "", prefix: int | None = None
) -> Grid:
    """Recognise the grid of a layer's output.

    Args:
        shape: Shape of the output.
        batch: Number of images in the forward.
        image_size: (H, W) of the images.
        layer: Name, for the error message.
        prefix: Number of tokens before the patches as the model tells it. It is tried first, then 0, 1, 2 and 5: a class
            token may join the patches late, so that layers of one model differ. A grid that divides the image exactly
            goes before one that rounds.

    Raises:
        GridError: Names the layer, the shape found and what to do.
    """
    if len(shape) >= 3 and shape[0] == batch:
        if len(shape) == 4:
            _, a, b, c = shape
            if _keeps_aspect((b, c), image_size) or not _keeps_aspect((a, b), image_size):
                return Grid("maps", b, c)
            return Grid("channels_last", a, b)
        if len(shape) == 3:
            for exact in (True, False):
                for tokens_before in dict.fromkeys(PREFIXES if prefix is None else (prefix, *PREFIXES)):
                    size = _token_grid(shape[1] - tokens_before, image_size, exact=exact)
                    if size is not None:
                        return Grid("tokens", *size, prefix=tokens_before)
    raise GridError(
        f"layer {layer!r} returns a tensor of shape {tuple(shape)} for {batch} images of {image_size[0]}x{image_size[1]}: "
        "no (B, C, h, w) map, (B, h, w, C) map or (B, tokens, C) sequence that fits them. Choose a layer from "
        "available_layers(model, images), or pass reshape=, a callable that turns this output into (B, C, h, w)."
    )


def prefix_tokens(model: nn.Module) -> int | None:
    """How many tokens (class, distillation, registers) the model puts before its patches; None where it does not tell.

    timm's ``num_prefix_tokens`` is taken at its word; elsewhere the learned tokens themselves are counted.
    """
    for module in model.modules():
        declared = getattr(module, "num_prefix_tokens", None)
        if isinstance(declared, int):
            return declared
        learned = [p for name, p in module._parameters.items() if name in _PREFIX_PARAMETERS and p is not None]
        if learned:
            return sum(p.shape[-2] if p.ndim > 1 else 1 for p in learned)
    return None


def select_tensor(
    output: Any,
    batch: int,
    image_size: tuple[int, int],
    *,
    layer: str = "",
    entry: str = "",
    prefix: int | None = None,
) -> _tree.Path:
    """Path of the first tensor with a grid in what a layer returned; () for a bare tensor.

    ``entry`` narrows it to one entry of a tuple, list or dictionary, ``"[0]"`` or ``"[pool]"``.

    Raises:
        GridError: None has a grid, or there is no such entry.
    """
    candidates = [(path, t) for path, t in entries(output, entry, layer=layer) if t.is_floating_point()]
    for path, tensor in candidates:
        try:
            infer_grid(tuple(tensor.shape), batch, image_size, layer=layer, prefix=prefix)
        except GridError:
            continue
        return path
    shapes = ", ".join(str(tuple(t.shape)) for _, t in candidates) or f"no float tensor, but {type(output).__name__}"
    raise GridError(
        f"layer {layer!r} returns {shapes} for {batch} images of {image_size[0]}x{image_size[1]}, nothing with a spatial grid. "
        "Choose a layer from available_layers(model, images), or pass reshape=, a callable that turns it into (B, C, h, w)."
    )


def entries(output: Any, entry: str = "", *, layer: str = "") -> list[tuple[_tree.Path, Tensor]]:
    """Path and tensor of all that a layer returned, or of what lies under one entry of it.

    Raises:
        GridError: It holds no tensor there; the message lists the entries.
    """
    everything = list(_tree.tensors(output))
    matches = [(path, tensor) for path, tensor in everything if _tree.text(path).startswith(entry)]
    if not matches:
        there = ", ".join(_tree.text(path) or "a bare tensor" for path, _ in everything) or "no tensor"
        raise GridError(f"layer {layer!r}: what it returned, {type(output).__name__}, holds {there}.")
    return matches


def _keeps_aspect(grid: tuple[int, int], image_size: tuple[int, int]) -> bool:
    """Is there one stride that, rounded down or up, takes the image to this grid?"""
    (h, w), (height, width) = grid, image_size
    if not (1 <= h <= 2 * height and 1 <= w <= 2 * width):
        return False
    stride_h = (height / (h + 1), height / max(h - 1, 0.5))
    stride_w = (width / (w + 1), width / max(w - 1, 0.5))
    return max(stride_h[0], stride_w[0]) <= min(stride_h[1], stride_w[1])


def _token_grid(count: int, image_size: tuple[int, int], *, exact: bool) -> tuple[int, int] | None:
    """(h, w) with h·w == count that one patch size makes of the image, by exact division or rounded down or up."""
    height, width = image_size
    if count < 1:
        return None
    for patch in range(1, max(height, width) + 1):
        if exact and (height % patch or width % patch):
            continue
        for h, w in ((height // patch, width // patch), (-(-height // patch), -(-width // patch))):
            if h * w == count:
                return h, w
    return None
