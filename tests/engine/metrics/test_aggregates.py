"""From a number for each image to a few: against scipy."""

import numpy as np
import pytest
import scipy.stats

from cam_engine import metrics


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
