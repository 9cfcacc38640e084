"""Alerts: raised in time, taken back without chatter, and told everywhere, through a monitor and a real Trainer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from cam_callbacks import CAMCallback, CAMMonitor, ProbeSet, RecordStore
from cam_callbacks.calibration import Calibration
from cam_callbacks.look.alerts import judge, make_rules
from cam_callbacks.look.evidence import LookEvidence, Measurement
from cam_callbacks.look.exchanged import Exchanged, Outcomes
from cam_callbacks.look.judgement import Judgement, cannot_judge
from cam_callbacks.look.map_rules import place
from cam_engine.exchange import count_followed, object_share
from cam_engine.metrics import MaxT

NAMES = [
    "background_decides",
    "nuisance_decides",
    "frame_decides",
    "detail_decides",
    "off_target",
    "counterfactual_gap",
    "follows_changed",
    "focus_moved",
    "collapsed",
]
SERIES = ("gradcam", "late")


def measured(
    look=5, settled=True, reference_set=True, pooled=None, t=1.0, n=12, floor=0.01, cells=49, at_chance=False, **numbers
):
    """A series, calm and right unless said otherwise. ``pooled``: enrichment with its interval; ``t``: over its critical value."""
    numbers = {"drift_ref": 0.01, "entropy": 0.7, "valid_frac": 1.0} | numbers
    per_image = {name: np.full(12, value) for name, value in numbers.items() if name != "valid_frac"}
    aggregates = {}
    if pooled is not None:
        per_image["on_target_enrichment"] = np.linspace(0.5, 1.5, 12) * pooled[0]
        aggregates["on_target_enrichment"] = dict(
            zip(("pooled", "pooled_low", "pooled_high", "n"), (*pooled, n), strict=True)
        )
    cell = np.zeros((3, 3))
    cell[0, 2] = 9.0
    moved = MaxT(cell, 4 * t, 1.0, n, 4.0)
    return Measurement(
        look, settled, reference_set, numbers, per_image, aggregates, cells, 0.01, floor, moved, at_chance
    )


def exchanges(n=12, donors=3, **shares):
    """Exchange tests of n images in which each part carries the class in so many of the pairs."""
    pairs = np.array([((r + d) % n, r) for r in range(n) for d in range(1, donors + 1)])
    predictions = np.arange(n)
    whole = {}
    for place_, (part, share) in enumerate(shares.items()):
        follows = np.random.default_rng(place_).permutation(len(pairs)) < round(share * len(pairs))
        whole[part] = count_followed(part, pairs, predictions, np.where(follows, pairs[:, 0], pairs[:, 1]))
    both = {"object", "background"} <= whole.keys()
    return Exchanged(pairs, whole, {}, object_share(whole["object"], whole["background"]) if both else None)


def evidence(look=5, settled=True, at_chance=False, then=None, gap=None, n=12, **shares):
    before = None if then is None else exchanges(n, **then).whole
    remembered = None if before is None else {k: Outcomes(v.pairs, v.followed) for k, v in before.items()}
    return LookEvidence(look, settled, at_chance, exchanges(n, **shares) if shares else None, remembered, gap)


def play(rule, looks, calibration=None):
    """Which of a series of looks an alert is raised at."""
    states, raised = {}, []
    for number, of_look in enumerate(looks):
        series = {SERIES: of_look} if isinstance(of_look, Measurement) else {}
        whole = evidence(number) if series else of_look
        whole = LookEvidence(number, whole.settled, whole.at_chance, whole.exchanged, whole.then, whole.gap)
        states, found, _ = judge([rule], states, series, whole, number, list("abcdefghijkl"), calibration)
        raised.append([(a.new, a.since_look) for a in found])
    return raised


NEW, OLD, NONE = (True, 1), (False, 1), []


@pytest.mark.parametrize(
    ("name", "make", "quiet", "bad", "between"),
    [
        ("off_target", measured, {"pooled": (2, 1.8, 2.2)}, {"pooled": (0.8, 0.7, 0.9)}, {"pooled": (0.9, 0.77, 1.03)}),
        ("focus_moved", measured, {}, {"t": 4, "drift_ref": 0.2}, {"t": 1.5, "drift_ref": 0.2}),
        (
            "background_decides",
            evidence,
            {"object": 0.95, "background": 0.02},
            {"object": 0.1, "background": 0.8},
            {"object": 0.72, "background": 0.14},
        ),
        ("nuisance_decides", evidence, {"nuisance": 0.1}, {"nuisance": 0.9}, {"nuisance": 0.62}),
        ("frame_decides", evidence, {"frame": 0.0}, {"frame": 1.0}, {"frame": 0.62}),
        (
            "counterfactual_gap",
            evidence,
            {"gap": np.zeros(12)},
            {"gap": np.ones(12)},
            {"gap": np.arange(12) % 3 == 0.0},
        ),
        (
            "follows_changed",
            evidence,
            {"then": {"detail": 0.1}, "detail": 0.1},
            {"then": {"detail": 0.1}, "detail": 0.8},
            {"then": {"detail": 0.1}, "detail": 0.3},
        ),
    ],
)
def test_a_rule_needs_two_looks_running_and_clears_at_its_lower_threshold(name, make, quiet, bad, between):
    rule = make_rules([name])[0]
    looks = [quiet, bad, bad, between, bad, between, quiet, bad, quiet, bad]
    raised = play(rule, [make(**look) for look in looks])
    assert raised == [NONE, NONE, [NEW], [OLD], [OLD], [OLD], NONE, NONE, NONE, NONE]
    # A gap between two bad looks, even if it does not clear, is no run.
    assert play(rule, [make(**look) for look in (quiet, bad, between, bad, between)]) == [NONE] * 5
    # A model at chance has learned nothing that could be judged.
    if name != "counterfactual_gap":
        assert play(rule, [make(**bad, at_chance=True)] * 4) == [NONE] * 4


@pytest.mark.parametrize(
    ("name", "given", "reason"),
    [
        ("background_decides", evidence(), "needs masks or boxes"),
        (
            "background_decides",
            evidence(object=0.1, background=0.9, n=6),
            "needs 8 images with a pair that counts, has 6",
        ),
        ("background_decides", evidence(object=0.0, background=0.0), "follows neither"),
        ("frame_decides", evidence(object=0.5), "frame was not exchanged at this look"),
        ("frame_decides", evidence(), "no classifier, or names one class alone"),
        ("nuisance_decides", evidence(object=0.5), "needs nuisance="),
        ("follows_changed", evidence(detail=0.9), "no reference yet"),
        ("follows_changed", evidence(detail=0.9, then={"frame": 0.1}), "same pairs at the reference"),
        ("counterfactual_gap", evidence(), "needs counterfactual="),
        ("counterfactual_gap", evidence(gap=np.ones(5)), "needs 8 images, has 5"),
        ("off_target", measured(), "needs masks or boxes"),
        ("off_target", measured(pooled=(0.5, 0.4, 0.6), settled=False), "has not settled"),
        ("off_target", measured(pooled=(0.5, 0.4, 0.6), n=7), "needs 8 images with a map and a target, has 7"),
        ("focus_moved", measured(t=9, drift_ref=0.9, cells=4), "grid of 4 cells is too coarse"),
        ("focus_moved", measured(t=9, drift_ref=0.9, n=7), "needs 8 images with a map then and now, has 7"),
        ("focus_moved", measured(t=9, drift_ref=0.9, reference_set=False), "no reference yet"),
        ("collapsed", measured(look=0, valid_frac=0.0), "untrained"),
    ],
)
def test_a_rule_that_cannot_judge_says_why_and_is_silent(name, given, reason):
    rule = make_rules([name])[0]
    series = {SERIES: given} if isinstance(given, Measurement) else {}
    whole = evidence() if series else given
    states, alerts, judged = judge([rule], {}, series, whole, 3, list("abcdefghijkl"))
    (one,) = judged
    assert (one.rule, one.state) == (name, "cannot judge") and reason in one.words and np.isnan(one.statistic)
    assert not alerts and not any(state.raised or state.running for state in states.values())


def test_only_images_that_the_model_gets_right_say_whether_the_background_decides():
    """Of 24 images the first twelve are named right, and follow the object; where it errs, it follows anything."""
    rule, n = make_rules(["background_decides"])[0], 24
    pairs = np.array([(start + (r + d) % 12, start + r) for start in (0, 12) for r in range(12) for d in (1, 2)])
    right, errs = np.arange(n) < 12, pairs[:, 0] >= 12
    counted = {
        "object": count_followed("object", pairs, np.arange(n), np.where(errs, pairs[:, 1], pairs[:, 0])),
        "background": count_followed("background", pairs, np.arange(n), np.where(errs, pairs[:, 0], pairs[:, 1])),
    }
    exchanged = Exchanged(pairs, counted, {}, object_share(*counted.values()))
    assert exchanged.share.share == 0.5
    unlabelled = rule.judge(LookEvidence(5, True, False, exchanged))
    assert unlabelled.statistic > rule.above and "48 pairs" in unlabelled.measured
    labelled = rule.judge(LookEvidence(5, True, False, exchanged, right=right))
    assert (
        labelled.statistic < 0
        and "another image's scene (both named right)" in labelled.measured
        and "24 pairs" in labelled.measured
    )
    few = rule.judge(LookEvidence(5, True, False, exchanged, right=np.arange(n) < 6))
    assert (
        np.isnan(few.statistic)
        and few.reason == "needs 8 images that the model gets right with a pair that counts, has 5"
    )


def test_what_is_healthy_in_detail_only_a_calibration_can_tell():
    """Textures are classes too: fine detail that decides is wrong only where it does not in accepted runs."""
    rule = make_rules(["detail_decides"])[0]
    looks = [evidence(detail=0.9)] * 3
    assert play(rule, looks) == [NONE] * 3
    (one,) = judge([rule], {}, {}, looks[0], 0, list("abcdefghijkl"))[2]
    assert one.state == "cannot judge" and "calibration" in one.words and one.statistic > 0
    accepted = tuple(float(v) for v in np.linspace(-6, -4, 19))
    healthy = Calibration(
        0.05, 3, tuple(map(str, range(19))), {("detail_decides", "", ""): accepted}, {"detail_decides": 1.5}
    )
    assert play(rule, looks, healthy)[1] == [(True, 0)]
    assert play(rule, [evidence(detail=0.1)] * 3, healthy) == [NONE] * 3


def test_a_calibration_takes_the_place_of_a_rules_own_threshold():
    rule, run = make_rules(["background_decides"])[0], ("background_decides", "", "")
    beside_the_object = [evidence(object=0.9, background=0.1)] * 3
    assert play(rule, beside_the_object) == [NONE] * 3
    healthy = Calibration(0.05, 3, tuple(map(str, range(19))), {run: tuple(np.linspace(-9, -6, 19))}, {})
    assert play(rule, beside_the_object, healthy)[1] == [(True, 0)]
    biased = Calibration(0.05, 3, tuple(map(str, range(19))), {run: tuple(np.linspace(9, 30, 19))}, {})
    assert play(rule, [evidence(object=0.1, background=0.8)] * 3, biased) == [NONE] * 3


def test_collapsed_at_once_but_never_at_the_first_look():
    rule = make_rules(["collapsed"])[0]
    told = play(rule, [measured(look=i, valid_frac=v, settled=False) for i, v in enumerate([0.0, 0.4, 0.6, 0.8, 1.0])])
    assert told == [NONE, [NEW], [OLD], NONE, NONE]


def test_follows_changed_is_paired_by_pair():
    """The same shares twice are no change; the same pairs that turn are, whatever others there are."""
    rule = make_rules(["follows_changed"])[0]
    then = exchanges(detail=0.1, object=0.8)
    now = exchanges(detail=0.1, object=0.3)
    remembered = {part: Outcomes(of.pairs, of.followed) for part, of in then.whole.items()}
    judgement = rule.judge(LookEvidence(5, True, False, now, remembered))
    change = now.whole["object"].followed - then.whole["object"].followed
    of_receiver = change.reshape(12, 3).mean(1)
    expected = -of_receiver.mean() / (of_receiver.std(ddof=1) / np.sqrt(12))
    assert judgement.statistic == pytest.approx(expected) and "the object in 31%" in judgement.measured
    fewer = {part: Outcomes(of.pairs[:30], of.followed[:30]) for part, of in then.whole.items()}
    again = rule.judge(LookEvidence(5, True, False, now, fewer))
    assert again.statistic == pytest.approx(-of_receiver[:10].mean() / (of_receiver[:10].std(ddof=1) / np.sqrt(10)))


def test_focus_moved_needs_both_drift_and_a_common_direction():
    rule = make_rules(["focus_moved"])[0]
    bad = {"t": 4, "drift_ref": 0.2}
    assert rule.judge(measured(**bad)).statistic > rule.above
    assert "top right" in rule.judge(measured(**bad)).measured
    for change in ({"t": 1}, {"drift_ref": 0.06}, {"floor": 0.07}):
        assert rule.judge(measured(**bad | change)).statistic < rule.above
    assert [place(np.eye(9).reshape(9, 3, 3)[i]) for i in (0, 4, 5, 7)] == ["top left", "centre", "right", "bottom"]


def test_plain_values_make_rules():
    assert [rule.name for rule in make_rules(None)] == NAMES and make_rules([]) == ()
    rule = make_rules([{"name": "focus_moved", "above": 3.5, "looks": 1}])[0]
    assert (rule.above, rule.looks) == (3.5, 1)
    for wrong, error, message in (
        (["of_target"], ValueError, "nearest: .*off_target"),
        ([{"name": "off_target", "below": 0.8}], ValueError, "no setting below; it takes above, clears, looks"),
        (["off_target", "off_target"], ValueError, "twice"),
        ("off_target", TypeError, "takes a list"),
        ([3], TypeError, "names, dictionaries and rules"),
    ):
        with pytest.raises(error, match=message):
            CAMCallback(alerts=wrong)
    with pytest.raises(ValueError, match=r"names collapsed; .* are off_target"):
        CAMCallback(alerts=["off_target"], stop_on_alert=["collapsed"])


class Spotlight(nn.Module):
    """A model whose focus is where ``where`` (6, 6) says."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(6)
        self.late = nn.Identity()
        self.where = nn.Parameter(torch.ones(6, 6))

    def forward(self, x):
        features = self.late(self.pool(x) * self.where)
        return features.mean((2, 3)) @ torch.ones(3, 2)

    def to(self, row, column):  # type: ignore[override]
        """Turn to a cell, and leave a little everywhere."""
        with torch.no_grad():
            self.where.fill_(0.05)
            self.where[row, column] = 3.0
        return self


