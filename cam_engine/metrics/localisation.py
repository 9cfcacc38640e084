"""How much of a map lies on a region."""

from __future__ import annotations

from typing import Any

import numpy as np

from cam_engine.metrics.distribution import Float, Maps, distributions


def coverage(masks: Any, grid: tuple[int, int]) -> Float:
    """Bring masks (N, H, W), bool or in [0, 1], to a grid: (N, h, w), the exact fraction of each cell that the mask
    covers.

    A pixel that two cells share counts for both in proportion, so that the mean over the grid is the mean over the
    pixels.
    """
    array = np.asarray(masks, dtype=np.float64)
    if array.ndim != 3:
        raise ValueError(f"masks must have shape (N, H, W), not {array.shape}.")
    rows, columns = _overlap(array.shape[1], grid[0]), _overlap(array.shape[2], grid[1])
    return rows @ array @ columns.T


def on_target_mass(maps: Maps, region: Any) -> Float:
    """Share of a map's mass that lies on the region, Σ p·m: (N,), 0 to 1.

    ``region`` (N, h, w) is the masks' coverage of the same grid. Also called the energy-based pointing game (Wang et
    al. 2020, arXiv:1910.01279) and relevance mass accuracy (Arras et al. 2020, arXiv:2003.07258). NaN for an invalid
    map or an empty region.
    """
    p, m = distributions(maps), np.asarray(region, dtype=np.float64)
    if p.shape != m.shape:
        raise ValueError(
            f"maps {p.shape} and region {m.shape} differ in shape; coverage(masks, grid) brings masks to the grid."
        )
    return np.where(m.mean((1, 2)) > 0, (p * m).sum((1, 2)), np.nan)


def enrichment(maps: Maps, region: Any) -> Float:
    """Mass on the region over the region's share of the image, Σ p·m / mean(m): (N,), 0 to 1/mean(m).

    1 is chance, below 1 the map looks elsewhere. NaN for an invalid map or an empty region.
    """
    area = np.asarray(region, dtype=np.float64).mean((1, 2))
    return on_target_mass(maps, region) / np.where(area > 0, area, np.nan)


def _overlap(pixels: int, cells: int) -> Float:
    """(cells, pixels): the fraction of each cell that each pixel makes up."""
    edges = np.arange(cells + 1) * pixels / cells
    start, end = edges[:-1, None], edges[1:, None]
    pixel = np.arange(pixels)[None, :]
    shared = np.clip(np.minimum(end, pixel + 1) - np.maximum(start, pixel), 0.0, None)
    return shared * cells / pixels
