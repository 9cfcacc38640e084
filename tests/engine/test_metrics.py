"""The numbers against scipy, against cases done by hand, and against what must hold for every map."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.spatial.distance
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cam_engine import CAM, metrics

settings.register_profile("engine", deadline=None, max_examples=60)
settings.load_profile("engine")

UNMAPPED = [np.zeros((3, 4)), np.full((3, 4), np.nan), np.full((3, 4), 1e-14), -np.ones((3, 4))]
UNMAPPED += [np.where(np.arange(12).reshape(3, 4) == 5, bad, 1.0) for bad in (np.inf, -np.inf, np.nan)]
IDS = ["zero", "NaN", "below the floor", "negative", "one inf", "one -inf", "one NaN"]


@st.composite
def maps(draw, n=None, grid=None, count=1):
    """``count`` arrays (n, h, w) of the same shape: valid maps with zeros, negative values and very different sizes."""
    grid = grid or draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    shape = (draw(st.integers(1, 4)) if n is None else n, *grid)
    cells = st.one_of(st.just(0.0), st.floats(-5, 5, allow_subnormal=False), st.floats(1e-9, 1e6))
    found = []
    for _ in range(count):
        one = draw(arrays(np.float64, shape, elements=cells))
        at = draw(st.integers(0, shape[1] * shape[2] - 1))
        one.reshape(shape[0], -1)[:, at] = np.abs(one.reshape(shape[0], -1)[:, at]) + 1e-3  # some mass
        found.append(one)
    return found[0] if count == 1 else found


grids = st.tuples(st.integers(1, 6), st.integers(1, 6)).filter(lambda g: g[0] * g[1] > 1)


def real_maps(cnn, photos):
    result = CAM(cnn, ["gradcam", "layercam"], "stage1")(photos, 1)
    return result.raw["gradcam", "stage1"], result.raw["layercam", "stage1"]


# --- distributions ---


@given(maps())
def test_a_distribution_is_the_relu_over_its_sum(m):
    p = metrics.distributions(m)
    positive = np.where(m > 0, m, 0)
    np.testing.assert_allclose(p, positive / positive.sum((1, 2), keepdims=True), rtol=1e-12, atol=0)
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


# --- drift ---


def scipy_jsd(p, q):
    return scipy.spatial.distance.jensenshannon(p.ravel(), q.ravel(), base=2) ** 2


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


@given(maps(count=2))
def test_centroid_shift_is_symmetric_and_bounded(pair):
    p, q = pair
    shift = metrics.centroid_shift(p, q)
    assert ((shift >= 0) & (shift < 1)).all()
    np.testing.assert_allclose(shift, metrics.centroid_shift(q, p), atol=1e-12)
    np.testing.assert_allclose(metrics.centroid_shift(p[:, ::-1, ::-1], q[:, ::-1, ::-1]), shift, atol=1e-9)


# --- entropy ---


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


# --- localisation ---


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


# --- consensus ---


def test_consensus_by_hand():
    same = np.stack([np.eye(3)] * 4)
    np.testing.assert_allclose(metrics.consensus(same), 1)
    apart = np.array([[[1.0, 0]], [[0, 1.0]]])  # each against the mean (½, ½)
    jsd = scipy_jsd(np.array([1.0, 0]), np.array([0.5, 0.5]))
    np.testing.assert_allclose(metrics.consensus(apart), [1 - jsd] * 2)


@given(maps(n=4), st.floats(1e-2, 1e3))
def test_consensus_equals_scipy_and_gives_every_image_the_same_say(m, factor):
    p = np.maximum(m, 0).reshape(4, -1)
    p = p / p.sum(1, keepdims=True)
    expected = [1 - np.nan_to_num(scipy_jsd(one, p.mean(0))) for one in p]
    found = metrics.consensus(m)
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert ((found >= 0) & (found <= 1)).all()
    louder = m * np.array([factor, 1, 1, 1])[:, None, None]
    np.testing.assert_allclose(metrics.consensus(louder), found, atol=1e-9)


def test_consensus_needs_two_valid_maps():
    lonely = np.stack([np.ones((2, 2)), np.zeros((2, 2)), np.full((2, 2), np.nan)])
    assert np.isnan(metrics.consensus(lonely)).all()
