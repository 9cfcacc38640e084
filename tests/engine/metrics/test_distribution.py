"""Maps as distributions, and what holds for every number of a map."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_maps import P, Q, boxes, maps

from cam_engine import metrics
from cam_engine.metrics.distribution import interpolation

UNMAPPED = [np.zeros((3, 4)), np.full((3, 4), np.nan), np.full((3, 4), 1e-14), -np.ones((3, 4))]


UNMAPPED += [np.where(np.arange(12).reshape(3, 4) == 5, bad, 1.0) for bad in (np.inf, -np.inf, np.nan)]


IDS = ["zero", "NaN", "below the floor", "negative", "one inf", "one -inf", "one NaN"]


@given(maps())
def test_a_distribution_is_the_relu_over_its_sum(m):
    p = metrics.distributions(m)
    positive = np.where(m > 0, m, 0)
    expected = positive / positive.sum((1, 2), keepdims=True)
    np.testing.assert_allclose(p, expected, rtol=1e-12, atol=1e-300)  # below, float64 has fewer digits
    np.testing.assert_allclose(p.sum((1, 2)), 1)


def test_tensors_of_any_precision_become_float64():
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        m = torch.tensor([[[1.0, 3.0], [0.0, 4.0]]], dtype=dtype, requires_grad=True)
        p = metrics.distributions(m)
        assert p.dtype == np.float64
        np.testing.assert_array_equal(p, [[[0.125, 0.375], [0, 0.5]]])


@pytest.mark.parametrize("bad", UNMAPPED, ids=IDS)
def test_a_degenerate_map_is_nan_in_every_number_and_alone_in_that(bad):
    good = np.arange(12.0).reshape(3, 4)
    stack, other = np.stack([good, bad, good**2]), np.stack([good + 1] * 3)
    region = np.stack([good > 6] * 3)
    assert metrics.valid(stack).tolist() == [True, False, True]
    numbers = [
        metrics.entropy(stack),
        metrics.jensen_shannon(stack, other),
        metrics.jensen_shannon(other, stack),
        metrics.centroid_shift(stack, other),
        metrics.centroid_shift(other, stack),
        metrics.on_target_mass(stack, region),
        metrics.enrichment(stack, region),
        metrics.consensus(stack),
        metrics.centroid(stack)[:, 0],
        metrics.distributions(stack)[:, 1, 1],
    ]
    without = [
        metrics.entropy(stack[[0, 2]]),
        metrics.jensen_shannon(stack[[0, 2]], other[[0, 2]]),
        metrics.jensen_shannon(other[[0, 2]], stack[[0, 2]]),
        metrics.centroid_shift(stack[[0, 2]], other[[0, 2]]),
        metrics.centroid_shift(other[[0, 2]], stack[[0, 2]]),
        metrics.on_target_mass(stack[[0, 2]], region[[0, 2]]),
        metrics.enrichment(stack[[0, 2]], region[[0, 2]]),
        metrics.consensus(stack[[0, 2]]),
        metrics.centroid(stack[[0, 2]])[:, 0],
        metrics.distributions(stack[[0, 2]])[:, 1, 1],
    ]
    for number, expected in zip(numbers, without, strict=True):
        assert np.isnan(number[1])
        np.testing.assert_allclose(number[[0, 2]], expected, rtol=1e-12)


def test_the_floor_of_mass_is_1e_12():
    assert metrics.valid(np.array([[[1.0e-12, 1e-15]], [[0.9e-12, 0.0]]])).tolist() == [True, False]


@pytest.mark.parametrize("shape", [(3, 3), (1, 1, 3, 3)])
def test_maps_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(N, h, w\)"):
        metrics.entropy(np.ones(shape))


DRIFTS = [
    "jensen_shannon",
    "correlation",
    "similarity",
    "spearman",
    "ssim",
    "top_overlap",
    "centroid_shift",
    "wasserstein",
]


SHAPES = ["entropy", "gini", "spread", "border_enrichment", "top_mass"]


PLACES = ["on_target_mass", "enrichment", "pointing_game", "rank_accuracy", "pixel_auc"]


@pytest.mark.parametrize("name", DRIFTS + SHAPES + PLACES)
def test_a_degenerate_map_is_nan_alone_and_scale_is_nothing(name):
    function, region = getattr(metrics, name), boxes()
    others = {**dict.fromkeys(DRIFTS, (Q,)), **dict.fromkeys(SHAPES, ()), **dict.fromkeys(PLACES, (region,))}[name]
    plain = function(P, *others)
    assert plain.shape == (6,) and np.isfinite(plain).all()
    np.testing.assert_allclose(function(torch.from_numpy(P * 1e6), *others), plain, atol=1e-9)
    broken = P.copy()
    broken[1], broken[4, 2, 2] = 0, np.nan
    with np.errstate(all="raise"):
        found = function(broken, *others)
    assert np.isnan(found).tolist() == [False, True, False, False, True, False]
    np.testing.assert_allclose(found[[0, 2, 3, 5]], plain[[0, 2, 3, 5]], rtol=1e-9)
    if name in DRIFTS:
        assert np.isnan(function(Q, broken)).tolist() == [False, True, False, False, True, False]
        np.testing.assert_allclose(function(Q, P), plain, atol=1e-9)
        same = function(P, P)
        np.testing.assert_allclose(same, 1.0 if name in DRIFTS[1:6] else 0.0, atol=1e-9)
        with pytest.raises(ValueError, match="different grids"):
            function(P, np.ones((6, 3, 3)))
    if name in PLACES:
        assert np.isnan(function(P, region * np.array([1, 0, 1, 1, 1, 1])[:, None, None]))[1]


@given(st.integers(1, 9), st.integers(1, 40))
def test_interpolation_is_torchs(cells, pixels):
    rows = torch.rand(2, cells, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(cells))
    theirs = torch.nn.functional.interpolate(rows[:, None], size=(pixels, 1), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(interpolation(cells, pixels) @ rows.numpy(), theirs[:, 0].numpy(), atol=1e-12)
