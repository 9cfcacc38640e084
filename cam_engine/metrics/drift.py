"""How far a focus has moved between two maps of the same image.

Each function takes two batches of maps (N, h, w) and gives one number for each pair, (N,); NaN where either map is
invalid. Maps of different shapes raise ValueError: numbers of different grids are never mixed. All are blind to the
scale of a map.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.optimize import linprog
from scipy.sparse import csr_array, vstack
from scipy.special import rel_entr
from scipy.stats import rankdata

from cam_engine.metrics.distribution import Float, Maps, blocks, interpolation, pair
from cam_engine.metrics.shape import centroid

TOP_SHARE = 0.2
SSIM_SIZE = (64, 64)
FINEST = 16  # cells a side, for the transport problem


def jensen_shannon(maps: Maps, others: Maps) -> Float:
    """Jensen–Shannon divergence, base 2: (N,), 0 (same focus) to 1 (disjoint).

    JSD(p, q) = ½ KL(p‖m) + ½ KL(q‖m), m = ½(p + q); equals scipy's ``jensenshannon(p, q, base=2) ** 2``.
    Lin 1991, IEEE Trans. Inf. Theory 37.

    >>> left, right = np.array([[[1.0, 0.0]]]), np.array([[[0.0, 1.0]]])
    >>> jensen_shannon(left, left), jensen_shannon(left, right)
    (array([0.]), array([1.]))
    """
    p, q = pair(maps, others)
    middle = (p + q) / 2
    divergence = (rel_entr(p, middle) + rel_entr(q, middle)).sum((1, 2)) / (2 * np.log(2))
    return np.clip(divergence, 0.0, 1.0)


def correlation(maps: Maps, others: Maps) -> Float:
    """Pearson correlation (CC) over cells: (N,), 1 (same focus) to −1. NaN where a map is the same everywhere.

    Equals scipy's ``pearsonr``. Bylinskii et al. 2019 (arXiv:1604.03605), as are SIM and the choice of JSD's relatives.

    >>> ramp = np.arange(4.0).reshape(1, 2, 2)
    >>> correlation(ramp, 2 * ramp), correlation(ramp, 3 - ramp)
    (array([1.]), array([-1.]))
    """
    p, q = pair(maps, others)
    return _correlation(p.reshape(len(p), -1), q.reshape(len(q), -1))


def spearman(maps: Maps, others: Maps) -> Float:
    """Spearman's rank correlation over cells, ties sharing their mean rank: (N,), 1 (same order) to −1.

    NaN where a map is the same everywhere. Equals scipy's ``spearmanr``. Cells without focus count as much as those with:
    noise among them lowers it.

    >>> ramp = np.arange(4.0).reshape(1, 2, 2)
    >>> spearman(ramp, ramp**2).round(3)
    array([1.])
    """
    p, q = (x.reshape(len(x), -1) for x in pair(maps, others))
    defined = np.asarray(np.isfinite(p + q).all(1))
    ranks = [rankdata(np.where(defined[:, None], x, 0.0), axis=1) for x in (p, q)]
    return np.where(defined, _correlation(*ranks), np.nan)


def similarity(maps: Maps, others: Maps) -> Float:
    """SIM, the mass that both share, Σ min(p, q): (N,), 1 (same focus) to 0 (disjoint). Bylinskii et al. 2019.

    >>> similarity(np.array([[[1.0, 1.0]]]), np.array([[[1.0, 3.0]]]))
    array([0.75])
    """
    p, q = pair(maps, others)
    return np.minimum(p, q).sum((1, 2))


def ssim(maps: Maps, others: Maps, size: tuple[int, int] = SSIM_SIZE) -> Float:
    """Structural similarity of the maps as pictures: min–max scaled, upsampled to ``size`` (bilinear, half-pixel centres).

    (N,), 1 (same picture) to −1. Equals scikit-image's ``structural_similarity(…, data_range=1, gaussian_weights=True,
    sigma=1.5, use_sample_covariance=False)``; a map that is the same everywhere is a picture of zeros.
    Wang et al. 2004, IEEE Trans. Image Process. 13.

    >>> ramp = np.arange(4.0).reshape(1, 2, 2)
    >>> ssim(ramp, ramp), bool(ssim(ramp, ramp[:, ::-1])[0] < 0.5)
    (array([1.]), True)
    """
    x, y = (_picture(m, size) for m in pair(maps, others))
    border, sigma = 5, (0, 1.5, 1.5)

    def smooth(values: Float) -> Float:
        filtered: Float = gaussian_filter(values, sigma, truncate=3.5)
        return filtered

    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y, both = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2, smooth(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
    structure = (2 * both + 0.03**2) / (var_x + var_y + 0.03**2)
    inside = slice(border, -border)
    return (luminance * structure)[:, inside, inside].mean((1, 2))


def top_overlap(maps: Maps, others: Maps, share: float = TOP_SHARE) -> Float:
    """Intersection over union of the strongest 20 % of the cells: (N,), 1 (same cells) to 0.

    A map's strongest cells are those not below its k-th largest value and above zero, k = ``share`` of the cells, at least
    one; of cells that tie at the limit all are in.

    >>> ramp = np.arange(10.0).reshape(1, 2, 5)
    >>> top_overlap(ramp, ramp), top_overlap(ramp, 9 - ramp)
    (array([1.]), array([0.]))
    """
    p, q = pair(maps, others)
    first, second = _top(p, share), _top(q, share)
    union = (first | second).sum((1, 2))
    overlap = (first & second).sum((1, 2)) / np.maximum(union, 1)
    return np.where(np.isfinite(p + q).all((1, 2)), overlap, np.nan)


def centroid_vector(maps: Maps, others: Maps) -> Float:
    """From the others' centre of mass to the maps', (N, 2): down and right, as shares of the height and the width, −1 to 1.

    >>> left, right = np.array([[[1.0, 0.0]]]), np.array([[[0.0, 1.0]]])
    >>> centroid_vector(right, left)
    array([[0. , 0.5]])
    """
    p, q = pair(maps, others)
    return centroid(p) - centroid(q)


def centroid_shift(maps: Maps, others: Maps) -> Float:
    """Distance of the centres of mass, over √2 (the unit square's diagonal): (N,), 0 to 1.

    >>> left, right = np.array([[[1.0, 0.0]]]), np.array([[[0.0, 1.0]]])
    >>> centroid_shift(right, left).round(3)
    array([0.354])
    """
    return np.linalg.norm(centroid_vector(maps, others), axis=1) / np.sqrt(2)


def wasserstein(maps: Maps, others: Maps) -> Float:
    """Wasserstein-1, the least distance that mass has to travel on average, over the image's diagonal: (N,), 0 to 1.

    Distances are Euclidean between cell centres in the unit square. Exact, as a linear program over the mass that differs:
    equals scipy's ``wasserstein_distance_nd`` / √2. A grid finer than 16 cells a side is averaged in blocks first, since
    the cost grows with the fourth power of the side. Rubner et al. 2000, IJCV 40.

    >>> left, right = np.array([[[1.0, 0.0]]]), np.array([[[0.0, 1.0]]])
    >>> wasserstein(left, right).round(3)
    array([0.354])
    """
    p, q = (blocks(m, FINEST) for m in pair(maps, others))
    _, h, w = p.shape
    rows, columns = np.meshgrid((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w, indexing="ij")
    cells = np.stack([rows.ravel(), columns.ravel()], 1)
    return np.array([_transport(a.ravel(), b.ravel(), cells) for a, b in zip(p, q, strict=True)]) / np.sqrt(2)


def _correlation(x: Float, y: Float) -> Float:
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    scale = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    usable = scale > 1e-15
    return np.where(usable, np.clip((x * y).sum(1) / np.where(usable, scale, 1.0), -1.0, 1.0), np.nan)


def _picture(p: Float, size: tuple[int, int]) -> Float:
    low, high = p.min((1, 2), keepdims=True), p.max((1, 2), keepdims=True)
    scaled = (p - low) / np.where(high - low == 0, 1.0, high - low)
    return interpolation(p.shape[1], size[0]) @ scaled @ interpolation(p.shape[2], size[1]).T


def _top(p: Float, share: float) -> np.ndarray:
    flat = np.sort(np.where(np.isfinite(p), p, 0.0).reshape(len(p), -1), axis=1)
    limit = flat[:, -max(1, round(share * flat.shape[1]))]
    return (p >= limit[:, None, None]) & (p > 0)


def _transport(p: Float, q: Float, cells: Float) -> float:
    """Earth mover's distance of two distributions on the same cells. What both hold in a cell may stay there."""
    if not (np.isfinite(p).all() and np.isfinite(q).all()):
        return float("nan")
    excess = p - q
    give, take = np.flatnonzero(excess > 1e-12), np.flatnonzero(excess < -1e-12)
    if not len(give) or not len(take):
        return 0.0
    supply, demand = excess[give], -excess[take]
    supply, demand = supply / supply.sum(), demand / demand.sum()
    distance = np.linalg.norm(cells[give, None] - cells[None, take], axis=2)
    flows = np.arange(distance.size)
    leaves = csr_array((np.ones(flows.size), (flows // len(take), flows)))
    arrives = csr_array((np.ones(flows.size), (flows % len(take), flows)))
    # One of the equations follows from the others.
    solved = linprog(
        distance.ravel(),
        A_eq=vstack([leaves, arrives], format="csr")[:-1],
        b_eq=np.concatenate([supply, demand])[:-1],
        method="highs",
    )
    return float(solved.fun) * float(np.maximum(excess, 0).sum()) if solved.success else float("nan")
