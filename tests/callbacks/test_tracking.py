"""Reference, floor, ceiling and drift over a run, against scipy and against the definitions written out."""

from __future__ import annotations

import itertools
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch import nn

from cam_callbacks import CAMMonitor, ProbeSet, RecordStore
from cam_callbacks.look.explaining import Explained
from cam_callbacks.look.measuring import Measurer
from cam_callbacks.look.noise_floor import ceiling
from cam_callbacks.look.options import LookOptions
from cam_callbacks.look.reference import measured_against
from cam_callbacks.look.tracking import Track
from cam_engine import CAM
from cam_engine.metrics import aggregate, jensen_shannon, mean


def jsd(a, b):
    return np.array([jensenshannon(x.ravel(), y.ravel(), base=2) ** 2 for x, y in zip(a, b, strict=True)])


def maps(seed, n=12, size=5):
    return np.random.default_rng(seed).random((n, size, size)).astype(np.float32) ** 3


def test_floor_is_the_drift_that_noise_alone_makes(net, data):
    images, labels = data.tensors[0][:6], data.tensors[1][:6]
    record = CAMMonitor(ProbeSet(images, labels), "eigencam", "8", seed=7).look(net)
    cam = CAM(net, "eigencam", "8")
    clean = cam(images, labels).raw["eigencam", "8"].double().numpy()
    generator = torch.Generator().manual_seed(7)
    repeats = []
    for _ in range(3):
        noisy = images + 0.1 * images.std((0, 2, 3), keepdim=True) * torch.randn(images.shape, generator=generator)
        repeats.append(jsd(clean, cam(noisy, labels).raw["eigencam", "8"].double().numpy()))
    assert record.metrics["cam/noise_floor/eigencam"] == pytest.approx(np.mean(repeats), abs=1e-9)
    pairs = list(itertools.combinations(range(6), 2))
    expected = np.mean([jsd(clean[[i]], clean[[j]])[0] for i, j in pairs])
    assert record.metrics["cam/ceiling/eigencam"] == pytest.approx(expected, abs=1e-9)


def test_ceiling_takes_two_hundred_pairs_of_different_images():
    many = maps(0, n=40)
    whole = np.mean([jsd(many[[i]], many[[j]])[0] for i, j in itertools.combinations(range(40), 2)])
    assert ceiling(many, seed=0) == ceiling(many, seed=0) != ceiling(many, seed=1)
    assert ceiling(many, seed=0) == pytest.approx(whole, rel=0.05)
    assert np.isnan(ceiling(many[:1], seed=0))


def test_ceiling_keeps_no_list_of_all_pairs():
    """Eight million pairs of 4096 images would take 134 MB."""
    many = np.random.default_rng(0).random((4096, 2, 2)).astype(np.float32)
    tracemalloc.start()
    ceiling(many, seed=0)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    first, second = np.triu_indices(30, k=1)
    chosen = np.random.default_rng(5).choice(435, 200, replace=False)
    few = many[:30]
    assert ceiling(few, seed=5) == mean(jensen_shannon(few[first[chosen]], few[second[chosen]]))


def run(policy, series, floor=0.01):
    """Take a series of maps through a track, as the monitor does; the numbers and the reference's look at each step."""
    key, tracks, results = ("gradcam", "late"), {("gradcam", "late"): Track()}, []
    probe = ProbeSet(torch.zeros(12, 3, 5, 5))
    measurer = Measurer(probe, LookOptions().metrics_on(probe), name=None, seed=0)
    for look, now in enumerate(series):
        tracks = measured_against(tracks, {key: now}, None, look, policy, seed=0, floors=lambda _: {key: floor})
        numbers = measurer.measure(Explained({key: now}, None, None, None), tracks, look).series[key].per_image
        track = tracks[key]
        results.append((track.reference_look, track.reference_set, {k: mean(v) for k, v in numbers.items()}))
        tracks = {key: replace(track, previous=now)}
    return results