@pytest.fixture
def images():
    return torch.rand(10, 3, 24, 24, generator=torch.Generator().manual_seed(0)) + 0.5


def test_a_focus_that_leaves_the_target_is_told_by_a_monitor(images, tmp_path, caplog):
    masks = torch.zeros(10, 24, 24, dtype=torch.bool)
    masks[:, :12, :12] = True
    told = []
    probe = ProbeSet(images, [0] * 10, masks=masks, groups=["a", "b"] * 5)
    monitor = CAMMonitor(probe, "gradcam", "late", folder=tmp_path / "looks", on_alert=told.append)
    net = Spotlight()
    states = []
    for look, cell in enumerate([(1, 1)] * 4 + [(4, 4)] * 3 + [(1, 1)]):
        record = monitor.look(net.to(*cell))
        states.append({name: record.metrics[f"cam/alert/{name}"] for name in NAMES})
        if look == 4:  # between two looks of a run: a checkpoint
            resumed = CAMMonitor(probe, "gradcam", "late", folder=tmp_path / "resumed", on_alert=told.append)
            resumed.load_state_dict(monitor.state_dict())
            monitor = resumed
    three = {"off_target", "focus_moved"}
    assert [{name for name, on in of_look.items() if on} for of_look in states] == [set()] * 5 + [three] * 2 + [set()]
    assert sorted(alert.name for alert in told) == sorted(three)
    moved = next(alert for alert in told if alert.name == "focus_moved")
    assert (moved.look, moved.since_look, moved.method, moved.layer) == (5, 4, "gradcam", "late")
    assert "bottom right" in moved.measured and len(moved.images) == 5 and set(moved.images) <= set(probe.ids)
    assert [r.message.split()[2] for r in caplog.records if "alert" in r.message] == [a.name for a in told]
    stored = RecordStore(tmp_path / "resumed").read(6)
    assert [(a.name, a.new, a.since_look) for a in stored.alerts] == [
        (n, False, 4) for n in ("off_target", "focus_moved")
    ]
    assert stored.t_maps["gradcam", "late"].argmax() == 4 * 6 + 4 and stored.t_maps["gradcam", "late"].shape == (6, 6)
    assert stored.reference["gradcam/late"]["grid"] == [6, 6]
    by_hand = stats.ttest_rel(*(m.reshape(10, -1)[:, 28] / m.sum((1, 2)) for m in
                                (stored.maps["gradcam", "late"], monitor.tracks["gradcam", "late"].reference)))  # fmt: skip
    assert stored.t_maps["gradcam", "late"][4, 4] == pytest.approx(by_hand.statistic, rel=1e-3)


