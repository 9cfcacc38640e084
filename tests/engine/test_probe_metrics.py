"""Numbers that hold for a whole probe: on any grid, pooled over images, and beside what chance gives."""

import doctest
import sys

import numpy as np
import pytest
import scipy.stats
from scipy.spatial.distance import jensenshannon

from cam_engine import metrics
from cam_engine.metrics import resampling

INVALID = [np.zeros((4, 5)), np.full((4, 5), np.nan), np.where(np.arange(20).reshape(4, 5) == 7, np.inf, 1.0)]


def noise(n=6, grid=(4, 5), seed=0):
    return np.random.default_rng(seed).gamma(0.5, size=(n, *grid))


def with_invalid():
    """Six maps, of which numbers 1, 3 and 4 are no maps."""
    maps = noise()
    maps[[1, 3, 4]] = INVALID
    return maps


VALID = [0, 2, 5]


@pytest.mark.parametrize("name", ["shape", "pooled"])
def test_examples_in_docstrings(name):
    result = doctest.testmod(sys.modules[f"cam_engine.metrics.{name}"])
    assert result.attempted > 0 and result.failed == 0


# --- exp(H) / n ---


def test_effective_share_is_the_exponential_of_scipys_entropy():
    maps = with_invalid()
    expected = [np.exp(scipy.stats.entropy(m.ravel())) / 20 if i in VALID else np.nan for i, m in enumerate(maps)]
    np.testing.assert_allclose(metrics.effective_share(maps), expected, rtol=1e-12)


def test_effective_share_at_its_ends():
    one_cell = np.zeros((1, 4, 5))
    one_cell[0, 2, 2] = 3
    half = np.where(np.arange(20) < 10, 0.1, 0).reshape(1, 4, 5)
    maps = np.concatenate([one_cell, half, np.full((1, 4, 5), 7.0)])
    np.testing.assert_allclose(metrics.effective_share(maps), [1 / 20, 0.5, 1], rtol=1e-12)
    assert np.isnan(metrics.effective_share(np.ones((2, 1, 1)))).all()


def test_effective_share_of_one_kind_of_noise_is_alike_on_all_grids_and_entropy_is_not():
    on = {side: noise(400, (side, side), seed=side) for side in (4, 7, 14, 28)}
    shares = [metrics.effective_share(maps).mean() for maps in on.values()]
    entropies = [metrics.entropy(maps).mean() for maps in on.values()]
    assert max(shares) - min(shares) < 0.04
    assert max(entropies) - min(entropies) > 0.12


# --- consensus ---


def one_against_others(maps):
    p = [m / m.sum() for m in maps]
    return [1 - jensenshannon(q.ravel(), np.mean([r for r in p if r is not q], 0).ravel(), base=2) ** 2 for q in p]


def test_consensus_is_a_loop_that_leaves_one_out():
    maps = with_invalid()
    expected = np.full(6, np.nan)
    expected[VALID] = one_against_others(maps[VALID])
    np.testing.assert_allclose(metrics.consensus(maps), expected, rtol=1e-10)


def test_disjoint_maps_agree_on_nothing_however_few_they_are():
    for n in (2, 4, 9):
        maps = np.eye(9)[:n].reshape(n, 3, 3) + 0.0
        assert np.abs(metrics.consensus(maps)).max() < 1e-12
    assert metrics.consensus(np.repeat(noise(1), 5, 0)) == pytest.approx(1)


def test_chance_is_what_shuffled_maps_reach_and_rises_with_entropy():
    rng = np.random.default_rng(5)
    maps = with_invalid()
    shuffled = [one_against_others([rng.permutation(m.ravel()).reshape(4, 5) for m in maps[VALID]]) for _ in range(600)]
    chance = metrics.consensus_by_chance(maps, repeats=600)
    assert np.isnan(chance[[1, 3, 4]]).all()
    np.testing.assert_allclose(chance[VALID], np.mean(shuffled, 0), atol=0.02)
    np.testing.assert_array_equal(chance, metrics.consensus_by_chance(maps, repeats=600))
    levels = [metrics.consensus_by_chance(noise(8) + add).mean() for add in (0, 0.3, 3)]
    assert levels[0] < levels[1] < levels[2]


