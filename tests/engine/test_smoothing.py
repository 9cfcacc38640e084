"""eigen_smooth and aug_smooth, for every method that they are for."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from methods_by_hand import (
    CLASSES,
    EIGEN,
    activations_and_gradients,
    assert_maps_close,
    both_precisions,
    logit,
    principal,
    scaled,
)

from cam_engine import CAM, available_methods
from cam_engine.targets import MaskTarget


def test_eigen_smooth_is_the_first_component_of_the_weighted_activations(exact_net, three_photos):
    A, g = activations_and_gradients(exact_net, "stage1", three_photos, logit(CLASSES))
    by_channel = g.mean((2, 3))[:, :, None, None]
    products = {
        "gradcam": by_channel * A,
        "hirescam": g * A,
        "layercam": np.maximum(g, 0) * A,
        "gradcam_elementwise": np.maximum(g * A, 0),
    }
    for net, tolerance in both_precisions(exact_net):
        raw = CAM(net, list(products), "stage1", eigen_smooth=True)(three_photos, CLASSES).raw
        for method, weighted_activations in products.items():
            expected = np.maximum([principal(p) for p in weighted_activations], 0)
            assert_maps_close(raw[method, "stage1"], expected, tolerance)


@pytest.mark.parametrize("method", [*EIGEN, "fullgrad"])
def test_eigen_smooth_leaves_a_map_as_it_is(method, cnn, photos):
    plain, smooth = (CAM(cnn, method, "stage1", eigen_smooth=s)(photos, 1) for s in (False, True))
    assert torch.equal(plain.raw[method, "stage1"], smooth.raw[method, "stage1"])


def test_signs_of_eigen_smooth_survive_noise_on_the_image(cnn, photos):
    names = ["gradcam", "gradcam++", "xgradcam", "hirescam", "layercam", "gradcam_elementwise", "scorecam", "fem"]
    cam = CAM(cnn, names, "stage1", eigen_smooth=True)
    noisy = photos + 1e-3 * torch.randn(photos.shape, generator=torch.Generator().manual_seed(5))
    before, after = (cam(x, 1).raw for x in (photos, noisy))
    for method in names:
        similarity = F.cosine_similarity(before[method, "stage1"].flatten(1), after[method, "stage1"].flatten(1))
        assert similarity.min() > 0.9, (method, similarity)


def test_every_method_can_be_smoothed_both_ways(cnn, photos):
    result = CAM(cnn, available_methods(), "stage2", eigen_smooth=True, aug_smooth=True)(photos[:2], 1)
    for method in available_methods():
        assert result[method].shape == (2, 48, 48) and result[method].min() >= 0 and result[method].max() <= 1
        assert result.valid[method].any(), method


@pytest.mark.parametrize("layers", [["stage2"], ["stem", "stage2"]], ids=len)
@pytest.mark.parametrize("targets", [[0, 3, 4], None])
def test_aug_smooth_averages_six_variants_mirrored_back(targets, layers, exact_net, three_photos):
    names = ["gradcam", "eigencam", "scorecam", "fem", "fullgrad"]
    with torch.no_grad():
        classes = exact_net(three_photos).argmax(1).tolist() if targets is None else targets
    cam = CAM(exact_net, names, layers)
    smoothed = CAM(exact_net, names, layers, aug_smooth=True)(three_photos, targets)
    variants = [cam(three_photos * factor, classes) for factor in (0.9, 1.0, 1.1)]
    mirrored = [cam(three_photos.flip(3) * factor, classes) for factor in (0.9, 1.0, 1.1)]
    for method in names:
        pictures = sum(v[method].numpy() for v in variants) + sum(m[method].numpy()[:, :, ::-1] for m in mirrored)
        np.testing.assert_allclose(smoothed[method], [scaled(p) for p in pictures], atol=1e-6)
        assert np.allclose(smoothed[method].amax((1, 2)), 1)
        for layer in layers:
            raw = sum(v.raw[method, layer].numpy() for v in variants)
            raw = raw + sum(m.raw[method, layer].numpy()[:, :, ::-1] for m in mirrored)
            np.testing.assert_allclose(smoothed.raw[method, layer], raw / 6, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(smoothed.outputs, exact_net(three_photos).detach())
    torch.testing.assert_close(smoothed.scores, logit(classes)(smoothed.outputs))


def test_aug_smooth_explains_the_same_class_in_every_variant(exact_net, three_photos):
    """Where brightness flips the prediction, six variants of two classes would be averaged otherwise."""
    net = copy.deepcopy(exact_net)
    with torch.no_grad():  # two classes of equal score on the first image, told apart by the brightness alone
        out = [net(three_photos[:1] * f)[0] for f in (0.9, 1.0)]
        net.head.bias[1] += out[1][0] - out[1][1] - 1e-6
        predicted = {int(net(three_photos[:1] * f).argmax()) for f in (0.9, 1.1)}
    smoothed = CAM(net, "gradcam", "stage1", aug_smooth=True)(three_photos[:1])
    fixed = CAM(net, "gradcam", "stage1", aug_smooth=True)(three_photos[:1], smoothed.outputs.argmax(1))
    torch.testing.assert_close(smoothed["gradcam"], fixed["gradcam"])
    assert len(predicted) <= 2


def test_aug_smooth_mirrors_the_masks_of_a_target_too(photos):
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, stride=2, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(6, 3, 1)
    ).eval()
    masks = torch.zeros(2, 24, 24)
    masks[0, 3:9, 2:8], masks[1, 12:20, 15:22] = 1, 1
    smoothed = CAM(net, "hirescam", "0", aug_smooth=True)(photos[:2], MaskTarget(1, masks))
    plain = [CAM(net, "hirescam", "0")(photos[:2] * f, MaskTarget(1, masks)) for f in (0.9, 1.0, 1.1)]
    sides = [CAM(net, "hirescam", "0")(photos[:2].flip(3) * f, MaskTarget(1, masks.flip(2))) for f in (0.9, 1.0, 1.1)]
    raw = sum(r.raw["hirescam", "0"] for r in plain) + sum(r.raw["hirescam", "0"].flip(2) for r in sides)
    torch.testing.assert_close(smoothed.raw["hirescam", "0"], raw / 6)
