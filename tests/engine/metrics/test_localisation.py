"""Numbers of a map and a region: against scikit-learn, and against cases done by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made_maps import P, boxes, each, grids, maps
from sklearn.metrics import roc_auc_score

from cam_engine import metrics


def test_coverage_by_hand_where_cells_divide_the_pixels():
    mask = np.zeros((1, 4, 6), bool)
    mask[0, :2, :3] = True
    mask[0, 3, 5] = True
    np.testing.assert_array_equal(metrics.coverage(mask, (2, 2)), [[[1, 0], [0, 1 / 6]]])
    np.testing.assert_array_equal(metrics.coverage(mask, (4, 6)), mask)


def test_coverage_by_hand_where_a_pixel_is_shared():
    mask = np.array([[[0, 1, 0]]])  # three pixels on two cells: the middle one is half in each
    np.testing.assert_allclose(metrics.coverage(mask, (1, 2)), [[[1 / 3, 1 / 3]]])
    mask = np.array([[[1, 0, 0, 0, 0]]])  # five on three: a cell is 5/3 pixels wide
    np.testing.assert_allclose(metrics.coverage(mask, (1, 3)), [[[0.6, 0, 0]]])
    mask = np.array([[[0, 1, 0, 0, 0]]])  # 2/3 of it in the first cell, 1/3 in the second
    np.testing.assert_allclose(metrics.coverage(mask, (1, 3)), [[[0.4, 0.2, 0]]])
    corner = np.zeros((1, 3, 3))
    corner[0, 1, 1] = 1  # shared by four cells, a quarter each, of 2.25 pixels
    np.testing.assert_allclose(metrics.coverage(corner, (2, 2)), np.full((1, 2, 2), 0.25 / 2.25))


def test_coverage_of_fewer_pixels_than_cells():
    mask = np.array([[[True, False]]])
    np.testing.assert_allclose(metrics.coverage(mask, (1, 3)), [[[1, 0.5, 0]]])


def test_coverage_takes_tensors():
    mask = torch.tensor([[[True, False], [False, False]]])
    np.testing.assert_array_equal(metrics.coverage(mask, (1, 1)), [[[0.25]]])


def test_coverage_of_masks_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(N, H, W\)"):
        metrics.coverage(np.ones((4, 4)), (2, 2))


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 13), st.integers(1, 13)).flatmap(lambda shape: arrays(bool, shape)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_coverage_keeps_the_mean_and_is_a_fraction(masks, grid):
    found = metrics.coverage(masks, grid)
    assert found.shape == (len(masks), *grid)
    np.testing.assert_allclose(found.mean((1, 2)), masks.mean((1, 2)), atol=1e-12)
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-12
    # Exactly: enlarge both to a common multiple, then average whole pixels.
    _, H, W = masks.shape
    big = masks.repeat(grid[0], 1).repeat(grid[1], 2)
    np.testing.assert_allclose(found, big.reshape(-1, grid[0], H, grid[1], W).mean((2, 4)), atol=1e-12)


def test_enrichment_by_hand():
    m = np.array([[[4.0, 1.0], [3.0, -2.0]]])
    region = np.array([[[1.0, 0.5], [0.0, 0.0]]])
    np.testing.assert_allclose(metrics.on_target_mass(m, region), [4.5 / 8])
    np.testing.assert_allclose(metrics.enrichment(m, region), [4.5 / 8 / 0.375])


regions = grids.flatmap(
    lambda g: st.tuples(maps(grid=g, n=2), arrays(np.float64, (2, *g), elements=st.floats(0.01, 0.99)))
)


@given(regions, st.floats(1e-3, 1e6))
def test_chance_is_one_for_a_uniform_map_and_the_bounds_hold(pair, factor):
    m, region = pair
    np.testing.assert_allclose(metrics.enrichment(np.full_like(m, factor), region), 1)
    found, area = metrics.enrichment(m, region), region.mean((1, 2))
    assert (found >= 0).all()
    assert (found <= (1 + 1e-9) / area).all()
    np.testing.assert_allclose(metrics.enrichment(m * factor, region), found, rtol=1e-9)
    np.testing.assert_allclose(metrics.on_target_mass(m, region) / area, found, rtol=1e-9)
    np.testing.assert_allclose(metrics.on_target_mass(m, np.ones_like(region)), 1)  # everything is on the whole image
    off_target = metrics.on_target_mass(m, 1 - region)
    np.testing.assert_allclose(metrics.on_target_mass(m, region) + off_target, 1, rtol=1e-9)


def test_an_empty_region_has_no_enrichment():
    m, region = np.ones((2, 2, 2)), np.zeros((2, 2, 2))
    region[1, 0, 0] = 1
    for number in (metrics.enrichment(m, region), metrics.on_target_mass(m, region)):
        assert np.isnan(number).tolist() == [True, False]


def test_a_region_on_another_grid_is_refused():
    with pytest.raises(ValueError, match="coverage"):
        metrics.enrichment(np.ones((1, 3, 3)), np.ones((1, 6, 6)))


def test_pixel_auc_equals_scikit_learns():
    region = boxes()
    expected = each(lambda m, r: roc_auc_score(r.ravel(), m.ravel()), P, region)
    np.testing.assert_allclose(metrics.pixel_auc(P, region), expected)
    assert np.isnan(metrics.pixel_auc(P, np.ones_like(P))).all()


def test_rank_accuracy_is_the_expectation_over_ties():
    m, region = P[:1], boxes()[:1]
    k, rng = int(region.sum()), np.random.default_rng(0)
    draws = []
    for _ in range(4000):
        order = np.lexsort((rng.random(35), -m[0].ravel()))[:k]
        draws.append(region[0].ravel()[order].mean())
    flat = np.where(m > np.sort(m.ravel())[-4], m, 0)  # only three cells left, the rest ties at zero
    np.testing.assert_allclose(metrics.rank_accuracy(m, region), np.mean(draws), atol=0.01)
    top = region[0].ravel()[np.argsort(-flat.ravel())[:3]].sum()
    rest = (k - 3) * (region.sum() - top) / (35 - 3)
    np.testing.assert_allclose(metrics.rank_accuracy(flat, region), [(top + rest) / k])


def test_pointing_game_by_hand():
    m, region = np.zeros((2, 4, 4)), np.zeros((2, 4, 4))
    m[:, 1, 1] = 2.0
    m[1, 3, 3] = 2.0  # a tie
    region[:, 1, 2] = region[:, 3, 3] = 1
    np.testing.assert_allclose(metrics.pointing_game(m, region), [0.0, 0.5])
    np.testing.assert_allclose(metrics.pointing_game(m, region, tolerance=1), [1.0, 1.0])
    region[:, 1, 1] = 0.25
    np.testing.assert_allclose(metrics.pointing_game(m, region), [0.25, 0.625])
