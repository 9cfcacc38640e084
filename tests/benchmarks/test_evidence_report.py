"""The evidence's report: alarms are the product's, figures have their intervals, and the page says what the figures say."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cam_callbacks import CAMMonitor, ProbeSet, Record

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from evidence import clusters, figures, groups, image_check, judge, page, plots, thresholds, version_0_1  # noqa: E402
from evidence.alarms import calibrated, highest, raised  # noqa: E402
from evidence.plans import Training  # noqa: E402

BACKGROUND, DETAIL, FRAME = ("background_decides", "", ""), ("detail_decides", "", ""), ("frame_decides", "", "")
MOVED = ("focus_moved", "gradcam", "x")
NAN = math.nan
SHARE = {"mean": 0.9, "low": 0.8, "high": 1.0}


def looks(series, *values):
    return [{series: value} for value in values]


class Corner(nn.Module):
    """Predicts by the brightness of the top left corner, whatever else is in the image."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 4, 1)

    def forward(self, x):
        corner = self.layer(x)[..., :4, :4].mean((1, 2, 3), keepdim=True)[..., 0, 0]
        levels = torch.linspace(0, 1, 4)
        return -((corner - levels) ** 2) * 50


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Looks at a network that follows a cue in the corner, and the labels of the probe."""
    rng, labels = np.random.default_rng(0), np.arange(16) % 4
    images = rng.uniform(0.3, 0.7, (16, 1, 16, 16)).astype(np.float32)
    images[:, 0, :4, :4] = labels[:, None, None] / 3
    masks, nuisance = (np.zeros((16, 16, 16), dtype=bool) for _ in range(2))
    masks[:, 8:14, 8:14], nuisance[:, :4, :4] = True, True
    probe = ProbeSet(torch.from_numpy(images), labels, masks=masks, nuisance=nuisance)
    model = Corner()
    with torch.no_grad():
        model.layer.weight[:], model.layer.bias[:] = 1, 0
    monitor = CAMMonitor(
        probe, methods=("eigencam",), layers="layer", folder=tmp_path_factory.mktemp("run") / "records"
    )
    for epoch in range(5):
        monitor.look(model.eval(), epoch=epoch)
    return list(monitor.store), labels


def test_alarms_are_those_that_the_monitor_raised(records):
    records, labels = records
    told = [(record.look, alert.name) for record in records for alert in record.alerts if alert.new]
    assert {"background_decides", "nuisance_decides"} <= {name for _, name in told}
    assert raised(judge.seen(records, labels, "with masks")) == list(dict.fromkeys(told))
    without = raised(judge.seen(records, labels, "without masks"))
    assert without == [each for each in dict.fromkeys(told) if each[1] not in judge.NEED_MASKS]
    assert not {"background_decides", "nuisance_decides"} & {
        n for _, n in raised(judge.seen(records, labels, "without either"))
    }


def test_what_is_counted_again_from_the_pairs_is_what_the_look_found(records):
    records, labels = records
    again = judge.by_pairs(
        [judge.exchanged_of(record, judge.VIEWS["with masks"]) for record in records], records, labels
    )
    assert {rule for rule, _, _ in again[0]} == {
        f"{name}_decides" for name in ("background", "nuisance", "frame", "detail")
    } | {"follows_changed"}
    for series in again[0]:
        found = [judge.statistics(record)[series] for record in records]
        assert np.allclose(found, [look[series] for look in again], equal_nan=True) and np.isfinite(found).any()


def test_statistics_come_back_from_json():
    given = [{BACKGROUND: 1.5, MOVED: NAN}, {BACKGROUND: NAN, MOVED: 2.0}]
    again = judge.from_plain(json.loads(json.dumps(judge.to_plain(given)).replace("NaN", "null")))
    assert [list(look) for look in again] == [list(look) for look in given]
    assert np.allclose([list(look.values()) for look in again], [[1.5, NAN], [NAN, 2.0]], equal_nan=True)


def test_an_alarm_takes_two_looks_running_above_the_threshold():
    assert raised(looks(BACKGROUND, 3, 0, 3, 3, 3)) == [(3, "background_decides")]
    assert raised(looks(BACKGROUND, 3, NAN, 3, 0)) == []
    assert raised(looks(MOVED, 0, 3, 3, 0, 5, 5)) == [(2, "focus_moved"), (5, "focus_moved")]
    assert raised(looks(DETAIL, 90, 90, 90)) == []  # only a calibration can set it
    assert highest(looks(BACKGROUND, 9, 2, 5, 4))["background_decides"] == 4
    assert math.isnan(highest(looks(BACKGROUND, 9))["focus_moved"])


def test_a_calibration_judges_by_accepted_runs_and_leaves_alone_what_they_lack():
    accepted = calibrated({f"{i}": [{DETAIL: i / 10, MOVED: NAN}] * 3 for i in range(9)})
    assert accepted.level == pytest.approx(0.1) and list(accepted.largest) == [DETAIL]
    assert raised(looks(DETAIL, 5, 5), accepted) == [(1, "detail_decides")]
    assert raised(looks(DETAIL, 0.5, 0.5), accepted) == []
    assert raised(looks(MOVED, 5, 5), accepted) == [(1, "focus_moved")]


def test_wilsons_interval():
    assert figures.wilson(0, 100) == pytest.approx((0, 0.0370), abs=1e-4)
    assert figures.wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert figures.wilson(0, 0) == (0, 1)
    counted = figures.counted([{"x": True}, {"x": False}, {"x": None}], lambda row: row["x"])
    assert (counted["k"], counted["n"], counted["share"]) == (1, 2, 0.5)


def test_a_rate_of_false_alarms_needs_its_upper_bound():
    def verdict(k, n, bar):
        low, high = figures.wilson(k, n)
        return figures.verdict({"n": n, "share": k / max(n, 1), "low": low, "high": high}, bar)

    assert verdict(0, 10, -0.05).startswith("missed: the rate") and verdict(2, 100, -0.05) == "met"
    assert verdict(1, 10, -0.05) == "missed" and verdict(0, 0, -0.05) == "nothing to judge yet"
    assert verdict(19, 20, 0.95).startswith("met by the share") and verdict(18, 20, 0.95) == "missed"
    assert verdict(99, 100, 0.9) == "met"


def test_how_late_an_alarm_is():
    assert figures.delay([(2, "a"), (9, "b"), (8, "c")], 7) == 1
    assert figures.delay([(2, "a")], 7) is None and figures.delay([(7, "a")], 7) == 0
    soon = figures.soon(lambda row: row["alarms"])
    answers = [soon({"onset": 5, "alarms": alarms}) for alarms in ([(8, "a")], [(9, "a")], [], None)]
    assert answers == [True, False, False, None]


def test_the_groups_between_which_accuracy_differs(tmp_path):
    labels = np.array([0, 0, 1, 1])
    np.savez(tmp_path / "a.npz", labels=labels, natural=np.stack([labels, [0, 1, 1, 1]]))
    np.savez(
        tmp_path / "b.npz", labels=labels, natural=labels[None], agree=labels[None], swapped=np.array([[1, 1, 1, 0]])
    )
    assert groups.spread_of(tmp_path / "a.npz") == 0.5 and groups.spread_of(tmp_path / "b.npz") == 1


def test_clusters_stand_out_where_the_maps_of_a_class_fall_into_two():
    rng = np.random.default_rng(0)
    one, two = rng.uniform(0, 0.3, (40, 6, 6)), rng.uniform(0, 0.3, (40, 6, 6))
    one[:, 2:4, 2:4] += 1
    two[:20, :2, :2] += 1
    two[20:, 4:, 4:] += 1
    assert clusters.eigengap(two) > 1.5 * clusters.eigengap(one)
    labels = np.repeat([0, 1], 40)
    assert clusters.largest_gap(np.concatenate([one, two]), labels) == clusters.eigengap(two)
    assert clusters.eigengap(one[:5]) == 0


def test_the_rules_of_version_0_1():
    def look(number, entropy=0.5, drift=0.01, t=1.0, p=1.0, enrichment=2.0, settled=True):
        metrics = {"entropy": entropy, "drift_ref": drift, "max_t": t, "max_t_p": p}
        return Record(
            number, number, number, {f"cam/{k}/gradcam": v for k, v in metrics.items()}, {},
            per_image={
                "drift_ref/gradcam": np.full(16, drift),
                "on_target_enrichment/gradcam": enrichment + np.linspace(-0.1, 0.1, 16) * (number + 1),
            },
            reference={"gradcam/x": {"look": 0, "settled": settled, "reference_set": settled, "floor": 0.001}},
        )  # fmt: skip

    def after_two(**of):
        return version_0_1.raised([look(0), look(1, **of), look(2, **of)])

    assert after_two() == [] and version_0_1.raised([look(0), look(1, entropy=0.96), look(2)]) == []
    assert after_two(entropy=0.96) == [(2, "diffuse")]
    assert after_two(drift=0.2, t=3.0, p=0.001) == [(2, "focus_moved")]
    assert after_two(drift=0.2, t=2.0, p=0.001) == []  # an effect of 0.5
    assert after_two(enrichment=1.8) == [(2, "losing_focus")]
    assert after_two(enrichment=0.8) == [(2, "off_target"), (2, "losing_focus")]
    assert after_two(enrichment=0.8, entropy=0.99, settled=False) == []
    assert version_0_1.raised([look(0), *(look(i, enrichment=0.8) for i in (1, 2))], masks=False) == []


def known(role, statistic, **of):
    """What would be known of a run of five looks."""
    series = [[*BACKGROUND, [0, *[statistic] * 4]], [*DETAIL, [0, *[statistic - 8] * 4]], [*FRAME, [-9] * 5]]
    return {
        "role": role,
        "views": {view: series if judge.NEEDS[view] == () else series[1:] for view in judge.VIEWS},
        "object_share": SHARE,
        "accuracy": {"natural": [0.9]},
        "version 0.1": {"with masks": [[3, "off_target"]], "without masks": []},
        "groups": 0.6 if role != "healthy" else 0.1,
        "eigengap": 0.3,
        **of,
    }


@pytest.fixture(scope="module")
def judged():
    """Six healthy runs, two with a cue, one with an onset, one of the set part, as judge would leave them."""
    healthy = {Training("judged", "blobs", "cnn", i): known("healthy", i / 10) for i in range(6)}
    return healthy | {
        Training("judged", "blobs", "cnn", 10, cue="tag"): known("decides", 5.0, gap=[0.9]),
        Training("judged", "blobs", "cnn", 11, cue="tint"): known("beside", 1.7, gap=[0.3]),
        Training("judged", "blobs", "cnn", 12, cue="tag", onset=1): known("beside", 6.0, gap=[0.3]),
        Training("set", "shapes", "cnn", 0): known("healthy", 7.0),
        Training("set", "shapes", "cnn", 1, cue="blur"): known("decides", 9.0, gap=[0.8]),
    }


def test_figures_count_the_judged_part_alone(judged):
    found = figures.summarise(judged, 400, {"blobs-tag100-class": {"scores": {"dark": 0.1}, "threshold": 0.3}}, 0.2)
    of = {bar["claim"]: (bar["k"], bar["n"]) for bar in figures.bars(found["runs"])}
    assert list(of.values()) == [(0, 6), (1, 1), (1, 1), (1, 1), (1, 1)]  # beside the object: by the calibration only
    assert not any(row["alarms"]["with masks"] for row in found["runs"] if row["role"] == "beside" and not row["onset"])
    rivals = figures.rivals(found["runs"])
    assert rivals["default settings, without masks"]["decides"]["k"] == 0
    assert rivals["alerts of version 0.1, with masks"]["healthy"]["k"] == 6
    assert rivals["accuracy of groups (needs the cue's labels)"]["healthy"]["k"] == 0
    assert rivals["image check (Cleanlab Datalab)"]["decides"]["k"] == 1
    assert [row["accepted"] for row in found["runs"] if row["part"] == "set"] == [0, 0]


def test_a_healthy_run_at_chance_is_no_evidence_of_silence(judged):
    silent = known("healthy", NAN)
    silent["views"] = {view: [[*FRAME, [None] * 5]] for view in judge.VIEWS}
    found = figures.summarise(judged | {Training("judged", "digits", "vit", 0): silent}, 400)
    assert figures.bars(found["runs"])[0]["n"] == 6 and len(figures.part_of(found["runs"], "healthy")) == 7
    assert "nothing was judged: `judged-healthy-digits-vit-plain-n16-s0`" in page.page(json.loads(judge.to_json(found)))


@pytest.mark.parametrize("some", [0, 1, 8, 11])
def test_the_page_can_be_written_with_however_many_runs(judged, tmp_path, some):
    chosen = dict(list(judged.items())[:some])
    found = json.loads(judge.to_json(figures.summarise(chosen, 400)))
    text = page.page(found)
    assert f"**{some} of the 400 trainings" in text and "nan" not in text
    plots.draw(found, tmp_path)
    assert len(list(tmp_path.glob("evidence_*.png"))) == 3
    if some == 11:
        assert "`judged-cue-blobs-cnn-tag-onset1-absent-n16-s12` | 0.30 | 1 | never" in text


def test_thresholds_look_at_the_set_part_alone(judged):
    found = thresholds.table(judged)
    assert found["runs"] == {"healthy": 1, "decides": 1, "beside": 0}
    of = found["rules"]["background_decides"]
    assert (of["healthy"]["largest"], of["decides"]["median"], of["raised"]) == (
        7,
        9,
        {"healthy": 1, "decides": 1, "beside": 0},
    )
    assert "background_decides" in thresholds.as_text(found)
    assert thresholds.at_most(list(range(100)), 0.05) == 94 and thresholds.at_most([], 0.05) is None


def test_the_image_check_knows_what_it_has_checked_and_asks_for_nothing_then():
    one = Training("judged", "blobs", "cnn", 1, cue="tag", agreement=0.9)
    assert image_check.name_of(one) == "blobs-tag90-class"
    assert list(image_check.check([one], {"blobs-tag90-class": {}})) == []
    assert image_check.is_flagged({"scores": {"dark": 0.29}, "threshold": 0.3})
    assert not image_check.is_flagged({"scores": {"dark": 0.3}, "threshold": 0.3})


def test_the_committed_page_is_what_the_committed_figures_say():
    found = json.loads((ROOT / "benchmarks" / "results" / "evidence.json").read_text(encoding="utf-8"))
    assert (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8") == page.page(found)