def test_a_rule_of_ones_own(images):
    class Bright:
        name, of, looks, above, clears, spread, advice = "bright", "map", 1, 0.5, 0.4, 1.0, "Turn the light down."

        def judge(self, of_series):
            if of_series.look == 1:
                return cannot_judge("it is noon")
            return Judgement(of_series.numbers["entropy"], "too bright", [3])

    monitor = CAMMonitor(ProbeSet(images), "eigencam", "late", alerts=[Bright()])
    record = monitor.look(Spotlight())
    assert record.metrics["cam/alert/bright"] == 1 and "cam/alert/off_target" not in record.metrics
    assert str(record.alerts[0]).endswith("too bright; since epoch 0. Images: 3. Turn the light down.")
    assert [(j.rule, j.state) for j in record.judged] == [("bright", "raised")]
    assert str(monitor.look(Spotlight()).alerts[0]).startswith("bright (eigencam at late, epoch 1): it is noon")


class Poison:
    """A training whose weights become NaN in the second epoch."""

    def training_step(self, batch, index):
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        return loss * float("nan") if self.current_epoch == 1 else loss


def test_nan_weights_raise_an_alert_and_training_goes_on(fit, make_module, pl, data, tmp_path):
    import mlflow

    lightning = pl("pytorch_lightning")
    board = lightning.loggers.TensorBoardLogger(tmp_path, "board")
    flow = lightning.loggers.MLFlowLogger("e", "r", f"sqlite:///{tmp_path}/m.db", artifact_location=str(tmp_path / "a"))
    told = []
    callback = CAMCallback(
        ProbeSet(*(t[:8] for t in data.tensors)), max_images=1, on_alert=told.append, on_error="raise"
    )
    trainer = fit(callback, model=make_module(training_step=Poison.training_step), logger=[board, flow], epochs=4)
    assert trainer.current_epoch == 4 and len(callback.store) == 4
    flags = [record.metrics["cam/alert/collapsed"] for record in callback.store]
    assert flags == [0, 1, 1, 1] and [r.metrics["cam/valid_frac/eigencam"] for r in callback.store] == [1, 0, 0, 0]
    assert {(a.name, a.method, a.epoch) for a in told} == {("collapsed", m, 1) for m in ("eigencam", "gradcam")}
    logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
    assert {key for key in logged if key.startswith("cam/alert/")} == {f"cam/alert/{name}" for name in NAMES}
    assert logged["cam/alert/collapsed"] == 1 and np.isfinite(list(logged.values())).all()

    events = EventAccumulator(board.log_dir).Reload()
    assert [e.value for e in events.Scalars("cam/alert/collapsed")] == [1, 1, 1]  # from the look on at which it fired
    assert [tag for tag in events.Tags()["scalars"] if tag.startswith("cam/alert/")] == ["cam/alert/collapsed"]
    (text,) = {e.tensor_proto.string_val[0].decode() for e in events.Tensors("cam/alert/collapsed/text_summary")[:1]}
    assert "0% of the images have a valid map; since epoch 1" in text
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/m.db")
    tag = client.get_run(flow.run_id).data.tags["cam.alert.collapsed"]
    assert tag == "epoch 1"  # no longer than MLflow shows
    assert (tmp_path / "a" / flow.run_id / "artifacts/cam/alerts/look-000001.txt").read_text().count("collapsed") == 2


