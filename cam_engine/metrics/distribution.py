"""A map as a distribution over its cells."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cam_engine.validity import valid_maps

Maps = Any  # numpy array or tensor (N, h, w)
Float = NDArray[np.float64]


def as_maps(maps: Maps) -> Float:
    """Maps as float64 (N, h, w) on the CPU.

    Raises:
        ValueError: Not three-dimensional.
    """
    if hasattr(maps, "detach"):
        maps = maps.detach().cpu().double().numpy()
    array = np.asarray(maps, dtype=np.float64)
    if array.ndim != 3:
        raise ValueError(f"maps must have shape (N, h, w), not {array.shape}.")
    return array


def valid(maps: Maps) -> NDArray[np.bool_]:
    """(N,) bool: finite everywhere, and a sum after ReLU above 1e-12.

    >>> valid(np.array([[[1.0, 3.0]], [[0.0, -1.0]]]))
    array([ True, False])
    """
    return valid_maps(as_maps(maps))


def distributions(maps: Maps) -> Float:
    """ReLU, then each map divided by its sum: (N, h, w), NaN throughout for an invalid map.

    >>> distributions(np.array([[[1.0, 3.0]]]))
    array([[[0.25, 0.75]]])
    """
    array = as_maps(maps)
    usable = valid(array)[:, None, None]
    positive = np.maximum(np.where(usable, array, 1.0), 0.0)
    positive = positive / positive.max((1, 2), keepdims=True)  # sums of very large values would overflow
    return np.where(usable, positive / positive.sum((1, 2), keepdims=True), np.nan)


def pair(maps: Maps, others: Maps) -> tuple[Float, Float]:
    """Two batches of maps as distributions, (N, h, w) each.

    Raises:
        ValueError: The two differ in shape.
    """
    p, q = distributions(maps), distributions(others)
    if p.shape != q.shape:
        raise ValueError(
            f"maps of shape {p.shape} and {q.shape} cannot be compared; numbers of different grids are never mixed."
        )
    return p, q


def overlap(pixels: int, cells: int) -> Float:
    """(cells, pixels): the fraction of each cell that each pixel makes up."""
    edges = np.arange(cells + 1) * pixels / cells
    start, end = edges[:-1, None], edges[1:, None]
    pixel = np.arange(pixels)[None, :]
    shared = np.clip(np.minimum(end, pixel + 1) - np.maximum(start, pixel), 0.0, None)
    return shared * cells / pixels


def blocks(p: Float, finest: int) -> Float:
    """Distributions (N, h, w) on a grid of at most ``finest`` cells a side, the mass of each cell kept where it is."""
    _, h, w = p.shape
    rows, columns = min(h, finest), min(w, finest)
    if (rows, columns) == (h, w):
        return p
    return overlap(h, rows) @ p @ overlap(w, columns).T * (h / rows) * (w / columns)


def interpolation(cells: int, pixels: int) -> Float:
    """(pixels, cells): bilinear upsampling with half-pixel centres, as torch's ``interpolate(align_corners=False)``."""
    at = (np.arange(pixels) + 0.5) * cells / pixels - 0.5
    return np.stack([np.interp(at, np.arange(cells), one) for one in np.eye(cells)], axis=1)
