"""Alerts: raised in time, taken back without chatter, and told everywhere, through a monitor and a real Trainer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from cam_callbacks import CAMCallback, CAMMonitor, ProbeSet, RecordStore
from cam_callbacks.look import alerts
from cam_callbacks.look.alerts import Verdict, judge, make_rules
from cam_callbacks.look.measurement import Measurement
from cam_engine.metrics import MaxT

NAMES = ["off_target", "losing_focus", "focus_moved", "diffuse", "collapsed"]


def measured(look=5, settled=True, reference_set=True, enrichment=None, then=None, p=1.0, n=12, floor=0.01, **numbers):
    """What a rule judges, calm and right unless said otherwise."""
    numbers = {"drift_ref": 0.01, "entropy": 0.7, "valid_frac": 1.0} | numbers
    per_image = {name: np.full(12, value) for name, value in numbers.items() if name != "valid_frac"}
    if enrichment is not None:
        per_image["on_target_enrichment"] = np.broadcast_to(np.asarray(enrichment, float), (12,))
    t = np.zeros((3, 3))
    t[0, 2] = 9.0
    return Measurement(look, settled, reference_set, numbers, per_image, then, floor, MaxT(t, 9.0, p, n))


def play(rule, looks):
    """Which of a series of looks an alert is raised at."""
    states, raised = {}, []
    for number, of_look in enumerate(looks):
        states, found = judge([rule], states, {("gradcam", "late"): of_look}, number, number, list("abcdefghijkl"))
        raised.append([(a.new, a.since_look) for a in found])
    return raised


NEW, OLD, NONE = (True, 1), (False, 1), []


@pytest.mark.parametrize(
    ("name", "quiet", "bad", "between"),
    [
        ("off_target", {"enrichment": 2}, {"enrichment": 0.9}, {"enrichment": 1.02}),
        (
            "losing_focus",
            {"enrichment": np.linspace(2, 3, 12), "then": np.linspace(2, 3, 12)},
            {"enrichment": np.linspace(1.8, 2.7, 12), "then": np.linspace(2, 3, 12)},
            {"enrichment": np.linspace(1.93, 2.89, 12), "then": np.linspace(2, 3, 12)},
        ),
        ("focus_moved", {}, {"p": 0.002, "drift_ref": 0.2}, {"p": 0.5, "drift_ref": 0.04}),
        ("diffuse", {}, {"entropy": 0.97}, {"entropy": 0.94}),
    ],
)
def test_a_rule_needs_two_looks_running_and_clears_at_its_lower_threshold(name, quiet, bad, between):
    rule = make_rules([name])[0]
    looks = [quiet, bad, bad, between, bad, between, quiet, bad, quiet, bad]
    raised = play(rule, [measured(**look) for look in looks])
    assert raised == [NONE, NONE, [NEW], [OLD], [OLD], [OLD], NONE, NONE, NONE, NONE]
    # A gap between two bad looks, even if it does not clear, is no run.
    assert play(rule, [measured(**look) for look in (quiet, bad, between, bad, between)]) == [NONE] * 5
    # Before the focus has settled nothing but an empty map is judged.
    assert play(rule, [measured(**bad, settled=False)] * 4) == [NONE] * 4


def test_collapsed_at_once_but_never_at_the_first_look():
    rule = make_rules(["collapsed"])[0]
    told = play(rule, [measured(look=i, valid_frac=v, settled=False) for i, v in enumerate([0.0, 0.4, 0.6, 0.8, 1.0])])
    assert told == [NONE, [NEW], [OLD], NONE, NONE]


def test_losing_focus_is_the_paired_t_test():
    """Six per cent down: on all images alike it is lost, on images that scatter it is not."""
    rule, then = make_rules(["losing_focus"])[0], np.linspace(2, 3, 12)
    alike = then * 0.94
    scattered = alike + np.resize([0.6, -0.6], 12)
    for now, holds in ((alike, True), (scattered, None)):
        t = stats.ttest_rel(now, then).statistic
        verdict = rule.judge(measured(enrichment=now, then=then))
        assert bool(t < -4) is (holds is True) and verdict.holds is holds
        assert f"paired t = {t:.1f} on 12 images" in verdict.measured
        assert verdict.images[0] == int(np.argmin(now - then))


def test_focus_moved_needs_the_test_its_effect_the_drift_and_eight_images():
    rule = make_rules(["focus_moved"])[0]
    assert rule.judge(measured(p=0.001, drift_ref=0.2)).holds
    assert "top right" in rule.judge(measured(p=0.001, drift_ref=0.2)).measured
    bad = {"p": 0.001, "drift_ref": 0.2}
    for change in ({"p": 0.02}, {"drift_ref": 0.04}, {"n": 7}, {"n": 400}, {"floor": 0.07}, {"reference_set": False}):
        assert rule.judge(measured(**bad | change)).holds is not True
    assert [alerts.place(np.eye(9).reshape(9, 3, 3)[i]) for i in (0, 4, 5, 7)] == [
        "top left",
        "centre",
        "right",
        "bottom",
    ]


def test_plain_values_make_rules():
    assert [rule.name for rule in make_rules(None)] == NAMES and make_rules([]) == ()
    assert make_rules([{"name": "diffuse", "above": 0.8, "looks": 1}])[0].judge(measured(entropy=0.81)).holds
    for wrong, error, message in (
        (["of_target"], ValueError, "nearest: .*off_target"),
        ([{"name": "diffuse", "below": 0.8}], ValueError, "no setting below; it takes above, clears, looks"),
        (["diffuse", "diffuse"], ValueError, "twice"),
        ("diffuse", TypeError, "takes a list"),
        ([3], TypeError, "names, dictionaries and rules"),
    ):
        with pytest.raises(error, match=message):
            CAMCallback(alerts=wrong)
    with pytest.raises(ValueError, match=r"names diffuse; .* are off_target"):
        CAMCallback(alerts=["off_target"], stop_on_alert=["diffuse"])


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
    three = {"off_target", "losing_focus", "focus_moved"}
    assert [{name for name, on in of_look.items() if on} for of_look in states] == [set()] * 5 + [three] * 2 + [set()]
    assert sorted(alert.name for alert in told) == sorted(three)
    moved = next(alert for alert in told if alert.name == "focus_moved")
    assert (moved.look, moved.since_look, moved.method, moved.layer) == (5, 4, "gradcam", "late")
    assert "bottom right" in moved.measured and len(moved.images) == 5 and set(moved.images) <= set(probe.ids)
    assert [r.message.split()[2] for r in caplog.records if "alert" in r.message] == [a.name for a in told]
    stored = RecordStore(tmp_path / "resumed").read(6)
    assert [(a.name, a.new, a.since_look) for a in stored.alerts] == [(n, False, 4) for n in NAMES[:3]]
    assert stored.t_maps["gradcam", "late"].argmax() == 4 * 6 + 4 and stored.t_maps["gradcam", "late"].shape == (6, 6)
    assert stored.reference["gradcam/late"]["grid"] == [6, 6]
    by_hand = stats.ttest_rel(*(m.reshape(10, -1)[:, 28] / m.sum((1, 2)) for m in
                                (stored.maps["gradcam", "late"], monitor.tracks["gradcam", "late"].reference)))  # fmt: skip
    assert stored.t_maps["gradcam", "late"][4, 4] == pytest.approx(by_hand.statistic, rel=1e-3)


def test_a_rule_of_ones_own(images):
    class Bright:
        name, looks, advice = "bright", 1, "Turn the light down."

        def judge(self, of_look):
            return Verdict(of_look.numbers["entropy"] > 0.5, "too bright", [3])

    record = CAMMonitor(ProbeSet(images), "eigencam", "late", alerts=[Bright()]).look(Spotlight())
    assert record.metrics["cam/alert/bright"] == 1 and "cam/alert/diffuse" not in record.metrics
    assert str(record.alerts[0]).endswith("too bright; since epoch 0. Images: 3. Turn the light down.")


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
    assert [e.value for e in events.Scalars("cam/alert/collapsed")] == flags
    (text,) = {e.tensor_proto.string_val[0].decode() for e in events.Tensors("cam/alert/collapsed/text_summary")[:1]}
    assert "0% of the images have a valid map; since epoch 1" in text
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/m.db")
    tag = client.get_run(flow.run_id).data.tags["cam.alert.collapsed"]
    assert "valid map" in tag and [line.split()[1] for line in tag.splitlines()] == ["(eigencam", "(gradcam"]
    assert (tmp_path / "a" / flow.run_id / "artifacts/cam/alerts/look-000001.txt").read_text().count("collapsed") == 2


@pytest.mark.parametrize(("stop", "epochs"), [(["collapsed"], 2), (["diffuse"], 3)])
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
    assert monitor.store[0].alerts == () and monitor.store[0].t_maps == {}
