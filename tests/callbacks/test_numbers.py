"""What a look measures beside the default numbers, what it is measured against, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cam_callbacks import CAMCallback, CAMMonitor, ProbeSet, RecordStore
from cam_engine import metrics
from cam_engine.metrics import coverage, jensen_shannon


@pytest.fixture
def probe(data, masks):
    return ProbeSet(data.tensors[0][:8], data.tensors[1][:8], masks=masks[:8])


def shaken(net, seed=0, scale=0.3):
    """The same network, elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return net


def looks(monitor, net, seeds):
    return [monitor.look(shaken(net, seed)) for seed in seeds]


def test_all_metrics_equal_the_functions_on_the_records_maps(net, probe, tmp_path):
    monitor = CAMMonitor(probe, "gradcam", "8", metrics="all", reference="first", folder=tmp_path)
    looks(monitor, net, range(3))
    first, second, third = RecordStore(tmp_path)
    region = coverage(probe.region_masks, (6, 6))
    known = {"maps": third, "reference": first, "previous": second}
    inputs = {name: record.maps["gradcam", "8"] for name, record in known.items()} | {"region": region}
    names = {name.removesuffix("/gradcam") for name in third.per_image}
    assert names == {m.name for m in metrics.get_metrics("all") if "nuisance" not in m.needs} | {"focus_drift"}
    for metric in metrics.get_metrics("all"):
        if "nuisance" not in metric.needs:
            expected = metric.function(*(inputs[need] for need in metric.needs))
            np.testing.assert_allclose(third.per_image[f"{metric.name}/gradcam"], expected, err_msg=metric.name)
    assert third.aggregates["gini/gradcam"]["low"] <= third.metrics["cam/gini/gradcam"]
    assert monitor.neutral().keys() == third.metrics.keys()


def test_metrics_by_name_reach_the_trainer(fit, probe):
    callback = CAMCallback(probe, methods="gradcam", metrics=["ssim", "pixel_auc", "road"], on_error="raise")
    trainer = fit(callback, epochs=1)
    for name in ("ssim", "pixel_auc", "road"):
        key = f"cam/{name}/gradcam"
        assert float(trainer.callback_metrics[key]) == pytest.approx(callback.store[0].metrics[key], rel=1e-5)


