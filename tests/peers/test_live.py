"""The stored reference once more, live against the installed grad-cam package, and on torchvision's ResNet-18."""

import copy
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from methods_by_hand import ONE_PASS
from torch import nn

from cam_engine import CAM, methods
from cam_engine.capture import Tap, capture, gradients

pytest.importorskip("pytorch_grad_cam", reason="make test-peers runs this in .venv-peers")
torchvision = pytest.importorskip("torchvision")

pytestmark = pytest.mark.peers

REFERENCE = runpy.run_path(str(Path(__file__).with_name("make_reference.py")))
SIGNED = list(REFERENCE["SIGNED"])
WEIGHTED = [m for m in REFERENCE["METHODS"] if m not in SIGNED and "aug_smooth" not in m]
FORWARDS = ("scorecam", "ablationcam")  # a forward for each channel

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
    if method in FORWARDS and hasattr(net, "fc"):
        if len(layers) > 1:
            pytest.skip("512 forwards once are enough")
        images, classes = images[:1, :, :64, :64], classes[:1]
    theirs = REFERENCE["peer_maps"](net, images, classes, method, layers)
    ours = REFERENCE["our_maps"](net, images, classes, method, layers)
    assert (theirs.max((1, 2)) > 0.9).sum() >= min(3, len(theirs))
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


@pytest.mark.parametrize("method", SIGNED)
def test_equals_grad_cam_up_to_the_sign_it_leaves_to_chance(method, case):
    net, images, classes, layers = case
    theirs = REFERENCE["peer_maps"](net, images, classes, method, layers)
    candidates = REFERENCE["both_signs"](net, images, classes, method, layers)
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
    before = CAM(net, list(ONE_PASS), layers)(images, classes)
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    after = CAM(net, list(ONE_PASS), layers)(images, classes)
    for key, reference in before.raw.items():
        torch.testing.assert_close(after.raw[key], reference, rtol=1e-4, atol=1e-5 * float(reference.max()))


# --- where ours differs on purpose, or grad-cam has no counterpart ---


def activations_and_gradients(net, layer, images, classes):
    target = Tap(layer, net.get_submodule(layer), lambda _: ())
    captured = capture(net, images, [target], record="from_layer")
    with torch.enable_grad():
        grads = gradients(captured.outputs.gather(1, classes[:, None]).squeeze(1), captured.activations)
    return captured.activations[layer].detach(), grads[layer]


def minmax(maps):
    maps = np.asarray(maps)
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return (maps - low) / np.where(high > low, high - low, 1)


