"""The numbers about maps against Quantus, torchcam and grad-cam, with the options that make them agree."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from cam_engine import CAM, metrics
from cam_engine.metrics.faithfulness import impute

pytest.importorskip("pytorch_grad_cam", reason="make test-peers runs this in .venv-peers")
quantus = pytest.importorskip("quantus")

pytestmark = pytest.mark.peers

REFERENCE = runpy.run_path(str(Path(__file__).with_name("make_reference.py")))
AS_THEY_ARE = {"normalise": False, "abs": False, "disable_warnings": True, "display_progressbar": False}


@pytest.fixture(scope="module")
def case():
    """A small network on real photographs, its GradCAM maps at their own size, and masks of that size."""
    net, images, classes = REFERENCE["seeded_network"](), REFERENCE["real_images"](), torch.tensor([0, 3, 2, 1])
    with torch.no_grad():
        net.head.weight.div_(REFERENCE["LOGIT_SCALE"])  # confidences away from 0 and 1
    result = CAM(net, "gradcam", "late")(images, classes)
    maps = result.raw["gradcam", "late"].double().numpy()
    masks = np.zeros(maps.shape, bool)
    for i, mask in enumerate(masks):
        mask[i : i + 3, 1:4] = True
    return net, images, classes, result, maps, masks


def by_quantus(metric, case, masks=None):
    net, _, classes, _, maps, _ = case
    batch = {"a_batch": maps[:, None], "y_batch": classes.numpy()}
    # Quantus wants images and masks of the attributions' size.
    batch["x_batch"] = np.zeros((len(maps), 1, *maps.shape[1:]), np.float32)
    if masks is not None:
        batch["s_batch"] = masks[:, None]
    return np.array(metric(model=net, **batch, device="cpu"), dtype=float)


def test_complexity_and_sparseness(case):
    maps = case[4]
    complexity = by_quantus(quantus.Complexity(**AS_THEY_ARE), case)
    np.testing.assert_allclose(metrics.entropy(maps) * np.log(maps[0].size), complexity, rtol=1e-6)
    sparseness = by_quantus(quantus.Sparseness(**AS_THEY_ARE), case)
    np.testing.assert_allclose(metrics.gini(maps), sparseness, atol=1e-3)  # theirs adds 1e-7 to every cell


def test_localisation(case):
    maps, masks = case[4], case[5]
    mass = by_quantus(quantus.RelevanceMassAccuracy(**AS_THEY_ARE), case, masks)
    np.testing.assert_allclose(metrics.on_target_mass(maps, masks), mass, rtol=1e-6)
    untied = maps + np.linspace(0, 1e-9, maps[0].size).reshape(maps[0].shape)
    ranked = by_quantus(quantus.RelevanceRankAccuracy(**AS_THEY_ARE), (*case[:4], untied, masks), masks)
    np.testing.assert_allclose(metrics.rank_accuracy(untied, masks), ranked, rtol=1e-6)
    area = by_quantus(quantus.AUC(**AS_THEY_ARE), case, masks)
    np.testing.assert_allclose(metrics.pixel_auc(maps, masks), area, rtol=1e-6)


def test_pointing_game_and_what_quantus_makes_of_an_empty_mask(case):
    maps, masks = case[4], case[5].copy()
    hits = by_quantus(quantus.PointingGame(**AS_THEY_ARE), case, masks)
    np.testing.assert_array_equal(metrics.pointing_game(maps, masks), hits)
    masks[1] = False
    assert np.isnan(metrics.pointing_game(maps, masks)).tolist() == [False, True, False, False]
    assert by_quantus(quantus.PointingGame(**AS_THEY_ARE), case, masks)[1] == 1  # a hit, of nothing


def confidence(net, classes):
    def score(images):
        with torch.no_grad():
            return net(images).softmax(1).gather(1, classes[:, None])[:, 0]

    return score


def test_average_drop_and_increase_equal_torchcams(case):
    from torchcam.methods import GradCAM
    from torchcam.metrics import ClassificationMetric

    net, images, classes, _, _, _ = case
    with GradCAM(net, "late") as extractor:
        metric = ClassificationMetric(extractor, lambda logits: logits.softmax(1))
        metric.update(images, classes.tolist())
        theirs = metric.summary()
        # On torchcam's own maps: it scales them before the ReLU.
        (maps,) = extractor(classes.tolist(), net(images).softmax(1))
    heat = metrics.heatmaps(maps, tuple(images.shape[2:]))
    score = confidence(net, classes)
    assert metrics.average_drop(score, images, heat).mean() == pytest.approx(theirs["avg_drop"], rel=1e-4)
    assert metrics.confidence_increase(score, images, heat).mean() == pytest.approx(theirs["conf_increase"])


def test_road_without_noise_equals_grad_cams(case, monkeypatch):
    from pytorch_grad_cam.metrics import road
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    net, images, classes, result, _, _ = case
    monkeypatch.setattr(road.NoisyLinearImputer.__init__, "__defaults__", (0.0, road.neighbors_weights))
    heat = result["gradcam"].numpy()
    heat = heat + np.float32(1e-3) * np.random.default_rng(0).random(heat.shape, np.float32)  # no ties at a threshold
    targets = [ClassifierOutputSoftmaxTarget(int(c)) for c in classes]
    theirs = road.ROADCombined(percentiles=[20, 50, 80])(images, heat, targets, net)
    ours = metrics.road(confidence(net, classes), images, heat, percentiles=(20, 50, 80), noise=0)
    assert np.abs(theirs).max() > 1e-3
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    keep = heat[0] < np.percentile(heat[0], 60)
    filled = road.NoisyLinearImputer(noise=0)(images[0], torch.from_numpy(keep.astype(np.float32)))
    np.testing.assert_allclose(impute(images[0].numpy(), keep), filled.numpy(), atol=1e-5)
