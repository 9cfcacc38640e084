"""The numbers beside the default ones: against scipy, scikit-image and scikit-learn, with the options that make them agree,
and against cases done by hand."""

import itertools

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from skimage.metrics import structural_similarity
from sklearn.metrics import roc_auc_score

from cam_engine import metrics
from cam_engine.metrics.distribution import interpolation

settings.register_profile("engine", deadline=None, max_examples=60)
settings.load_profile("engine")

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


def some_maps(seed, n=6, grid=(7, 5)):
    """Maps as ReLU leaves them: a focus, and zeros that tie."""
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(size=(n, *grid)) + 3 * (rng.random((n, *grid)) > 0.9), 0)


def boxes(n=6, grid=(7, 5), seed=0):
    rng = np.random.default_rng(seed)
    found = np.zeros((n, *grid))
    for one in found:
        top, left = rng.integers(0, grid[0] - 2), rng.integers(0, grid[1] - 2)
        one[top : top + 2, left : left + 3] = 1
    return found


P, Q = some_maps(1), some_maps(2)


def each(function, *stacks):
    return [function(*one) for one in zip(*stacks, strict=True)]


# --- what holds for all ---


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


# --- drift ---


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


@given(st.integers(1, 9), st.integers(1, 40))
def test_interpolation_is_torchs(cells, pixels):
    rows = torch.rand(2, cells, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(cells))
    theirs = torch.nn.functional.interpolate(rows[:, None], size=(pixels, 1), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(interpolation(cells, pixels) @ rows.numpy(), theirs[:, 0].numpy(), atol=1e-12)


def test_similarity_overlap_and_vector_by_hand():
    a, b = np.zeros((2, 1, 4, 5))
    a[0, 0, :4] = b[0, 0, 2:] = b[0, 3, 4] = 1.0
    np.testing.assert_allclose(metrics.similarity(a, b), [0.5])
    np.testing.assert_allclose(metrics.top_overlap(a, b), [2 / 6])
    a, b = np.zeros((2, 1, 4, 4))
    a[0, 3, 0] = b[0, 0, 0] = 1
    np.testing.assert_allclose(metrics.centroid_vector(a, b), [[0.75, 0.0]])


# --- shape ---


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


# --- localisation ---


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


# --- over the probe ---


def test_max_t_from_scipys_paired_t_under_every_flip():
    """Eight images have 256 flips, so all are made."""
    p, q = (metrics.distributions(some_maps(seed, 8, (3, 3)) + 0.1) for seed in (7, 8))
    p[:, 0, 0] += 0.1
    found = metrics.max_t(p, q)
    p, q = metrics.distributions(p), metrics.distributions(q)
    np.testing.assert_allclose(found.t, scipy.stats.ttest_rel(p, q, axis=0).statistic)

    def largest(difference):
        return np.abs(scipy.stats.ttest_1samp(difference, 0).statistic).max()

    signs = np.array(list(itertools.product((1, -1), repeat=8)))[:, :, None, None]
    every = np.array([largest((p - q) * sign) for sign in signs])
    assert 0.01 < found.p == pytest.approx(np.mean(every >= largest(p - q) * (1 - 1e-9)))
    assert (found.statistic, found.n) == (pytest.approx(np.abs(found.t).max()), 8)
    assert found.critical == pytest.approx(np.sort(every)[-13])  # 12 of 256, fewer than 5 %, are larger


def test_max_t_holds_its_level_and_finds_a_move():
    level = [metrics.max_t(some_maps(2 * s, 20, (4, 4)), some_maps(2 * s + 1, 20, (4, 4)), 200).p for s in range(200)]
    assert np.mean(np.array(level) <= 0.05) < 0.09  # 0.05 and three standard errors
    moved = some_maps(1, 20, (4, 4))
    moved[:, 2, 3] += 2.0
    found = metrics.max_t(moved, some_maps(2, 20, (4, 4)))
    assert found.p == pytest.approx(1 / 1001) and np.unravel_index(found.t.argmax(), (4, 4)) == (2, 3)
    assert (found.t > found.critical).sum() == 1
    assert found.p == metrics.max_t(moved, some_maps(2, 20, (4, 4))).p


def test_max_t_at_its_ends():
    same = metrics.max_t(P, P)
    assert (same.p, same.statistic) == (1.0, 0.0)
    alone = metrics.max_t(P[:1], Q[:1])
    assert np.isnan(alone.p) and alone.n == 1
    one, other = np.zeros((8, 2, 2)), np.zeros((8, 2, 2))
    one[:, 0, 0], other[:, 1, 1] = 1, 1  # the same move on every image: no variance at all
    assert metrics.max_t(one, other).p == pytest.approx(2 / 256)
    broken = P.copy()
    broken[2] = 0
    assert metrics.max_t(broken, Q).n == 5


def test_counterfactual_gap():
    gap = metrics.counterfactual_gap([True, True, True, False], [False, True, False, True])
    assert gap.tolist() == [1, 0, 1, -1] and gap.mean() == 0.75 - 0.5
    with pytest.raises(ValueError, match="equal are needed"):
        metrics.counterfactual_gap([True], [True, False])


def test_aggregates_equal_scipys_bootstrap():
    values = np.random.default_rng(0).gamma(2.0, size=64)
    with_gaps = np.insert(values, [3, 20], np.nan)
    found = metrics.aggregate(with_gaps, groups=["a", "b"] * 33)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=0
    ).confidence_interval
    np.testing.assert_allclose([found["low"], found["high"]], theirs, atol=0.04)
    assert found["n"] == 64 and found["mean"] == pytest.approx(values.mean())
    assert found["group:a"] == pytest.approx(np.nanmean(with_gaps[::2]))
    assert metrics.worst_tenth(with_gaps, True) == pytest.approx(np.sort(values)[-6:].mean())
    nothing = metrics.aggregate(np.full(3, np.nan), labels=[0, 1, 1], groups=["a", "a", "b"])
    assert nothing["n"] == 0 and all(np.isnan(v) for k, v in nothing.items() if k != "n")


