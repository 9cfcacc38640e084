"""Our heatmaps against arrays that the grad-cam package made (tests/peers/make_reference.py), to 1e-4."""

import itertools
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from cam_engine import CAM, CAMResult, methods
from cam_engine.capture import Target, capture, gradients

TESTS = Path(__file__).parents[1]
REFERENCE = runpy.run_path(str(TESTS / "peers" / "make_reference.py"))
LAYERS = REFERENCE["LAYERS"]
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def stored():
    with np.load(TESTS / "data" / "gradcam_reference.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def net(stored):
    prefix = "weight/"
    return REFERENCE["network"]({k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)})


@pytest.fixture(scope="module")
def images(stored):
    return torch.from_numpy(stored["images"])


@pytest.fixture(scope="module")
def classes(stored):
    return torch.from_numpy(stored["classes"])


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "xgradcam", "hirescam", "layercam"])
def test_equals_grad_cam(method, layers, net, images, classes, stored):
    expected = stored[f"{method}/{layers}"]
    assert (expected.max((1, 2)) > 0.9).all(), "the reference shows something for every image"
    ours = CAM(net, method, LAYERS[layers])(images, classes)[method].numpy()
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE)


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("method", ["eigencam", "eigengradcam"])
def test_equals_grad_cam_up_to_the_sign_it_leaves_to_chance(method, layers, net, images, classes, stored):
    names, expected = LAYERS[layers], stored[f"{method}/{layers}"]
    targets = [Target(name, net.get_submodule(name), lambda _: ()) for name in names]
    captured = capture(net, images, targets, record="from_layer")
    with torch.enable_grad():
        grads = gradients(captured.outputs.gather(1, classes[:, None]).squeeze(1), captured)
    activations = {name: captured.activations[name].detach() for name in names}
    if method == "eigengradcam":
        signed = {name: methods.eigengradcam(activations[name], grads[name]) for name in names}
    else:
        signed = {name: methods.eigencam(activations[name]) for name in names}

    candidates = []
    for signs in itertools.product((1, -1), repeat=len(names)):
        raw = {(method, n): (sign * signed[n]).relu() for n, sign in zip(names, signs, strict=True)}
        candidates.append(CAMResult(raw, None, None, images.shape[-2:])[method].numpy())
    ours = CAM(net, method, names)(images, classes)[method].numpy()
    np.testing.assert_allclose(candidates[0], ours, atol=1e-6)
    for i, theirs in enumerate(expected):
        assert theirs.max() > 0.9
        distance = min(np.abs(candidate[i] - theirs).max() for candidate in candidates)
        assert distance < TOLERANCE, f"image {i}: {distance:.2g} from the nearest sign"


@pytest.mark.parametrize("key", ["images", "classes", *(f"{m}/{k}" for m in REFERENCE["METHODS"] for k in LAYERS)])
def test_the_reference_is_of_this_network(key, stored):
    """An array that is missing or of another run would make the tests above compare nothing."""
    assert np.isfinite(stored[key]).all()
    assert len(stored[key]) == len(stored["images"])