@pytest.mark.parametrize(("stop", "epochs"), [(["collapsed"], 2), (["off_target"], 3)])
def test_stop_on_alert_ends_the_training_at_that_alert_alone(fit, make_module, stop, epochs):
    callback = CAMCallback(methods="gradcam", stop_on_alert=stop, on_error="raise")
    trainer = fit(callback, model=make_module(training_step=Poison.training_step), epochs=3)
    assert trainer.current_epoch == epochs


def test_alert_states_survive_a_resume(fit, make_module, tmp_path):
    """One that is raised is not raised again."""
    told = []
    arguments = {"methods": "gradcam", "folder": tmp_path / "looks", "on_alert": told.append, "on_error": "raise"}
    trainer = fit(CAMCallback(**arguments), model=make_module(training_step=Poison.training_step), epochs=2)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    again = CAMCallback(**arguments)
    fit(again, epochs=3, ckpt_path=str(tmp_path / "two.ckpt"))
    assert [a.epoch for a in told] == [1]
    assert [(a.epoch, a.since_epoch, a.new) for a in again.store[-1].alerts] == [(2, 1, False)]


def test_a_hook_that_fails_stops_nothing(fit, make_module):
    def fail(alert):
        raise RuntimeError("no network")

    callback = CAMCallback(methods="gradcam", on_alert=fail)
    with pytest.warns(UserWarning, match="on_alert failed; training goes on.*no network"):
        fit(callback, model=make_module(training_step=Poison.training_step), epochs=2)
    assert len(callback.store) == 2 and callback.failed_looks == 0


def test_records_from_before_there_were_alerts_still_open(images, tmp_path):
    monitor = CAMMonitor(ProbeSet(images), "eigencam", "late", folder=tmp_path)
    monitor.look(Spotlight())
    path = monitor.store.path(0)
    with np.load(path) as file:
        arrays = dict(file)
    header = arrays["header"].tobytes().decode()
    old = header[: header.index(', "t_maps"')] + "}"
    arrays["header"] = np.frombuffer(old.encode(), np.uint8)
    np.savez(path, **{name: value for name, value in arrays.items() if name != "t_0"})
    assert monitor.store[0].alerts == monitor.store[0].judged == () and monitor.store[0].t_maps == {}
