"""How much of a map lies on a region.

``region`` (N, h, w) is the coverage of the maps' grid by masks, in [0, 1] (:func:`coverage`). Every number is NaN for an
invalid map or an empty region. The same functions on a region that is suspected give nuisance numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.ndimage import maximum_filter
from scipy.stats import rankdata

from cam_engine.metrics.distribution import Float, Maps, distributions, overlap


def coverage(masks: Any, grid: tuple[int, int]) -> Float:
    """Bring masks (N, H, W), bool or in [0, 1], to a grid: (N, h, w), the exact fraction of each cell that the mask
    covers.

    A pixel that two cells share counts for both in proportion, so that the mean over the grid is the mean over the
    pixels.

    >>> mask = np.zeros((1, 4, 4), bool)
    >>> mask[0, :2, :3] = True
    >>> coverage(mask, (2, 2))
    array([[[1. , 0.5],
            [0. , 0. ]]])
    """
    array = np.asarray(masks, dtype=np.float64)
    if array.ndim != 3:
        raise ValueError(f"masks must have shape (N, H, W), not {array.shape}.")
    rows, columns = overlap(array.shape[1], grid[0]), overlap(array.shape[2], grid[1])
    return rows @ array @ columns.T


def on_target_mass(maps: Maps, region: Any) -> Float:
    """Share of a map's mass that lies on the region, Σ p·m: (N,), 0 to 1.

    Also called the energy-based pointing game (Wang et
    al. 2020, arXiv:1910.01279) and relevance mass accuracy (Arras et al. 2020, arXiv:2003.07258).

    >>> left = np.array([[[1.0, 0.0]]])  # the region: the left half
    >>> on_target_mass(np.array([[[3.0, 1.0]]]), left)
    array([0.75])
    """
    p, m = _both(maps, region)
    return np.where(m.mean((1, 2)) > 0, (p * m).sum((1, 2)), np.nan)


def enrichment(maps: Maps, region: Any) -> Float:
    """Mass on the region over the region's share of the image, Σ p·m / mean(m): (N,), 0 to 1/mean(m).

    1 is chance, below 1 the map looks elsewhere.

    >>> left = np.array([[[1.0, 0.0]]])  # the region: the left half
    >>> enrichment(np.array([[[3.0, 1.0]]]), left), enrichment(np.ones((1, 1, 2)), left)
    (array([1.5]), array([1.]))
    """
    area = np.asarray(region, dtype=np.float64).mean((1, 2))
    return on_target_mass(maps, region) / np.where(area > 0, area, np.nan)


def pointing_game(maps: Maps, region: Any, tolerance: float = 0.0) -> Float:
    """Does the strongest cell lie on the region? (N,), 0 to 1: the cell's coverage, the mean over cells that tie.

    With a ``tolerance`` in cells, a cell counts with the largest coverage within that distance. On masks of 0 and 1 without
    ties it is a hit or a miss. Zhang et al. 2016 (arXiv:1608.00507).

    >>> left = np.array([[[1.0, 0.0]]])  # the region: the left half
    >>> pointing_game(np.array([[[3.0, 1.0]]]), left), pointing_game(np.ones((1, 1, 2)), left)
    (array([1.]), array([0.5]))
    """
    p, m = _both(maps, region)
    if tolerance > 0:
        reach = int(tolerance)
        offset = np.arange(-reach, reach + 1)
        disk = offset[:, None] ** 2 + offset[None, :] ** 2 <= tolerance**2
        m = np.stack([maximum_filter(one, footprint=disk, mode="constant") for one in m])
    strongest = p >= p.max((1, 2), keepdims=True)
    hits = (strongest * m).sum((1, 2)) / np.maximum(strongest.sum((1, 2)), 1)
    return _defined(hits, p, m.any((1, 2)))


def rank_accuracy(maps: Maps, region: Any) -> Float:
    """Share of the K strongest cells that lie on a region of K cells: (N,), 0 to 1; chance is the region's share of the image.

    A cell belongs to the region if at least half of it is covered. Cells that tie at the limit share its places. Relevance
    rank accuracy, Arras et al. 2020 (arXiv:2003.07258).

    >>> region = np.array([[[1.0, 1.0, 0.0, 0.0]]])
    >>> rank_accuracy(np.array([[[5.0, 1.0, 3.0, 0.0]]]), region)
    array([0.5])
    """
    p, m = _both(maps, region)
    values, inside = p.reshape(len(p), -1), m.reshape(len(m), -1) >= 0.5
    size = inside.sum(1)
    limit = np.take_along_axis(np.sort(values, axis=1), (values.shape[1] - np.maximum(size, 1))[:, None], axis=1)
    above, ties = values > limit, values == limit
    places = size - above.sum(1)
    tied_inside = (ties & inside).sum(1) / np.maximum(ties.sum(1), 1)
    return _defined(((above & inside).sum(1) + places * tied_inside) / np.maximum(size, 1), p, size > 0)


def pixel_auc(maps: Maps, region: Any) -> Float:
    """Area under the ROC curve of the map as a classifier of cells, on the region or not: (N,), 0 to 1; chance is 0.5.

    A cell belongs to the region if at least half of it is covered. NaN too where every cell does. Ties count half, as in
    scikit-learn's ``roc_auc_score``. From the ranks (Mann–Whitney), so that all images are done at once.

    >>> region = np.array([[[1.0, 1.0, 0.0, 0.0]]])
    >>> pixel_auc(np.array([[[5.0, 1.0, 3.0, 0.0]]]), region)
    array([0.75])
    """
    p, m = _both(maps, region)
    values, inside = p.reshape(len(p), -1), m.reshape(len(m), -1) >= 0.5
    ranks = rankdata(np.nan_to_num(values), axis=1)
    there, elsewhere = inside.sum(1), (~inside).sum(1)
    area = ((ranks * inside).sum(1) - there * (there + 1) / 2) / np.maximum(there * elsewhere, 1)
    return _defined(area, p, (there > 0) & (elsewhere > 0))


def _both(maps: Maps, region: Any) -> tuple[Float, Float]:
    p, m = distributions(maps), np.asarray(region, dtype=np.float64)
    if p.shape != m.shape:
        raise ValueError(
            f"maps {p.shape} and region {m.shape} differ in shape; coverage(masks, grid) brings masks to the grid."
        )
    return p, m


def _defined(values: Float, p: Float, has_region: Any) -> Float:
    return np.where(np.isfinite(p).all((1, 2)) & has_region, values, np.nan)
