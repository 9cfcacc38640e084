"""Numbers between two maps: against scipy and scikit-image, with the options that make them agree, and by hand."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_maps import P, Q, each, maps, real_maps, scipy_jsd, some_maps
from scipy.spatial.distance import jensenshannon
from skimage.metrics import structural_similarity

from cam_engine import metrics


def test_jensen_shannon_equals_scipy_on_real_maps(cnn, photos):
    first, second = real_maps(cnn, photos)
    expected = [scipy_jsd(p.double().numpy(), q.double().numpy()) for p, q in zip(first, second, strict=True)]
    assert max(expected) > 0.01
    np.testing.assert_allclose(metrics.jensen_shannon(first, second), expected, rtol=1e-9)


@given(maps(count=2))
def test_jensen_shannon_equals_scipy(pair):
    p, q = (np.maximum(m, 0) for m in pair)
    expected = [scipy_jsd(a, b) for a, b in zip(p, q, strict=True)]
    np.testing.assert_allclose(metrics.jensen_shannon(*pair), np.nan_to_num(expected), atol=1e-7)


@given(maps(count=2), st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_jensen_shannon_is_symmetric_bounded_and_blind_to_scale(pair, a, b):
    p, q = (np.where(m > 0, m, 0) for m in pair)
    there = metrics.jensen_shannon(p, q)
    np.testing.assert_allclose(there, metrics.jensen_shannon(q, p), atol=1e-12)
    assert ((there >= 0) & (there <= 1)).all()
    same_mass = np.minimum(p.sum((1, 2)) * a, q.sum((1, 2)) * b) > 1e-12  # stays valid
    np.testing.assert_allclose(metrics.jensen_shannon(p * a, q * b)[same_mass], there[same_mass], atol=1e-9)
    np.testing.assert_allclose(metrics.jensen_shannon(p, p), 0, atol=1e-12)


def test_jensen_shannon_by_hand():
    left, right, both = np.array([[[1.0, 0]]]), np.array([[[0, 3.0]]]), np.array([[[1.0, 1.0]]])
    np.testing.assert_allclose(metrics.jensen_shannon(left, right), [1.0])
    # m = (3/4, 1/4): ½·log₂(4/3) + ½·(½·log₂(2/3) + ½·log₂ 2)
    np.testing.assert_allclose(metrics.jensen_shannon(left, both), [0.5 * np.log2(4 / 3) + 0.25 * (np.log2(2 / 3) + 1)])


def test_maps_of_different_grids_are_never_compared():
    with pytest.raises(ValueError, match="different grids"):
        metrics.jensen_shannon(np.ones((2, 3, 3)), np.ones((2, 6, 6)))
    with pytest.raises(ValueError, match="different grids"):
        metrics.centroid_shift(np.ones((1, 3, 3)), np.ones((2, 3, 3)))


def test_centroid_shift_by_hand():
    corner, opposite, side = np.zeros((3, 1, 4, 4))
    corner[0, 0, 0] = opposite[0, 3, 3] = 2.0
    side[0, 0, 3] = 5.0
    np.testing.assert_allclose(metrics.centroid(corner), [[0.125, 0.125]])
    np.testing.assert_allclose(metrics.centroid(side), [[0.125, 0.875]])
    np.testing.assert_allclose(metrics.centroid_shift(corner, opposite), [0.75])  # 0.75·√2 / √2
    np.testing.assert_allclose(metrics.centroid_shift(corner, side), [0.75 / np.sqrt(2)])
    np.testing.assert_allclose(metrics.centroid_shift(corner, corner + opposite), [0.375])


@given(maps(count=2))
def test_centroid_shift_is_symmetric_and_bounded(pair):
    p, q = pair
    shift = metrics.centroid_shift(p, q)
    assert ((shift >= 0) & (shift < 1)).all()
    np.testing.assert_allclose(shift, metrics.centroid_shift(q, p), atol=1e-12)
    np.testing.assert_allclose(metrics.centroid_shift(p[:, ::-1, ::-1], q[:, ::-1, ::-1]), shift, atol=1e-9)


def test_drifts_equal_scipys():
    flat = P.reshape(6, -1), Q.reshape(6, -1)
    np.testing.assert_allclose(metrics.jensen_shannon(P, Q), each(lambda a, b: jensenshannon(a, b, base=2) ** 2, *flat))
    np.testing.assert_allclose(metrics.correlation(P, Q), each(lambda a, b: scipy.stats.pearsonr(a, b)[0], *flat))
    np.testing.assert_allclose(metrics.spearman(P, Q), each(lambda a, b: scipy.stats.spearmanr(a, b)[0], *flat))
    assert np.isnan(metrics.correlation(np.ones((1, 3, 3)), P[:1, :3, :3]))[0]


@pytest.mark.parametrize("grid", [(7, 5), (1, 9), (6, 6)])
def test_wasserstein_equals_scipys_in_two_dimensions(grid):
    p, q = some_maps(3, 4, grid) + 1e-3, some_maps(4, 4, grid) + 1e-3
    rows, columns = np.meshgrid(
        (np.arange(grid[0]) + 0.5) / grid[0], (np.arange(grid[1]) + 0.5) / grid[1], indexing="ij"
    )
    cells = np.stack([rows.ravel(), columns.ravel()], 1)
    expected = each(lambda a, b: scipy.stats.wasserstein_distance_nd(cells, cells, a.ravel(), b.ravel()), p, q)
    np.testing.assert_allclose(metrics.wasserstein(p, q), np.array(expected) / np.sqrt(2), rtol=1e-6)
    assert (metrics.wasserstein(p, q) >= metrics.centroid_shift(p, q) - 1e-9).all()  # Jensen's inequality


def test_wasserstein_on_a_fine_grid_is_that_of_its_blocks():
    p, q = some_maps(5, 2, (28, 30)), some_maps(6, 2, (28, 30))
    moved = np.zeros((2, 1, 28, 30))
    moved[0, 0, :14, :15] = moved[1, 0, 14:, 15:] = 1  # half the image down and right
    np.testing.assert_allclose(metrics.wasserstein(moved[0], moved[1]), [0.5], atol=0.01)
    assert (metrics.wasserstein(p, q) < 0.2).all()


def test_ssim_equals_scikit_images_on_the_upsampled_pictures():
    def picture(m):
        scaled = torch.from_numpy((m - m.min()) / (m.max() - m.min()))[None, None]
        return torch.nn.functional.interpolate(scaled, size=(64, 64), mode="bilinear", align_corners=False)[
            0, 0
        ].numpy()

    expected = each(
        lambda a, b: structural_similarity(
            picture(a), picture(b), data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        ), P, Q)  # fmt: skip
    np.testing.assert_allclose(metrics.ssim(P, Q), expected, rtol=1e-9)


def test_similarity_overlap_and_vector_by_hand():
    a, b = np.zeros((2, 1, 4, 5))
    a[0, 0, :4] = b[0, 0, 2:] = b[0, 3, 4] = 1.0
    np.testing.assert_allclose(metrics.similarity(a, b), [0.5])
    np.testing.assert_allclose(metrics.top_overlap(a, b), [2 / 6])
    a, b = np.zeros((2, 1, 4, 4))
    a[0, 3, 0] = b[0, 0, 0] = 1
    np.testing.assert_allclose(metrics.centroid_vector(a, b), [[0.75, 0.0]])
