"""Thresholds by conformal prediction: how often a healthy run is called alarming, and how often another one."""

import math

import numpy as np
import pytest

from cam_callbacks.calibration import Calibration, CalibrationError, largest

SERIES = [
    ("background_decides", "", ""),
    ("focus_moved", "gradcam", "4"),
    ("focus_moved", "eigencam", "4"),
    ("off_target", "gradcam", "4"),
]
SPREADS = {"background_decides": 1.5, "focus_moved": 2.0, "off_target": 1.0}


def healthy_runs(rng, runs, looks=12):
    """Statistics (runs, looks, series) of runs that are exchangeable, and nothing else: series that depend on each other and have
    heavy tails, looks that depend on the look before, runs that differ from each other."""
    common = rng.standard_t(3, size=(runs, 1, 1))
    steps = rng.standard_t(3, size=(runs, looks, len(SERIES))) + 0.5 * common
    places = np.array([-3.0, 2.0, 0.0, 40.0])
    return places + np.cumsum(steps, axis=1) / np.sqrt(np.arange(1, looks + 1))[None, :, None]


def calibration_of(runs, alpha=0.05):
    best = runs.max(1)
    return Calibration(
        alpha,
        runs.shape[1],
        tuple(map(str, range(len(runs)))),
        {s: tuple(best[:, i]) for i, s in enumerate(SERIES)},
        SPREADS,
    )


def is_alarmed(calibration, run):
    """Any series at any look, as a training is judged."""
    return any(
        t.exceeded for look in run for t in calibration.thresholds(dict(zip(SERIES, look, strict=True))).values()
    )


@pytest.mark.parametrize(("runs", "alpha"), [(19, 0.05), (39, 0.1), (6, 0.05), (50, 0.2)])
def test_a_healthy_run_is_alarmed_as_rarely_as_said(runs, alpha):
    rng = np.random.default_rng(runs)
    trials = 1500
    alarms = 0
    for _ in range(trials):
        drawn = healthy_runs(rng, runs + 1)
        calibration = calibration_of(drawn[:-1], alpha)
        alarms += is_alarmed(calibration, drawn[-1])
    level = max(alpha, 1 / (runs + 1))
    assert calibration.level == pytest.approx(level)
    margin = 3 * math.sqrt(level * (1 - level) / trials)
    assert alarms / trials <= level + margin
    assert alarms / trials >= 0.5 * level  # and not by never speaking


@pytest.mark.parametrize("series", range(len(SERIES)))
def test_a_run_far_from_the_healthy_ones_is_alarmed_in_the_series_that_shows_it(series):
    rng = np.random.default_rng(series)
    caught = 0
    for _ in range(100):
        drawn = healthy_runs(rng, 31)
        drawn[-1, -1, series] = drawn[:-1, :, series].max() + 60
        judged = calibration_of(drawn[:-1]).thresholds(dict(zip(SERIES, drawn[-1, -1], strict=True)))
        caught += judged[SERIES[series]].exceeded
        assert judged[SERIES[series]].exceeded == (drawn[-1, -1, series] > judged[SERIES[series]].limit)
    assert caught >= 90


def test_alarms_only_grow_with_the_statistics():
    rng = np.random.default_rng(0)
    for _ in range(300):
        drawn = healthy_runs(rng, 11)
        calibration = calibration_of(drawn[:-1], 0.2)
        before = drawn[-1].max(0)
        after = before + rng.exponential(2, size=before.shape)
        of = [
            any(t.exceeded for t in calibration.thresholds(dict(zip(SERIES, v, strict=True))).values())
            for v in (before, after)
        ]
        assert of[1] >= of[0]


def test_a_series_that_was_not_judged_raises_nothing_and_shifts_nothing():
    rng = np.random.default_rng(1)
    runs = healthy_runs(rng, 20)
    calibration = calibration_of(runs)
    judged = calibration.thresholds({SERIES[0]: math.nan, SERIES[1]: 1e6, ("new_rule", "", ""): 1e9})
    assert not judged[SERIES[0]].exceeded and judged[SERIES[1]].exceeded and ("new_rule", "", "") not in judged
    assert calibration.thresholds({}) == {}


def test_the_largest_statistic_counts_where_a_rule_held_long_enough():
    a, b = ("two", "m", "l"), ("one", "", "")
    looks = [{a: 1.0, b: 0.0}, {a: 9.0}, {a: 4.0, b: 2.0}, {a: math.nan, b: 1.0}, {a: 30.0, b: -1.0}]
    assert largest(looks, {"two": 2, "one": 1}) == {a: 4.0, b: 2.0}
    assert math.isnan(largest([{a: 5.0}], {"two": 2})[a])


def test_it_is_read_as_it_was_written(tmp_path):
    calibration = Calibration(0.05, 7, ("one", "two"), {SERIES[1]: (1.5, math.nan)}, SPREADS, "fingerprint")
    again = Calibration.load(calibration.save(tmp_path / "healthy.json"))
    assert again.largest[SERIES[1]][0] == 1.5 and math.isnan(again.largest[SERIES[1]][1])
    assert (again.alpha, again.looks, again.runs, again.spreads, again.probe) == (
        0.05,
        7,
        ("one", "two"),
        SPREADS,
        "fingerprint",
    )
    assert again.level == pytest.approx(1 / 3)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"schema": 99}', '{"schema": 1, "alpha": "x"}', "null"])
def test_what_is_no_calibration_is_said(tmp_path, content):
    path = tmp_path / "healthy.json"
    path.write_text(content)
    with pytest.raises(CalibrationError, match=r"calibrat|newer"):
        Calibration.load(path)
    with pytest.raises(CalibrationError, match="is no calibration"):
        Calibration.load(tmp_path / "absent.json")


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_alpha_is_a_chance(alpha):
    with pytest.raises(CalibrationError, match="alpha"):
        Calibration(alpha, 1, ("a",), {}, {})
