"""The form of a single map. Each function takes maps (N, h, w) and gives one number for each, (N,); NaN if it is invalid."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import entr

from cam_engine.metrics.distribution import Float, Maps, distributions

BORDER = 0.1
TOP_SHARE = 0.1


def entropy(maps: Maps) -> Float:
    """Normalised entropy −Σ p ln p / ln n over the n cells: (N,), 0 (one cell) to 1 (uniform).

    Times ln n it is Quantus' Complexity (Bhatt et al. 2020, arXiv:2005.00631). A grid of one cell has no spread to speak
    of: NaN.

    >>> one_cell, uniform = np.eye(1, 4).reshape(1, 2, 2), np.ones((1, 2, 2))
    >>> entropy(one_cell), entropy(uniform)
    (array([0.]), array([1.]))
    """
    p = distributions(maps)
    cells = p.shape[1] * p.shape[2]
    if cells < 2:
        return np.full(len(p), np.nan)
    return np.clip(entr(p).sum((1, 2)) / np.log(cells), 0.0, 1.0)


def effective_share(maps: Maps) -> Float:
    """Share of the cells that a uniform map of the same entropy would cover, exp(H) / n: (N,), 1/n (one cell) to 1 (uniform).

    H = −Σ p ln p. Unlike :func:`entropy`, whose value for the same noise rises with the grid, it can be judged by one bound
    on any grid that has enough cells. exp(H) is the perplexity, Hill's number of order 1 (Hill 1973, Ecology 54). A grid of
    one cell has no spread to speak of: NaN.

    >>> import numpy as np
    >>> effective_share(np.array([[[1.0, 1.0, 0.0, 0.0]], [[1.0, 1.0, 1.0, 1.0]]])).round(6)
    array([0.5, 1. ])
    """
    p = distributions(maps)
    cells = p.shape[1] * p.shape[2]
    if cells < 2:
        return np.full(len(p), np.nan)
    return np.minimum(np.exp(entr(p).sum((1, 2))) / cells, 1.0)


def gini(maps: Maps) -> Float:
    """Gini index of the cells: (N,), 0 (all alike) to 1 − 1/n (all in one of n cells).

    Σ (2i − n − 1) p_(i) / n over the cells in ascending order; Quantus' Sparseness (Chalasani et al. 2020,
    arXiv:1810.06583).

    >>> one_cell, uniform = np.eye(1, 4).reshape(1, 2, 2), np.ones((1, 2, 2))
    >>> gini(one_cell), gini(uniform)
    (array([0.75]), array([0.]))
    """
    p = distributions(maps)
    ordered = np.sort(p.reshape(len(p), -1), axis=1)
    n = ordered.shape[1]
    return ordered @ (2 * np.arange(1, n + 1) - n - 1) / n


def spread(maps: Maps) -> Float:
    """Root mean square distance from the centre of mass, over half the image's diagonal: (N,), 0 (one cell) to 1
    (two opposite corners). A uniform map has √⅓ = 0.58 on a fine grid.

    >>> one_cell, corners = np.eye(1, 4).reshape(1, 2, 2), np.eye(2)[None]
    >>> spread(one_cell), spread(corners)
    (array([0.]), array([0.5]))
    """
    p = distributions(maps)
    _, h, w = p.shape
    y, x = (np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w
    centre = centroid(p)
    squares = (p.sum(2) * (y - centre[:, :1]) ** 2).sum(1) + (p.sum(1) * (x - centre[:, 1:]) ** 2).sum(1)
    return np.sqrt(squares / 0.5)


def border_enrichment(maps: Maps, width: float = BORDER) -> Float:
    """Mass on a frame along the image's edge over the frame's share of the image: (N,), 0 to 1/share.

    ``width`` of the frame is a share of each side. 1 is chance; far above 1, the model reads the padding or what lies in
    the corners. A cell that the frame covers in part counts in proportion.

    >>> centre = np.pad(np.ones((1, 1, 1)), ((0, 0), (4, 4), (4, 4)))
    >>> np.abs(border_enrichment(centre)).round(3), border_enrichment(np.ones((1, 9, 9))).round(3)
    (array([0.]), array([1.]))
    """
    p = distributions(maps)
    _, h, w = p.shape
    frame = 1 - np.outer(_inside(h, width), _inside(w, width))
    return (p * frame).sum((1, 2)) / frame.mean()


def top_mass(maps: Maps, share: float = TOP_SHARE) -> Float:
    """Mass of the strongest 10 % of the cells: (N,), ``share`` (uniform) to 1. The last cell counts in part, so that exactly
    ``share`` of the area is taken.

    >>> one_cell = np.eye(1, 16).reshape(1, 4, 4)
    >>> top_mass(one_cell), top_mass(np.ones((1, 4, 4)))
    (array([1.]), array([0.1]))
    """
    p = distributions(maps)
    ordered = -np.sort(-p.reshape(len(p), -1), axis=1)
    taken = np.clip(share * ordered.shape[1] - np.arange(ordered.shape[1]), 0.0, 1.0)
    return ordered @ taken


def centroid(maps: Maps) -> Float:
    """Centre of mass (y, x): (N, 2), each 0 to 1, with cell centres at ((i + ½)/h, (j + ½)/w).

    >>> centroid(np.array([[[0.0, 1.0], [0.0, 1.0]]]))
    array([[0.5 , 0.75]])
    """
    p = distributions(maps)
    _, h, w = p.shape
    y, x = (np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w
    return np.stack([(p.sum(2) * y).sum(1), (p.sum(1) * x).sum(1)], axis=1)


def eigen_gap(activations: Any) -> Float:
    """How far EigenCAM's component stands out, (σ1 − σ2) / σ1: (N,), 0 (a toss-up between two) to 1 (only one).

    ``activations`` (N, C, h, w), array or tensor; σ are the singular values of each image's channels × cells, centred per
    channel. Near 0 a small change of the weights can swap the components, and the EigenCAM map jumps without the model
    having moved. NaN where activations are not finite or all alike.

    >>> activations = np.zeros((1, 2, 2, 2))
    >>> activations[0, 0, 0, 0] = 1  # one channel answers in one place: a single component
    >>> eigen_gap(activations)
    array([1.])
    """
    if hasattr(activations, "detach"):
        activations = activations.detach().cpu().double().numpy()
    matrix = np.asarray(activations, dtype=np.float64)
    if matrix.ndim != 4:
        raise ValueError(f"activations must have shape (N, C, h, w), not {matrix.shape}.")
    matrix = matrix.reshape(*matrix.shape[:2], -1)
    finite = np.asarray(np.isfinite(matrix).all((1, 2)))
    matrix = np.where(finite[:, None, None], matrix, 0.0)
    matrix = matrix - matrix.mean(2, keepdims=True)
    values = np.linalg.svd(matrix, compute_uv=False)
    first = values[:, 0]
    second = values[:, 1] if values.shape[1] > 1 else np.zeros_like(first)
    usable = finite & (first > 1e-12)
    return np.where(usable, (first - second) / np.where(usable, first, 1.0), np.nan)


def _inside(cells: int, width: float) -> Float:
    """(cells,): the fraction of each row's height that lies inside the frame."""
    edges = np.clip(np.arange(cells + 1) / cells, width, 1 - width)
    return np.diff(edges) * cells