def test_faithfulness_is_of_the_explained_classs_probability(net, probe):
    record = CAMMonitor(probe, "gradcam", "8", metrics=["average_drop", "deletion"], batch_size=3).look(net)

    def score(images):
        with torch.no_grad():
            return net.eval()(images).softmax(1).gather(1, probe.labels[:, None])[:, 0]

    heat = metrics.heatmaps(record.maps["gradcam", "8"], (24, 24))
    for name in ("average_drop", "deletion"):
        expected = getattr(metrics, name)(score, probe.images, heat)
        np.testing.assert_allclose(record.per_image[f"{name}/gradcam"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"metrics": ["entropi"]}, "nearest: .*entropy"),
        ({"metrics": ["pixel_auc"]}, r"pixel_auc, which needs ProbeSet\(masks= or boxes=\)"),
        ({"metrics": "nuisance_mass"}, r"needs ProbeSet\(nuisance=\)"),
        ({"reference": -1}, "counted from 0"),
        ({"reference": "nowhere"}, "no such file"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(data, wrong, message):
    with pytest.raises(ValueError, match=message):
        CAMCallback(ProbeSet(data.tensors[0][:4]), **wrong)


# --- references ---


def test_the_reference_is_the_look_that_was_asked_for(net, probe):
    monitor = CAMMonitor(probe, "gradcam", "8", reference=2)
    records = looks(monitor, net, range(5))
    assert [r.reference["gradcam/8"]["look"] for r in records] == [0, 0, 2, 2, 2]
    assert [r.metrics["cam/reference_set/gradcam"] for r in records] == [0, 0, 1, 1, 1]
    expected = jensen_shannon(records[4].maps["gradcam", "8"], records[2].maps["gradcam", "8"])
    np.testing.assert_allclose(records[4].per_image["drift_ref/gradcam"], expected)
    resumed = CAMMonitor(probe, "gradcam", "8", reference=2)
    resumed.load_state_dict(monitor.state_dict())
    assert resumed.look(net).metrics["cam/drift_ref/gradcam"] == records[4].metrics["cam/drift_ref/gradcam"]


def test_a_checkpoint_is_a_baseline_and_leaves_the_model_as_it_was(fit, make_module, probe, tmp_path):
    trainer = fit(epochs=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    expected = CAMMonitor(probe, "gradcam", "8").look(trainer.lightning_module.net).maps["gradcam", "8"]
    module = make_module()
    shaken(module.net)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    monitor = CAMMonitor(probe, "gradcam", "net.8", reference=tmp_path / "one.ckpt")
    record = monitor.look(module)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    np.testing.assert_allclose(monitor.tracks["gradcam", "net.8"].reference, expected, atol=1e-6)
    drift = jensen_shannon(record.maps["gradcam", "net.8"], expected)
    np.testing.assert_allclose(record.per_image["drift_ref/gradcam"], drift, atol=1e-6)
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
    with pytest.raises(RuntimeError, match="does not fit"):
        CAMMonitor(probe, "gradcam", "0", reference=tmp_path / "one.ckpt").look(other)


def test_a_run_in_mlflow_is_a_baseline(fit, pl, probe, tmp_path):
    flow = pl("pytorch_lightning").loggers.MLFlowLogger(
        "e", "r", f"sqlite:///{tmp_path}/m.db", artifact_location=str(tmp_path / "a")
    )
    arguments = {"methods": "gradcam", "max_images": 0, "on_error": "raise"}
    before = CAMCallback(probe, **arguments)
    fit(before, logger=flow, epochs=1)
    again = pl("pytorch_lightning").loggers.MLFlowLogger("e", "s", f"sqlite:///{tmp_path}/m.db")
    callback = CAMCallback(probe, **arguments, reference=flow.run_id)
    fit(callback, logger=again, epochs=2)
    assert callback.store[0].metrics["cam/reference_set/gradcam"] == 1
    assert callback.store[0].metrics["cam/drift_ref/gradcam"] == pytest.approx(0, abs=1e-9)
    expected = jensen_shannon(callback.store[1].maps["gradcam", "net.8"], before.store[0].maps["gradcam", "net.8"])
    np.testing.assert_allclose(callback.store[1].per_image["drift_ref/gradcam"], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 1.0}, "fingerprint"),
        ({"methods": "eigencam"}, "has no maps of eigencam/8; it has gradcam/8"),
        ({"layers": "5"}, "has no maps of gradcam/5"),
        ({"target": 1}, r"explained target='label', this run explains target=1"),
        ({"grid": 12}, r"\(8, 12, 12\), this run \(8, 6, 6\).*never mixed"),
    ],
)
def test_a_baseline_that_differs_is_refused_with_the_difference_named(net, data, tmp_path, change, message):
    images, labels = data.tensors[0][:8], data.tensors[1][:8]
    monitor = CAMMonitor(ProbeSet(images, labels), "gradcam", "8", folder=tmp_path / "old")
    monitor.look(net)
    if "grid" in change:
        record = monitor.store[0]
        record.maps["gradcam", "8"] = np.ones((8, 12, 12), np.float32)
        monitor.store.write(record)
    probe = ProbeSet(images + change.get("images", 0.0), labels)
    arguments = {"methods": "gradcam", "layers": "8", "target": "label"}
    arguments |= {k: v for k, v in change.items() if k in arguments}
    with pytest.raises(ValueError, match=message):
        CAMMonitor(probe, **arguments, reference=tmp_path / "old").look(net)


def test_a_baseline_of_another_list_of_targets_is_refused(net, data, tmp_path):
    probe = ProbeSet(data.tensors[0][:4], data.tensors[1][:4])
    CAMMonitor(probe, "gradcam", "8", target=[0, 1, 2, 3], folder=tmp_path / "old").look(net)
    again = CAMMonitor(probe, "gradcam", "8", target=[0, 1, 2, 3], reference=tmp_path / "old").look(net)
    assert again.metrics["cam/drift_ref/gradcam"] == 0
    with pytest.raises(ValueError, match="another class than this run in 2 of 4 images, first in image 1"):
        CAMMonitor(probe, "gradcam", "8", target=[0, 2, 1, 3], reference=tmp_path / "old")


# --- targets, groups, counterfactuals ---


def test_drift_of_the_predicted_class_is_split_by_flips(data):
    images = data.tensors[0][:12].clone()
    images[:, 0, 0, 0] = data.tensors[1][:12].float()
    monitor = CAMMonitor(ProbeSet(images), "gradcam", "late", reference="first")
    net = Cheat()
    first = monitor.look(net)
    net.misread = 2
    second = monitor.look(shaken(net))
    flipped = first.predictions != second.predictions
    assert flipped.sum() == 3
    drift = second.per_image["drift_ref/gradcam"]
    assert second.metrics["cam/flip_rate/gradcam"] == pytest.approx(flipped.mean())
    assert second.metrics["cam/drift_flipped/gradcam"] == pytest.approx(np.nanmean(drift[flipped]))
    assert second.metrics["cam/drift_unflipped/gradcam"] == pytest.approx(np.nanmean(drift[~flipped]))
    assert first.metrics["cam/flip_rate/gradcam"] == 0 and np.isnan(first.metrics["cam/drift_flipped/gradcam"])
    assert monitor.neutral().keys() == second.metrics.keys()