def test_maps_of_no_common_place_are_at_chance_and_those_of_one_are_above():
    free = noise(64, (7, 7))
    assert metrics.consensus(free).mean() == pytest.approx(metrics.consensus_by_chance(free).mean(), abs=0.01)
    tied = free.copy()
    tied[:, 0, 0] += 10
    assert metrics.consensus(tied).mean() > metrics.consensus_by_chance(tied).mean() + 0.1


def test_consensus_of_fewer_than_two_maps_is_undefined():
    alone = with_invalid()[[0, 1]]
    for number in (metrics.consensus, metrics.consensus_by_chance):
        assert np.isnan(number(alone)).all() and np.isnan(number(noise(1))).all()


# --- pooled enrichment ---


def test_pooled_enrichment_is_a_ratio_of_sums_over_valid_images():
    maps, region = with_invalid(), np.random.default_rng(1).random((6, 4, 5))
    region[2] = 0  # no target
    mass = sum((maps[i] / maps[i].sum() * region[i]).sum() for i in (0, 5))
    found = metrics.pooled_enrichment(maps, region)
    assert found.value == pytest.approx(mass / (region[0].mean() + region[5].mean()), rel=1e-12)
    assert found.n == 2 and found.low <= found.value <= found.high


def test_four_tiny_objects_do_not_outvote_sixty_images():
    maps, region = np.ones((64, 10, 10)), np.zeros((64, 10, 10))
    region[:60, :5] = 1  # half of the image; the map is on the other half
    maps[:60, :5] = 0
    region[60:, 0, 0] = 1
    maps[60:] = region[60:]
    assert metrics.enrichment(maps, region).mean() > 6
    pooled = metrics.pooled_enrichment(maps, region)
    assert pooled.value == pytest.approx(4 / 30.04) and pooled.high < 1


def test_the_interval_is_scipys_bootstrap_of_the_ratio():
    maps, region = noise(50, seed=2), np.random.default_rng(3).random((50, 4, 5)) ** 3
    found = metrics.pooled_enrichment(maps, region)
    above, below = metrics.on_target_mass(maps, region), region.mean((1, 2))
    peer = scipy.stats.bootstrap(
        (above, below),
        lambda a, b, axis: a.sum(axis) / b.sum(axis),
        paired=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(4),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((peer.low, peer.high), abs=0.01)


def test_nothing_to_pool():
    nothing = metrics.pooled_enrichment(np.zeros((3, 4, 5)), np.ones((3, 4, 5)))
    assert nothing.n == 0 and np.isnan([nothing.value, nothing.low, nothing.high]).all()
    one = metrics.pooled_enrichment(noise(1), np.ones((1, 4, 5)))
    assert one.value == pytest.approx(1) and one.n == 1 and np.isnan([one.low, one.high]).all()
    with pytest.raises(ValueError, match="differ in shape"):
        metrics.pooled_enrichment(noise(), np.ones((6, 2, 2)))


def test_units_without_a_denominator_are_drawn_but_do_not_divide():
    ratio, low, high = metrics.ratio_interval([0, 0, 0, 1, 0], [0, 0, 0, 1, 1])
    assert (ratio, low, high) == (0.5, 0.0, 1.0)
    assert np.isnan(metrics.ratio_interval([0, 0], [0, 0])).all()


# --- draws ---


@pytest.mark.parametrize("n", [3, 17, 5000])
def test_draws_in_blocks_are_those_of_one_call(n):
    """Of 5000 images a thousand draws are made and multiplied in five blocks, and kept as small numbers."""
    generator, values = np.random.default_rng(4), np.random.default_rng(1).normal(size=(n, 2))
    counted = generator.multinomial(n, np.full(n, 1 / n), 1000)
    ours = resampling.counts(n, 1000, 4)
    assert np.array_equal(ours, counted) and ours.itemsize == 2
    np.testing.assert_allclose(resampling.sums(ours, values), counted @ values, rtol=1e-9, atol=1e-9)
    signs = resampling.signs(n, 1000, 4)
    assert set(np.unique(signs)) == {-1, 1} and signs.shape == (8 if n == 3 else 1000, n) and signs.itemsize == 1
    if n > 3:
        assert np.array_equal(signs, np.random.default_rng(4).choice((1, -1), (1000, n)))