def test_settled_reference_is_the_second_calm_look_running():
    a, b = maps(1), maps(2)
    calm = [a + 0.001 * maps(i) for i in range(10, 16)]
    results = run("settled", [b, a, b, calm[0], calm[1], b, calm[2], calm[3], calm[4], b])
    assert [look for look, _, _ in results] == [0] * 8 + [8, 8]
    assert [fixed for _, fixed, _ in results] == [False] * 8 + [True, True]
    against_first = results[1][2]
    assert against_first["drift_ref"] == pytest.approx(jsd(a, b).mean(), rel=1e-6)
    assert results[8][2]["drift_ref"] == results[8][2]["focus_drift"] == 0
    last = results[9][2]
    assert last["drift_ref"] == pytest.approx(jsd(b, calm[4]).mean(), rel=1e-6)
    # What the focus drifted by itself while it was calm is taken off, not what noise in the images does.
    h = np.mean([jsd(calm[2], calm[3]).mean(), jsd(calm[3], calm[4]).mean()])
    assert last["focus_drift"] == pytest.approx((last["drift_ref"] - h) / (1 - h), rel=1e-6)


def test_a_high_noise_floor_makes_calm_easier():
    near = [maps(1) + 0.4 * maps(i) for i in range(10, 14)]
    steps = [jsd(x, y).mean() for x, y in itertools.pairwise(near)]
    assert min(steps) > 0.05 and max(steps) < 0.15
    assert not run("settled", near, floor=0.01)[-1][1]
    assert run("settled", near, floor=0.05)[-1][1]


def test_a_record_says_whether_the_reference_is_set_and_whether_the_focus_has_settled(net, data):
    """The second is about the training, whatever drift is measured against."""
    probe = ProbeSet(data.tensors[0][:6], data.tensors[1][:6])
    for policy, is_set in (("first", [True] * 4), ("settled", [False, False, True, True]), (3, [False] * 3 + [True])):
        monitor = CAMMonitor(probe, "gradcam", "8", reference=policy)
        references = [monitor.look(net).reference["gradcam/8"] for _ in range(4)]
        assert [r["reference_set"] for r in references] == is_set
        assert [r["settled"] for r in references] == [False, False, True, True]  # nothing moved: calm at looks 1 and 2


def test_a_look_that_could_not_be_written_leaves_nothing_behind(net, data, tmp_path, monkeypatch):
    probe = ProbeSet(data.tensors[0][:6], data.tensors[1][:6])
    monitor, steady = (CAMMonitor(probe, "gradcam", "8", folder=tmp_path / name) for name in ("one", "two"))
    for each in (monitor, steady):
        each.look(net)
    with monkeypatch.context() as broken:
        broken.setattr(RecordStore, "write", lambda store, record: 1 / 0)
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            monitor.look(net)
    nn.init.normal_(net[7].weight, std=0.3)
    after, expected = monitor.look(net), steady.look(net)
    assert after.look == expected.look == 1
    for key in expected.metrics.keys() - {"cam/seconds", "cam/exchange_seconds"}:
        np.testing.assert_equal(after.metrics[key], expected.metrics[key], err_msg=key)


def test_the_first_versions_checkpoints_still_load(net, data):
    probe = ProbeSet(data.tensors[0][:6], data.tensors[1][:6])
    monitor, resumed = (CAMMonitor(probe, "gradcam", "8", reference="first") for _ in range(2))
    monitor.look(net)
    state = monitor.state_dict()
    for track in state["tracks"]:
        track["fixed"] = track.pop("reference_set")
    resumed.load_state_dict(state)
    assert resumed.tracks["gradcam", "8"].reference_set and resumed.look(net).look == 1


def test_first_reference_never_moves():
    series = [maps(1), maps(2), maps(2), maps(2)]
    assert {(look, fixed) for look, fixed, _ in run("first", series)} == {(0, True)}


def test_looks_without_any_valid_map_are_no_reference():
    nothing = np.zeros((12, 5, 5), np.float32)
    results = run("first", [nothing, nothing, maps(1), maps(2)])
    assert [look for look, _, _ in results] == [-1, -1, 2, 2]
    assert np.isnan(results[0][2]["entropy"]) and results[3][2]["drift_ref"] > 0


def test_invalid_images_are_left_out_and_counted(net, data):
    probe = ProbeSet(data.tensors[0][:5], data.tensors[1][:5])
    probe.images[2] = float("nan")  # a probe with such an image would be refused; the model makes it here
    record = CAMMonitor(probe, "eigencam", "8").look(net)
    assert record.metrics["cam/valid_frac/eigencam"] == pytest.approx(0.8)
    assert np.isnan(record.per_image["entropy/eigencam"]).tolist() == [False, False, True, False, False]
    assert record.aggregates["entropy/eigencam"]["n"] == 4
    assert np.isfinite(record.metrics["cam/entropy/eigencam"])


