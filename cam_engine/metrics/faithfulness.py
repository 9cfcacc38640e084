"""Does the model depend on what a map shows? Each number costs extra forwards.

``score`` is a callable images (N, C, H, W) -> (N,) that gives the explained score of each image, a probability where the
names below say confidence; batches and device are its own business. ``heatmaps`` (N, H, W) in [0, 1] are maps at the
images' size (:func:`heatmaps`). An image whose heatmap is not finite gets NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.integrate import trapezoid
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.linalg import spsolve

from cam_engine.metrics.distribution import Float, Maps, as_maps, interpolation, valid

if TYPE_CHECKING:
    from torch import Tensor

Score = Callable[["Tensor"], Any]

PERCENTILES = (20, 40, 60, 80)
STEPS = 20
BLUR = 5 / 224  # of the image's side: RISE's 5 pixels at 224
_NEIGHBOURS = [(y, x, 1 / 6 if 0 in (y, x) else 1 / 12) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


def heatmaps(maps: Maps, size: tuple[int, int]) -> Float:
    """Maps (N, h, w) as pictures: ReLU, min–max scaled, upsampled (bilinear, half-pixel centres) to (N, H, W) in [0, 1].

    NaN throughout for an invalid map.

    >>> heatmaps(np.array([[[-1.0, 2.0, 4.0]]]), (1, 3))
    array([[[0. , 0.5, 1. ]]])
    """
    array = as_maps(maps)
    positive = np.maximum(np.where(valid(array)[:, None, None], array, np.nan), 0)
    low, high = positive.min((1, 2), keepdims=True), positive.max((1, 2), keepdims=True)
    scaled = (positive - low) / np.where(high == low, 1.0, high - low)
    return interpolation(array.shape[1], size[0]) @ scaled @ interpolation(array.shape[2], size[1]).T


def average_drop(score: Score, images: Tensor, heatmaps: Float) -> Float:
    """How much confidence falls when only the highlighted part is shown, max(0, s − s') / s: (N,), 0 (none) to 1 (all).

    s' is the score of the image times its heatmap: zero in the normalised image is what is hidden. Low is better, and a map
    that highlights everything is best of all: read it beside the entropy. Chattopadhyay et al. 2018 (arXiv:1710.11063).

    >>> import torch
    >>> images, left = torch.ones(1, 1, 2, 2), np.array([[[1.0, 0.0], [1.0, 0.0]]])
    >>> average_drop(lambda x: x.mean((1, 2, 3)), images, left)  # half of what counts is hidden
    array([0.5])
    """
    before, after = _before_and_after(score, images, heatmaps)
    return np.maximum(0.0, before - after) / np.maximum(before, 1e-7)


def confidence_increase(score: Score, images: Tensor, heatmaps: Float) -> Float:
    """Does confidence rise when only the highlighted part is shown? (N,), 0 or 1; high is better. Chattopadhyay et al. 2018.

    >>> import torch
    >>> images, left = torch.ones(1, 1, 2, 2), np.array([[[1.0, 0.0], [1.0, 0.0]]])
    >>> confidence_increase(lambda x: x[..., 0].mean((1, 2)) - x[..., 1].mean((1, 2)), images, left)
    array([1.])
    """
    before, after = _before_and_after(score, images, heatmaps)
    return np.where(np.isfinite(after), (after > before).astype(np.float64), np.nan)


def insertion(score: Score, images: Tensor, heatmaps: Float, steps: int = STEPS) -> Float:
    """Area under the score as pixels come back into a blurred image, the hottest first: (N,), the score's range; high is better.

    Petsiuk et al. 2018 (RISE, arXiv:1806.07421).

    >>> import torch
    >>> images, heatmap = torch.zeros(1, 1, 8, 8), np.zeros((1, 8, 8))
    >>> images[:, :, 0, 0] = heatmap[:, 0, 0] = 1
    >>> score = lambda x: x[:, 0, 0, 0]
    >>> bool(insertion(score, images, heatmap)[0] > insertion(score, images, 1 - heatmap)[0])
    True
    """
    sigma = [0, 0] + [BLUR * side for side in images.shape[-2:]]
    blurred = _like(gaussian_filter(images.detach().cpu().numpy(), sigma), images)
    return _area(score, blurred, images, heatmaps, steps)


def deletion(score: Score, images: Tensor, heatmaps: Float, steps: int = STEPS) -> Float:
    """Area under the score as pixels become zero, the hottest first: (N,), the score's range; low is better.

    Zero is in the normalised image, the mean of the data set. Petsiuk et al. 2018.

    >>> import torch
    >>> images, heatmap = torch.zeros(1, 1, 8, 8), np.zeros((1, 8, 8))
    >>> images[:, :, 0, 0] = heatmap[:, 0, 0] = 1
    >>> score = lambda x: x[:, 0, 0, 0]
    >>> deletion(score, images, heatmap).round(3), deletion(score, images, 1 - heatmap).round(3)
    (array([0.025]), array([0.975]))
    """
    return _area(score, images, images * 0, heatmaps, steps)


def road(
    score: Score,
    images: Tensor,
    heatmaps: Float,
    percentiles: Sequence[float] = PERCENTILES,
    noise: float = 0.01,
    seed: int = 0,
) -> Float:
    """ROAD: how much more the score suffers from removing the hottest pixels than the coldest: (N,); above 0 is better.

    (score without the coldest − score without the hottest) / 2, the mean over ``percentiles`` of the heat, from
    which on pixels are removed.
    Removed pixels become what their neighbours let expect (a linear system for each image) plus seeded Gaussian noise, so
    that the hole itself tells nothing. Rong et al. 2022 (arXiv:2202.00449); equals grad-cam's ``ROADCombined`` at
    ``noise=0``.

    >>> import torch
    >>> images, heatmap = torch.zeros(1, 1, 8, 8), np.arange(64.0).reshape(1, 8, 8) / 63
    >>> images[:, :, 4:] = 1  # the hot half
    >>> bool(road(lambda x: x[:, 0, 7].mean(1), images, heatmap)[0] > 0)
    True
    """
    total = np.zeros(len(images))
    for percentile in percentiles:
        cold = _imputed(images, heatmaps, percentile, hottest=False, noise=noise, seed=seed)
        hot = _imputed(images, heatmaps, percentile, hottest=True, noise=noise, seed=seed)
        total += (_numbers(score(cold)) - _numbers(score(hot))) / 2
    return np.where(_usable(heatmaps), total / len(percentiles), np.nan)


def impute(image: Float, keep: Any, noise: Float | float = 0.0) -> Float:
    """Fill the pixels of an image (C, H, W) where ``keep`` (H, W) is False: each the weighted mean of its eight neighbours
    (1/6 at a side, 1/12 at a corner), known or filled, plus ``noise`` (C, holes)."""
    _, height, width = image.shape
    holes = np.flatnonzero(~np.asarray(keep).ravel())
    if not holes.size or holes.size == height * width:
        return image.copy()
    flat = image.reshape(len(image), -1)
    unknown = np.full(height * width, -1)
    unknown[holes] = np.arange(holes.size)
    rows, columns = np.divmod(holes, width)
    weights = np.zeros(holes.size)
    known = np.zeros((holes.size, len(image)))
    entries: list[tuple[Any, Any, Any]] = []
    for down, right, weight in _NEIGHBOURS:
        y, x = rows + down, columns + right
        here = np.flatnonzero((y >= 0) & (y < height) & (x >= 0) & (x < width))
        neighbour = y[here] * width + x[here]
        weights[here] += weight
        given = unknown[neighbour] < 0
        known[here[given]] += weight * flat[:, neighbour[given]].T
        open_ = here[~given]
        entries.append((open_, unknown[neighbour[~given]], np.full(open_.size, -weight)))
    entries.append((np.arange(holes.size), np.arange(holes.size), weights))
    row, column, value = (np.concatenate(part) for part in zip(*entries, strict=True))
    system = coo_array((value, (row, column)), shape=(holes.size, holes.size)).tocsc()
    filled = flat.astype(np.float64, copy=True)
    filled[:, holes] = spsolve(system, known).reshape(holes.size, -1).T + noise
    return filled.reshape(image.shape)


def _before_and_after(score: Score, images: Tensor, heatmaps: Float) -> tuple[Float, Float]:
    usable = _usable(heatmaps)
    masked = images * _like(np.nan_to_num(heatmaps), images)[:, None]
    return _numbers(score(images)), np.where(usable, _numbers(score(masked)), np.nan)


def _area(score: Score, start: Tensor, finish: Tensor, heatmaps: Float, steps: int) -> Float:
    """Mean score, by the trapezium rule, while ``start`` becomes ``finish`` in ``steps`` equal parts, the hottest first."""
    order = np.argsort(-np.nan_to_num(heatmaps).reshape(len(heatmaps), -1), axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(order.shape[1]), order.shape), axis=1)
    share = _like((rank / order.shape[1]).reshape(heatmaps.shape), start)[:, None]
    curve = np.stack([_numbers(score(start.where(share >= step / steps, finish))) for step in range(steps + 1)])
    return np.where(_usable(heatmaps), trapezoid(curve, dx=1 / steps, axis=0), np.nan)


def _imputed(images: Tensor, heatmaps: Float, percentile: float, hottest: bool, noise: float, seed: int) -> Tensor:
    generator = np.random.default_rng(seed)
    arrays = images.detach().cpu().double().numpy()
    heats = np.nan_to_num(heatmaps) if hottest else 1 - np.nan_to_num(heatmaps)
    filled = []
    for image, heat in zip(arrays, heats, strict=True):
        keep = heat < np.percentile(heat, percentile)
        extra = noise * generator.standard_normal((len(image), int((~keep).sum()))) if noise else 0.0
        filled.append(impute(image, keep, extra))
    return _like(np.stack(filled), images)


def _usable(heatmaps: Float) -> Any:
    return np.isfinite(heatmaps).all((1, 2))


def _like(array: Any, images: Tensor) -> Tensor:
    import torch

    return torch.as_tensor(array, dtype=images.dtype, device=images.device)


def _numbers(scores: Any) -> Float:
    if hasattr(scores, "detach"):
        scores = scores.detach().cpu().double().numpy()
    return np.asarray(scores, dtype=np.float64)
