"""What a model's layers hold: the first channels of each as pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from cam_engine.capture import capture
from cam_engine.errors import UnknownNameError
from cam_engine.explanation.reading import read
from cam_engine.explanation.saving import new_folder
from cam_engine.layers import available_layers, resolve_layers, taps_of, views_of
from cam_engine.layers.friendly import resolve_names
from cam_engine.loading import Loaded, load_model
from cam_engine.render import Tile, colorize, contact_sheet, write_png

COLORMAP = "viridis"
_TILE = 128  # pixels


def save_feature_maps(
    model: Any,
    image: Any,
    layers: str | int | nn.Module | Sequence[Any] = "all",
    channels: int = 16,
    folder: str | os.PathLike[str] | None = None,
    *,
    size: int | None = None,
    processor: Any = None,
    preprocess: Any = None,
) -> Path:
    """Write the first channels of layers as labelled grids: one PNG for each layer, and ``metadata.json``.

    Each channel is scaled by itself from its lowest to its highest value, which stand below it.

    Args:
        model, image, size, processor, preprocess: As for :func:`cam_engine.explain`.
        layers: Names as ``target_layer`` of :func:`cam_engine.explain` takes them (friendly, dotted, globs, indices). ``"all"``
            is every layer that has a friendly name, or, in a family without, every layer with a spatial grid; ``"**"``
            is every one of those in any family.
        channels: How many of each layer.
        folder: Where to; by default ``runs/feature_maps/<image name>``. One that holds something is never written into: a
            number is appended.

    Returns:
        The folder.

    Raises:
        UnknownNameError: (a KeyError) no such layer; the message lists those that exist.
        GridError: (a ValueError) a layer's output has no spatial grid.

    >>> from cam_engine import save_feature_maps
    >>> folder = save_feature_maps(model, images[0], layers=["0", "3"], channels=4, folder="maps")
    >>> sorted(file.name for file in folder.iterdir())
    ['0.png', '3.png', 'metadata.json']
    """
    if channels < 1:
        raise ValueError(f"channels={channels} must be at least 1.")
    loaded = load_model(model, size=size, processor=processor, preprocess=preprocess)
    picture = read(image, loaded.prepare)
    wanted = Path("runs", "feature_maps", picture.name) if folder is None else Path(folder)
    return write_feature_maps(loaded, picture.tensor, layers, channels, wanted)


def write_feature_maps(loaded: Loaded, tensor: Tensor, layers: Any, channels: int, folder: Path) -> Path:
    """The same for an input (1, C, H, W) of a model that is taken apart already."""
    parameter = next((p for p in loaded.net.parameters() if p.is_floating_point()), None)
    tensor = tensor if parameter is None else tensor.to(parameter.device, parameter.dtype)
    chosen = _chosen(loaded, tensor, layers)
    activations = capture(loaded.net, tensor, taps_of(loaded.net, chosen, tensor), record="nothing").activations
    views = views_of(loaded.net, activations, tensor)
    friendly = {dotted: name for name, dotted in loaded.friendly.items()}
    folder = new_folder(folder)
    entries = []
    for name, activation in activations.items():
        values, kind = views[name](activation)[0].float().cpu().numpy(), type(chosen[name]).__name__
        title = friendly.get(name, name)
        file = f"{title.replace('/', '_')}.png"
        write_png(folder / file, feature_grid(values[:channels], f"{title} · {kind} · {_shape(values)}"))
        entries.append(
            {
                "name": name,
                "friendly_name": friendly.get(name),
                "type": kind,
                "shape": list(values.shape),
                "channels_shown": min(channels, len(values)),
                "stride": round(tensor.shape[-2] / values.shape[1]),
                "range": [[float(v.min()), float(v.max())] for v in values[:channels]],
                "file": file,
            }
        )
    metadata = {"model": type(loaded.net).__name__, "input_shape": list(tensor.shape), "layers": entries}
    (folder / "metadata.json").write_text(json.dumps(metadata, indent=1), encoding="utf-8")
    return folder


def feature_grid(values: NDArray[np.float32], title: str = "") -> NDArray[np.uint8]:
    """Channels (n, h, w) in a labelled grid, (height, width, 3) uint8 RGB."""
    tiles = []
    noise = 1e-6 * max(float(np.nanmax(np.abs(values))), 1e-30)  # a span below it is rounding, and drawn as constant
    for index, channel in enumerate(values):
        channel = np.nan_to_num(channel.astype(np.float64))
        low, high = channel.min(), channel.max()
        unit = (channel - low) / (high - low) if high - low > noise else np.zeros_like(channel)
        factor = max(1, -(-_TILE // max(channel.shape)))
        cells = np.repeat(np.repeat(colorize(unit, COLORMAP), factor, axis=0), factor, axis=1)
        tiles.append(Tile(cells, None, (f"{index}: {low:.2g} to {high:.2g}",)))
    columns = min(len(tiles), max(1, round(len(tiles) ** 0.5)))
    return contact_sheet(tiles, title=title, columns=columns, tile_size=_TILE + 32, legend=False)


def _chosen(loaded: Loaded, tensor: Tensor, layers: Any) -> dict[str, nn.Module]:
    """The layers by name."""
    net = loaded.net
    possible = [info.name for info in available_layers(net, tensor)]
    if isinstance(layers, str) and layers in ("all", "**"):
        named = [name for name in possible if layers == "all" and name in loaded.friendly.values()]
        return resolve_layers(net, named or possible, tensor)
    try:
        return resolve_layers(net, resolve_names(net, layers, loaded.friendly), tensor)
    except UnknownNameError as error:
        exist = [*loaded.friendly, *(name for name in possible if name not in loaded.friendly)]
        raise UnknownNameError(f"{error} These exist: {', '.join(exist)}.") from None


def _shape(values: NDArray[np.float32]) -> str:
    return f"{len(values)} channels of {values.shape[1]}×{values.shape[2]}"