def test_aggregates():
    values = np.array([0.1, 0.5, np.nan, 0.9, 0.3] + [0.2] * 20)
    labels = np.array([0, 0, 0, 1, 1] + [2] * 20)
    low = aggregate(values, labels)
    assert low["mean"] == pytest.approx(np.nanmean(values))
    assert low["median"] == pytest.approx(np.nanmedian(values))
    assert low["worst_tenth"] == pytest.approx((0.1 + 0.2) / 2)
    assert low["worst_class"] == pytest.approx(0.2)
    high = aggregate(values, labels, high_is_worse=True)
    assert high["worst_tenth"] == pytest.approx((0.9 + 0.5) / 2)
    assert high["worst_class"] == pytest.approx(0.6)
    assert high["n"] == 24


def test_a_baseline_is_the_last_look_of_another_run(net, data, tmp_path):
    probe = ProbeSet(data.tensors[0][:6], data.tensors[1][:6])
    old = CAMMonitor(probe, "gradcam", "8", folder=tmp_path / "old")
    old.look(net)
    with torch.no_grad():
        net[7].weight.add_(0.3 * torch.randn(net[7].weight.shape, generator=torch.Generator().manual_seed(0)))
    new = CAMMonitor(probe, "gradcam", "8", reference=tmp_path / "old").look(net)
    expected = jsd(new.maps["gradcam", "8"].astype(np.float64), old.store[-1].maps["gradcam", "8"].astype(np.float64))
    np.testing.assert_allclose(new.per_image["drift_ref/gradcam"], expected, atol=1e-9)
    assert new.metrics["cam/drift_ref/gradcam"] > 0 and new.metrics["cam/reference_set/gradcam"] == 1
    other = ProbeSet(data.tensors[0][:6] + 1, data.tensors[1][:6])
    with pytest.raises(ValueError, match="fingerprint"):
        CAMMonitor(other, "gradcam", "8", reference=tmp_path / "old")
    with pytest.raises(ValueError, match="it holds none of our records"):
        CAMMonitor(probe, "gradcam", reference="setled")


def test_every_batch_size_gives_the_same_record(net, data):
    probe = ProbeSet(data.tensors[0][:7], data.tensors[1][:7])
    whole, parts = (CAMMonitor(probe, ("gradcam", "eigencam"), "8", batch_size=b).look(net) for b in (32, 3))
    for key in whole.maps:
        np.testing.assert_allclose(whole.maps[key], parts.maps[key], atol=1e-6)
    assert whole.metrics["cam/noise_floor/eigencam"] == pytest.approx(
        parts.metrics["cam/noise_floor/eigencam"], abs=1e-6
    )


def test_predicted_target_explains_the_prediction(net, data):
    images = data.tensors[0][:8]
    record = CAMMonitor(ProbeSet(images), "gradcam", "8").look(net)
    with torch.no_grad():
        predicted = net.eval()(images).argmax(1)
    assert record.targets.tolist() == predicted.tolist() == record.predictions.tolist()
    np.testing.assert_allclose(
        record.maps["gradcam", "8"], CAM(net, "gradcam", "8")(images, predicted).raw["gradcam", "8"], atol=1e-6
    )


def test_several_layers_have_keys_of_their_own(net, data):
    record = CAMMonitor(ProbeSet(data.tensors[0][:4]), "gradcam++", ["2", "8"]).look(net)
    assert {"cam/entropy/gradcampp/2", "cam/entropy/gradcampp/8"} <= record.metrics.keys()
    assert record.maps["gradcam++", "2"].shape == (4, 12, 12)
    assert "entropy/gradcampp/8" in record.per_image


def test_state_goes_through_a_weights_only_checkpoint(net, data, tmp_path):
    probe = ProbeSet(data.tensors[0][:6], data.tensors[1][:6])
    straight, stopped = (CAMMonitor(probe, "gradcam", "8") for _ in range(2))
    for monitor in (straight, stopped):
        monitor.look(net)
    torch.save(stopped.state_dict(), tmp_path / "state.pt")
    resumed = CAMMonitor(probe, "gradcam", "8")
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    nn.init.normal_(net[7].weight, std=0.3)
    a, b = straight.look(net).metrics, resumed.look(net).metrics
    clocks = {"cam/seconds", "cam/exchange_seconds"}
    np.testing.assert_equal(*({k: v for k, v in of.items() if k not in clocks} for of in (a, b)))
    with pytest.raises(ValueError, match="must not be mixed"):
        CAMMonitor(ProbeSet(data.tensors[0][:5]), "gradcam").load_state_dict(stopped.state_dict())


