"""Numbers of a single map: against scipy, and against cases done by hand."""

import numpy as np
import scipy.ndimage
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_maps import P, grids, maps, real_maps

from cam_engine import metrics


def test_centroid_on_a_grid_that_is_not_square():
    m = np.zeros((1, 2, 5))
    m[0, 1, 4], m[0, 0, 0] = 3.0, 1.0
    np.testing.assert_allclose(metrics.centroid(m), [[0.25 / 4 + 3 * 0.75 / 4, 0.1 / 4 + 3 * 0.9 / 4]])


@given(maps())
def test_the_centroid_is_scipys_centre_of_mass(m):
    positive = np.maximum(m, 0)
    _, h, w = m.shape
    expected = [(np.array(scipy.ndimage.center_of_mass(one)) + 0.5) / (h, w) for one in positive]
    np.testing.assert_allclose(metrics.centroid(m), expected, atol=1e-9)


def test_entropy_equals_scipy_on_real_maps(cnn, photos):
    m, _ = real_maps(cnn, photos)
    expected = scipy.stats.entropy(m.double().numpy().reshape(8, -1), axis=1) / np.log(144)
    np.testing.assert_allclose(metrics.entropy(m), expected, rtol=1e-9)


@given(grids.flatmap(lambda grid: maps(grid=grid)), st.floats(1e-3, 1e9))
def test_entropy_equals_scipy_and_is_bounded_and_blind_to_scale(m, factor):
    n = m.shape[1] * m.shape[2]
    expected = scipy.stats.entropy(np.maximum(m, 0).reshape(len(m), n), axis=1) / np.log(n)
    found = metrics.entropy(m)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_allclose(metrics.entropy(m * factor), found, atol=1e-9)


def test_entropy_at_its_ends():
    one = np.zeros((1, 3, 5))
    one[0, 1, 1] = 0.2
    np.testing.assert_allclose(metrics.entropy(np.concatenate([one, np.full((1, 3, 5), 0.3)])), [0, 1])
    assert np.isnan(metrics.entropy(np.ones((2, 1, 1)))).all()  # one cell has no spread


def test_gini_is_half_the_mean_difference_over_the_mean():
    flat = P.reshape(6, -1)
    expected = [np.abs(a[:, None] - a[None]).mean() / (2 * a.mean()) for a in flat]
    np.testing.assert_allclose(metrics.gini(P), expected)


def test_shapes_by_hand():
    corners = np.zeros((1, 40, 40))
    corners[0, 0, 0] = corners[0, -1, -1] = 1.0
    uniform = np.ones((1, 40, 40))
    np.testing.assert_allclose(metrics.spread(np.concatenate([corners, uniform])), [39 / 40, np.sqrt(1 / 3)], atol=2e-4)
    np.testing.assert_allclose(metrics.border_enrichment(np.concatenate([corners, uniform])), [1 / 0.36, 1.0])
    np.testing.assert_allclose(metrics.border_enrichment(np.ones((1, 7, 7))), [1.0])
    inner = np.pad(np.ones((1, 3, 3)), ((0, 0), (2, 2), (2, 2)))
    np.testing.assert_allclose(metrics.border_enrichment(inner), [0.0], atol=1e-12)
    steps = np.array([[[4.0, 3.0, 2.0, 1.0]]])
    np.testing.assert_allclose(metrics.top_mass(steps, 0.25), [0.4])
    np.testing.assert_allclose(metrics.top_mass(steps, 0.375), [0.55])  # one cell and a half
    np.testing.assert_allclose(metrics.top_mass(uniform), [0.1])


def test_eigen_gap_from_the_singular_values():
    rng = np.random.default_rng(0)
    left, _ = np.linalg.qr(rng.normal(size=(8, 3)))
    right = np.linalg.qr(np.concatenate([np.ones((25, 1)), rng.normal(size=(25, 3))], 1))[0][:, 1:]  # mean zero
    made = ((left * [5.0, 4.0, 1.0]) @ right.T).reshape(1, 8, 5, 5) + rng.normal(size=(1, 8, 1, 1))
    np.testing.assert_allclose(metrics.eigen_gap(torch.from_numpy(made)), [0.2])
    one = np.ones((1, 8, 1, 1)) * rng.normal(size=(1, 1, 5, 5))
    np.testing.assert_allclose(metrics.eigen_gap(one), [1.0])
    assert np.isnan(metrics.eigen_gap(np.ones((1, 4, 3, 3))))[0] and np.isnan(metrics.eigen_gap(made * np.nan))[0]