def test_each_group_has_its_numbers(net, data, masks, tmp_path):
    groups = ["clinic A/1", "clinic A 1", "b"] * 4
    probe = ProbeSet(data.tensors[0][:12], data.tensors[1][:12], masks=masks[:12], groups=groups)
    record = CAMMonitor(probe, "gradcam", "8", folder=tmp_path).look(net)
    values = record.per_image["on_target_enrichment/gradcam"].reshape(4, 3)
    for i, (tag, key) in enumerate(zip(groups[:3], ("clinic_A_1", "clinic_A_1_n2", "b"), strict=True)):
        expected = pytest.approx(np.nanmean(values[:, i]))
        assert RecordStore(tmp_path)[0].aggregates["on_target_enrichment/gradcam"][f"group:{tag}"] == expected
        assert record.metrics[f"cam/on_target_enrichment.{key}/gradcam"] == expected


def test_group_means_reach_the_trainer(fit, data):
    probe = ProbeSet(data.tensors[0][:6], data.tensors[1][:6], groups=["x", "y"] * 3)
    callback = CAMCallback(probe, methods="gradcam", on_error="raise")
    trainer = fit(callback, epochs=1)
    assert "cam/drift_ref.x/gradcam" in trainer.callback_metrics


class Cheat(nn.Module):
    """Reads the class off the first pixel; one class can be misread."""

    def __init__(self):
        super().__init__()
        self.misread = -1
        self.late = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        read = x[:, 0, 0, 0].long()
        read = torch.where(read == self.misread, 0, read)
        return nn.functional.one_hot(read, 4) * 9.0 + self.late(x).relu().mean((2, 3)) * 0.01


def test_counterfactual_gap_is_the_fall_in_accuracy(data):
    images, labels = data.tensors[0][:8].clone(), data.tensors[1][:8]
    images[:, 0, 0, 0] = labels.float()
    without = images.clone()
    without[:6, 0, 0, 0] = (labels[:6] + 1).float() % 4
    probe = ProbeSet(images, labels, counterfactual=without)
    record = CAMMonitor(probe, "gradcam", "late", batch_size=3).look(Cheat())
    assert record.metrics["cam/counterfactual_gap"] == 0.75
    assert record.per_image["counterfactual_gap"].tolist() == [1] * 6 + [0, 0]
    assert probe.fingerprint == ProbeSet(images, labels).fingerprint
    with pytest.raises(ValueError, match="counterfactual needs labels"):
        ProbeSet(images, counterfactual=without)
    with pytest.raises(ValueError, match="counterfactual has shape"):
        ProbeSet(images, labels, counterfactual=without[:4])


# --- errors ---


def test_regions_and_labels_that_do_not_fit_are_refused(data, masks, net):
    images, labels = data.tensors[0][:4], data.tensors[1][:4]
    for wrong, error, message in (
        ({"masks": masks[:4, :12]}, ValueError, r"masks has shape \(4, 12, 24\); the images need \(4, 24, 24\)"),
        ({"masks": masks[:4].float() * 0.5}, TypeError, "masks must be bool"),
        ({"boxes": [[(0, 0, 30, 10)]] * 4}, ValueError, "inside the 24x24 image"),
        ({"class_names": ["a", "b"]}, ValueError, "holds class 3, but class_names has 2"),
    ):
        with pytest.raises(error, match=message):
            ProbeSet(images, labels, **wrong)
    with pytest.raises(RuntimeError, match="7"):
        CAMMonitor(ProbeSet(images, [0, 1, 2, 7]), "gradcam", "8").look(net)


def test_randomcam_is_the_floor_of_localisation(net, data, masks):
    """Bright blobs draw any weighting of an untrained network's channels: chance is 1, the floor is not."""
    probe = ProbeSet(data.tensors[0], data.tensors[1], masks=masks)
    record = CAMMonitor(probe, ["randomcam"], "5").look(net)
    expected = metrics.enrichment(record.maps["randomcam", "5"], probe.regions((12, 12)))
    assert record.metrics["cam/on_target_enrichment/randomcam"] == pytest.approx(np.nanmean(expected)) != 1