def test_a_new_monitor_never_writes_over_records(tmp_path, net):
    probe = ProbeSet(torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(0)))
    for _ in range(3):  # as by someone who makes the monitor inside the loop
        monitor = CAMMonitor(probe, "eigencam", folder=tmp_path / "looks")
        for epoch in range(2):
            monitor.look(net, epoch=epoch)
    for folder in ("looks", "looks-2", "looks-3"):
        assert [r.epoch for r in RecordStore(tmp_path / folder)] == [0, 1]
    again = CAMMonitor(probe, "eigencam", folder=tmp_path / "looks-3")
    again.load_state_dict(monitor.state_dict())
    again.look(net)
    assert [r.look for r in again.store] == [0, 1, 2] and again.store.folder == tmp_path / "looks-3"


class OneLogit(nn.Module):
    """A binary head that is sure of class 0 on some images and of class 1 on others."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3)))


@pytest.mark.parametrize("target", ["predicted", "label"])
def test_the_floor_of_a_single_logit_is_that_of_the_score_that_is_explained(target, data):
    """Explained with the sign lost, a map is compared with that of the other class: a floor near 1."""
    net = OneLogit().eval()
    with torch.no_grad():
        net.head.bias -= net(data.tensors[0]).median()
    monitor = CAMMonitor(ProbeSet(data.tensors[0][:12], data.tensors[1][:12] % 2), "gradcam", "conv", target=target)
    record = monitor.look(net)
    assert 0 < record.predictions.mean() < 1
    assert record.metrics["cam/noise_floor/gradcam"] < 0.2
    assert record.metrics["cam/focus_drift/gradcam"] == 0


def test_noise_is_per_channel(data):
    """A channel of another scale does not set the noise of the others."""
    from cam_callbacks.look.noise_floor import with_noise

    images = data.tensors[0][:16] * torch.tensor([1.0, 1.0, 100.0])[:, None, None]
    noise = torch.cat([noisy[range(16)] - images for noisy in with_noise(images, seed=0)])
    np.testing.assert_allclose(noise.std((0, 2, 3)), 0.1 * images.std((0, 2, 3)), rtol=0.03)


@pytest.mark.parametrize("shape", [(40, 3, 24, 24), (37, 1, 5, 7), (3, 3, 7, 7)])
def test_noise_comes_a_few_images_at_a_time(shape):
    """What one call for all images would draw, in any order and again; no tensor of all images is made."""
    from cam_callbacks.look.noise_floor import with_noise

    images = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    spread, generator = 0.1 * images.std((0, 2, 3), keepdim=True), torch.Generator().manual_seed(5)
    whole = [images + spread * torch.randn(shape, generator=generator) for _ in range(2)]
    for expected, noisy in zip(whole, with_noise(images, seed=5, repeats=2), strict=True):
        for indices in ([len(images) - 1, 0], [0], list(range(len(images)))):
            torch.testing.assert_close(noisy[indices], expected[indices], rtol=0, atol=0)


def test_until_the_focus_has_settled_calm_is_judged_by_the_floor_of_now():
    """An untrained network's floor says nothing of the network that it becomes."""
    key, tracks, asked = ("gradcam", "late"), {("gradcam", "late"): Track()}, []

    def floors(repeats):
        asked.append((look, repeats))
        return {key: 0.3 if look == 0 else 0.001}

    series = [maps(1), maps(1) + 0.4 * maps(10), *[maps(1) + 0.001 * maps(i) for i in range(20, 23)]]
    for look, now in enumerate(series):
        tracks = measured_against(tracks, {key: now}, None, look, "settled", seed=0, floors=floors)
        tracks = {key: replace(tracks[key], previous=now)}
    assert (
        asked == [(0, 3), (1, 1), (2, 1), (3, 1), (4, 1), (4, 3)]
        and tracks[key].settled
        and tracks[key].reference_look == 4
    )
    measured_against(tracks, {key: series[-1]}, None, 5, "settled", seed=0, floors=lambda _: 1 / 0)
