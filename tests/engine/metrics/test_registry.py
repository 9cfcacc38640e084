"""The list of metrics."""

import pytest

from cam_engine import metrics


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
