"""Where the outputs of chosen layers are captured, and how they are seen as maps (B, C, h, w)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from cam_engine.capture import Tap
from cam_engine.grids import GridView, Reshape, entries, infer_grid, prefix_tokens, select_tensor
from cam_engine.layers.naming import entry_of


def taps_of(
    model: nn.Module, chosen: Mapping[str, nn.Module], images: Tensor, reshape: Reshape | None = None
) -> list[Tap]:
    """What :func:`cam_engine.capture.capture` takes for the layers that :func:`resolve_layers` found.

    Of a layer that returns several tensors, the entry that its name says, and of that the first with a grid for
    ``images`` (B, C, H, W), or, where ``reshape`` makes the grid, the first at all.

    >>> from cam_engine.layers import resolve_layers, taps_of
    >>> taps = taps_of(model, resolve_layers(model, "3", images), images)
    >>> [tap.name for tap in taps]
    ['3']
    """
    batch, size, prefix = len(images), (images.shape[-2], images.shape[-1]), prefix_tokens(model)

    def tap(name: str, module: nn.Module) -> Tap:
        entry = entry_of(model, name)
        if reshape is not None:
            return Tap(name, module, lambda output: entries(output, entry, layer=name)[0][0])
        return Tap(
            name,
            module,
            lambda output: select_tensor(output, batch, size, layer=name, entry=entry, prefix=prefix),
        )

    return [tap(name, module) for name, module in chosen.items()]


def views_of(
    model: nn.Module, activations: Mapping[str, Tensor], images: Tensor, reshape: Reshape | None = None
) -> dict[str, GridView]:
    """For each captured layer, what turns its output into (B, C, h, w): ``reshape``, or the grid that is recognised.

    Raises:
        GridError: No grid is.

    >>> from cam_engine.layers import views_of
    >>> views = views_of(model, {"3": model[:4](images)}, images)
    >>> views["3"](model[:4](images)).shape
    torch.Size([6, 8, 16, 16])
    """
    batch, size, prefix = len(images), (images.shape[-2], images.shape[-1]), prefix_tokens(model)
    return {
        name: GridView(name, reshape or infer_grid(tuple(a.shape), batch, size, layer=name, prefix=prefix), batch)
        for name, a in activations.items()
    }