class GeluTail(nn.Module):
    """A score with a second derivative."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.Softplus())
        self.conv = nn.Conv2d(8, 8, 3)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(nn.functional.gelu(self.conv(self.layer(x))).mean((2, 3)))


def test_shapleycam_with_a_hessian_equals_grad_cam():
    torch.manual_seed(0)
    net, (_, images, classes) = GeluTail().eval(), small()
    with torch.no_grad():
        net.fc.weight.mul_(REFERENCE["LOGIT_SCALE"])
    theirs = REFERENCE["peer_maps"](net, images, classes, "shapleycam", ["layer"])
    ours = CAM(net, ["shapleycam", "gradcam"], "layer")(images, classes)
    np.testing.assert_allclose(ours["shapleycam"].numpy(), theirs, atol=TOLERANCE)
    assert np.abs(ours["gradcam"].numpy() - theirs).max() > 0.01


def test_cam_equals_torchcam():
    from torchcam.methods import CAM as TorchCAM

    net, images, classes = resnet18()
    theirs_net = copy.deepcopy(net)
    with TorchCAM(theirs_net, "layer4", "fc") as extractor:
        theirs_net(images)
        (theirs,) = extractor(class_idx=classes.tolist(), normalized=False)
    ours = CAM(net, "cam", "layer4")(images, classes).raw["cam", "layer4"]
    torch.testing.assert_close(ours, theirs.detach().relu(), rtol=1e-4, atol=1e-4 * float(ours.max()))


@pytest.mark.parametrize("layer", ["layer3", "layer4"])
def test_gradcam_equals_captum(layer):
    from captum.attr import LayerGradCam

    net, images, classes = resnet18()
    ours = CAM(net, "gradcam", layer)(images, classes).raw["gradcam", layer]
    theirs_net = copy.deepcopy(net)
    theirs = LayerGradCam(theirs_net, theirs_net.get_submodule(layer)).attribute(
        images, classes, relu_attributions=True
    )
    torch.testing.assert_close(ours, theirs.detach()[:, 0], rtol=1e-4, atol=1e-4 * float(ours.max()))


def test_smoothgradcampp_without_noise_is_gradcampp_here_and_not_in_torchcam(monkeypatch):
    """Without noise the two papers agree. torchcam takes the third derivative into the sum over the cells."""
    from torchcam.methods import SmoothGradCAMpp

    net, images, classes = small()
    net = net.double()
    with torch.no_grad():
        net.head.weight.div_(REFERENCE["LOGIT_SCALE"] / 30)
    images = images.double()
    A, g = activations_and_gradients(net, "late", images, classes)
    paper = np.zeros((4, *A.shape[2:]))
    for n, k in np.ndindex(*A.shape[:2]):
        gradient = g[n, k].numpy()
        positive = gradient[gradient > 0]
        weight = (positive**2 / (2 * positive**2 + float(A[n, k].sum()) * positive**3) * positive).sum()
        paper[n] += weight * A[n, k].numpy()
    monkeypatch.setattr("cam_engine.extras.NOISE", 0.0)
    ours = CAM(net, "smoothgradcam++", "late")(images, classes).raw["smoothgradcam++", "late"].numpy()
    np.testing.assert_allclose(ours, np.maximum(paper, 0), rtol=1e-6)
    theirs_net = copy.deepcopy(net)
    with SmoothGradCAMpp(theirs_net, "late", num_samples=1, std=1e-12) as extractor:
        theirs_net(images.clone().requires_grad_())
        (theirs,) = extractor(class_idx=classes.tolist(), normalized=False)
    assert np.abs(minmax(theirs.detach().numpy()) - minmax(paper)).max() > 0.01


def test_gradcampp_on_ordinary_logits_is_the_papers_here_and_not_in_grad_cam():
    """Their eps is larger than what it guards; in float64 the paper's fraction needs none."""
    net, images, classes = small()
    with torch.no_grad():
        net.head.weight.div_(REFERENCE["LOGIT_SCALE"] * 10)
    A, g = (t.double() for t in activations_and_gradients(net, "late", images, classes))
    counted = g > 0
    alpha = g**2 / torch.where(counted, 2 * g**2 + A.sum((2, 3), keepdim=True) * g**3, 1.0)
    weights = torch.where(counted, alpha * g, 0.0).sum((2, 3))
    paper = methods.collapse(weights, A).relu()[:, None]
    paper = minmax(nn.functional.interpolate(paper, images.shape[2:], mode="bilinear")[:, 0].numpy())
    ours = CAM(net, "gradcam++", "late")(images, classes)["gradcam++"].numpy()
    theirs = REFERENCE["peer_maps"](net, images, classes, "gradcam++", ["late"])
    assert np.abs(ours - paper).max() < TOLERANCE
    assert np.abs(theirs - paper).max() > 0.01


def test_ablationcam_of_a_negative_score_is_upside_down_in_grad_cam():
    """A channel whose loss lowers the score speaks for the class, whatever the score's sign."""
    from pytorch_grad_cam import AblationCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    net, images, _ = small()
    with torch.no_grad():
        net.head.bias[1] -= 1000
    A = activations_and_gradients(net, "late", images, torch.ones(4, dtype=torch.long))[0]
    with torch.no_grad():
        whole = net.head(nn.functional.adaptive_avg_pool2d(A.clone(), 2).flatten(1))[:, 1].double()
        falls = []
        for k in range(A.shape[1]):
            without = A.clone()
            without[:, k] = 0
            falls.append(whole - net.head(nn.functional.adaptive_avg_pool2d(without, 2).flatten(1))[:, 1].double())
    assert (whole < 0).all()

    def picture(weights):
        maps = methods.collapse(weights, A.double()).relu()[:, None]
        return minmax(nn.functional.interpolate(maps, images.shape[2:], mode="bilinear")[:, 0].numpy())

    falls = torch.stack(falls, 1)
    ours = CAM(net, "ablationcam", "late")(images, 1)["ablationcam"].numpy()
    np.testing.assert_allclose(ours, picture(falls), atol=TOLERANCE)
    copied = copy.deepcopy(net)
    theirs = AblationCAM(copied, [copied.late])(images, [ClassifierOutputTarget(1)] * 4)
    np.testing.assert_allclose(theirs, picture(-falls), atol=TOLERANCE)


def test_grad_cam_pairs_the_wrong_tensors_before_an_in_place_layer():
    """The activation after the ReLU with the gradient before it; the same network without in-place layers shows which is right."""
    net, images, classes = resnet18()
    layer = "layer4.1.bn2"
    in_place = copy.deepcopy(net)
    for module in in_place.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    A, g = (t.double() for t in activations_and_gradients(net, layer, images, classes))
    right = (A * g).sum(1).relu()[:, None]
    right = minmax(nn.functional.interpolate(right, images.shape[2:], mode="bilinear")[:, 0].numpy())
    ours = CAM(in_place, "hirescam", layer)(images, classes)["hirescam"].numpy()
    np.testing.assert_allclose(ours, right, atol=TOLERANCE)
    theirs = REFERENCE["peer_maps"](in_place, images, classes, "hirescam", [layer])
    assert np.abs(theirs - right).max() > 0.1
