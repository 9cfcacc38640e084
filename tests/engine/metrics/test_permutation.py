"""The permutation test: against scipy under every flip, at its level, and at its ends."""

import itertools

import numpy as np
import pytest
import scipy.stats
from made_maps import P, Q, some_maps

from cam_engine import metrics


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