# --- faithfulness ---


class Corner:
    """Confidence is the mean of the top left quarter."""

    def __init__(self):
        self.seen = 0

    def __call__(self, images):
        self.seen += len(images)
        return images[:, :, :8, :8].mean((1, 2, 3)).clamp(0, 1)


@pytest.fixture
def bright():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.8


def quarters(right):
    heat = np.zeros((3, 16, 16)) + np.arange(256).reshape(16, 16) * 1e-6
    heat[:, :8, :8] += 1 if right else 0
    heat[:, 8:, 8:] += 0 if right else 1
    return heat / heat.max()


def test_faithfulness_tells_a_right_map_from_a_wrong_one(bright):
    score, right, wrong = Corner(), quarters(True), quarters(False)
    before = score(bright).double().numpy()
    np.testing.assert_allclose(metrics.average_drop(score, bright, right), 1 - right[0, :8, :8].mean(), atol=1e-3)
    assert (metrics.average_drop(score, bright, wrong) > 0.99).all()
    assert not metrics.confidence_increase(score, bright, right).any()
    # A quarter of the pixels carries the score: linear over a quarter of the way, then level.
    np.testing.assert_allclose(metrics.deletion(score, bright, right, 64), before / 8, rtol=0.02)
    np.testing.assert_allclose(metrics.deletion(score, bright, wrong, 64), before * 0.62, rtol=0.25)
    assert (metrics.insertion(score, bright, right) >= metrics.insertion(score, bright, wrong) - 0.01).all()
    unusable = right.copy()
    unusable[1] = np.nan
    for name in ("average_drop", "confidence_increase", "insertion", "deletion", "road"):
        found = getattr(metrics, name)(score, bright, unusable)
        assert np.isnan(found).tolist() == [False, True, False], name


def test_road_is_seeded_and_prefers_the_right_map():
    cue = torch.zeros(2, 1, 16, 16)
    cue[:, :, 2:6, 2:6] = 1.0  # a bright spot in the corner that is scored
    right, wrong = (np.repeat(h[:1], 2, 0) for h in (cue[:, 0].numpy() + 0.0, quarters(False)))
    right = right + np.random.default_rng(0).random(right.shape) * 1e-3
    first = metrics.road(Corner(), cue, right, percentiles=(80, 90))
    np.testing.assert_array_equal(first, metrics.road(Corner(), cue, right, percentiles=(80, 90)))
    assert (first > 0.1).all() and (first > 2 * metrics.road(Corner(), cue, wrong, percentiles=(80, 90))).all()


def test_heatmaps_are_the_pictures_of_maps():
    broken = P.copy()
    broken[3] = 0
    found = metrics.heatmaps(broken, (21, 20))
    assert found.shape == (6, 21, 20) and np.isnan(found).all((1, 2)).tolist() == [False] * 3 + [True] + [False] * 2
    scaled = torch.from_numpy(P[0] / P[0].max())[None, None]
    theirs = torch.nn.functional.interpolate(scaled, (21, 20), mode="bilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(found[0], theirs, atol=1e-12)


# --- the list ---


def test_a_metric_is_one_function_and_one_line():
    metrics.register_metric("brightest", lambda maps: maps.max((1, 2)), worse="low")
    try:
        assert metrics.available_metrics()[-1] == "brightest"
        assert [m.name for m in metrics.get_metrics(["brightest"])][-1] == "brightest"
    finally:
        metrics.registry._METRICS.pop("brightest")
    default = [m.name for m in metrics.get_metrics()]
    assert default[:2] == ["drift_ref", "drift_prev"] and "road" not in [m.name for m in metrics.get_metrics("all")]
    with pytest.raises(ValueError, match=r"no metric 'sim'; nearest: .*similarity"):
        metrics.get_metrics(["sim"])
    with pytest.raises(ValueError, match=r"unknown needs \['mask'\]"):
        metrics.register_metric("x", metrics.entropy, ["mask"])
