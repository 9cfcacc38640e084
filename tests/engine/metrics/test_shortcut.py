"""Signals of a shortcut over a probe."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_maps import maps, scipy_jsd

from cam_engine import metrics


def test_consensus_by_hand():
    same = np.stack([np.eye(3)] * 4)
    np.testing.assert_allclose(metrics.consensus(same), 1)
    apart = np.array([[[1.0, 0]], [[0, 1.0]]])  # each against the other
    np.testing.assert_allclose(metrics.consensus(apart), [0, 0], atol=1e-12)


@given(maps(n=4), st.floats(1e-2, 1e3))
def test_consensus_equals_scipy_and_gives_every_image_the_same_say(m, factor):
    p = np.maximum(m, 0).reshape(4, -1)
    p = p / p.sum(1, keepdims=True)
    expected = [1 - np.nan_to_num(scipy_jsd(one, np.delete(p, i, 0).mean(0))) for i, one in enumerate(p)]
    found = metrics.consensus(m)
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert ((found >= 0) & (found <= 1)).all()
    louder = m * np.array([factor, 1, 1, 1])[:, None, None]
    np.testing.assert_allclose(metrics.consensus(louder), found, atol=1e-9)


def test_consensus_needs_two_valid_maps():
    lonely = np.stack([np.ones((2, 2)), np.zeros((2, 2)), np.full((2, 2), np.nan)])
    assert np.isnan(metrics.consensus(lonely)).all()


def test_counterfactual_gap():
    gap = metrics.counterfactual_gap([True, True, True, False], [False, True, False, True])
    assert gap.tolist() == [1, 0, 1, -1] and gap.mean() == 0.75 - 0.5
    with pytest.raises(ValueError, match="equal are needed"):
        metrics.counterfactual_gap([True], [True, False])
