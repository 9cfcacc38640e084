"""The stored reference once more, live against the installed grad-cam package, and on torchvision's ResNet-18."""

import itertools
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cam_engine import CAM, CAMResult, methods
from cam_engine.capture import Target, capture, gradients

pytest.importorskip("pytorch_grad_cam", reason="make test-peers runs this in .venv-peers")
torchvision = pytest.importorskip("torchvision")

pytestmark = pytest.mark.peers

REFERENCE = runpy.run_path(str(Path(__file__).with_name("make_reference.py")))
WEIGHTED = ["gradcam", "gradcam++", "xgradcam", "hirescam", "layercam"]
EIGEN = ["eigencam", "eigengradcam"]
TOLERANCE = 1e-4


def small():
    return REFERENCE["seeded_network"](), REFERENCE["real_images"](), torch.tensor([0, 3, 2, 1])


def resnet18():
    torch.manual_seed(1)
    net = torchvision.models.resnet18(weights=None).eval()
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # grad-cam would pair the activation behind it with the gradient before it
    with torch.no_grad():
        net.fc.weight.mul_(REFERENCE["LOGIT_SCALE"])
    images = nn.functional.interpolate(REFERENCE["real_images"](), size=(128, 160), mode="bilinear")
    return net, images, torch.tensor([281, 3, 999, 42])


CASES = {
    "small, one layer": (small, ["late"]),
    "small, two layers": (small, ["early", "late"]),
    "resnet18, one layer": (resnet18, ["layer4"]),
    "resnet18, two layers": (resnet18, ["layer3", "layer4"]),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    build, layers = CASES[request.param]
    return (*build(), layers)


@pytest.mark.parametrize("method", WEIGHTED)
def test_equals_grad_cam(method, case):
    net, images, classes, layers = case
    theirs = REFERENCE["peer_maps"](net, images, classes, method, layers)
    ours = CAM(net, method, layers)(images, classes)[method].numpy()
    assert (theirs.max((1, 2)) > 0.9).sum() >= 3
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


@pytest.mark.parametrize("method", EIGEN)
def test_equals_grad_cam_up_to_the_sign_it_leaves_to_chance(method, case):
    net, images, classes, layers = case
    theirs = REFERENCE["peer_maps"](net, images, classes, method, layers)
    targets = [Target(name, net.get_submodule(name), lambda _: ()) for name in layers]
    captured = capture(net, images, targets, record="from_layer")
    with torch.enable_grad():
        grads = gradients(captured.outputs.gather(1, classes[:, None]).squeeze(1), captured)
    signed = {}
    for name in layers:
        product = grads[name] if method == "eigengradcam" else torch.ones_like(grads[name])
        signed[name] = methods.eigencam(captured.activations[name].detach() * product)
    candidates = []
    for signs in itertools.product((1, -1), repeat=len(layers)):
        raw = {(method, n): (sign * signed[n]).relu() for n, sign in zip(layers, signs, strict=True)}
        candidates.append(CAMResult(raw, None, None, images.shape[-2:])[method].numpy())
    np.testing.assert_allclose(candidates[0], CAM(net, method, layers)(images, classes)[method].numpy(), atol=1e-5)
    for i, their in enumerate(theirs):
        distance = min(np.abs(candidate[i] - their).max() for candidate in candidates)
        assert distance < TOLERANCE, f"image {i}: {distance:.2g} from the nearest sign"


@pytest.mark.parametrize("method", WEIGHTED)
def test_the_stored_reference_is_what_grad_cam_computes_today(method):
    net, images, classes = small()
    with np.load(REFERENCE["PATH"]) as stored:
        for name, value in net.state_dict().items():
            np.testing.assert_allclose(stored[f"weight/{name}"], value.numpy(), rtol=1e-6)
        for key, layers in REFERENCE["LAYERS"].items():
            theirs = REFERENCE["peer_maps"](net, images, classes, method, layers)
            np.testing.assert_allclose(stored[f"{method}/{key}"], theirs, atol=1e-5)


def test_in_place_layers_change_our_maps_not_at_all():
    """torchvision's own ResNet-18, ReLUs in place as it ships, against the same without."""
    net, images, classes = resnet18()
    layers = ["layer3", "layer4.1.bn2", "layer4.0.bn1"]
    before = CAM(net, WEIGHTED + EIGEN, layers)(images, classes)
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    after = CAM(net, WEIGHTED + EIGEN, layers)(images, classes)
    for key, reference in before.raw.items():
        torch.testing.assert_close(after.raw[key], reference, rtol=1e-4, atol=1e-5 * float(reference.max()))
