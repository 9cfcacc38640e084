"""Our heatmaps against arrays that the grad-cam package made (tests/peers/make_reference.py), to 1e-4."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

TESTS = Path(__file__).parents[1]
REFERENCE = runpy.run_path(str(TESTS / "peers" / "make_reference.py"))
LAYERS = REFERENCE["LAYERS"]
TOLERANCE = 1e-4
WEIGHTED = [m for m in REFERENCE["METHODS"] if m not in REFERENCE["SIGNED"] and "aug_smooth" not in m]


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
@pytest.mark.parametrize("method", WEIGHTED)
def test_equals_grad_cam(method, layers, net, images, classes, stored):
    expected = stored[f"{method}/{layers}"]
    assert (expected.max((1, 2)) > 0.9).all(), "the reference shows something for every image"
    np.testing.assert_allclose(
        REFERENCE["our_maps"](net, images, classes, method, LAYERS[layers]), expected, atol=TOLERANCE
    )


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("method", ["gradcam aug_smooth", "fem aug_smooth"])
def test_aug_smooth_equals_grad_cam_but_for_the_last_scaling(method, layers, net, images, classes, stored):
    theirs = stored[f"{method}/{layers}"]
    low, high = theirs.min((1, 2), keepdims=True), theirs.max((1, 2), keepdims=True)
    ours = REFERENCE["our_maps"](net, images, classes, method, LAYERS[layers])
    np.testing.assert_allclose(ours, (theirs - low) / (high - low), atol=TOLERANCE)


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("method", REFERENCE["SIGNED"])
def test_equals_grad_cam_up_to_the_sign_it_leaves_to_chance(method, layers, net, images, classes, stored):
    names, expected = LAYERS[layers], stored[f"{method}/{layers}"]
    candidates = REFERENCE["both_signs"](net, images, classes, method, names)
    ours = REFERENCE["our_maps"](net, images, classes, method, names)
    np.testing.assert_allclose(candidates[0], ours, atol=1e-5)
    for i, theirs in enumerate(expected):
        assert theirs.max() > 0.9
        distance = min(np.abs(candidate[i] - theirs).max() for candidate in candidates)
        assert distance < TOLERANCE, f"image {i}: {distance:.2g} from the nearest sign"


@pytest.mark.parametrize("key", ["images", "classes", *(f"{m}/{k}" for m in REFERENCE["METHODS"] for k in LAYERS)])
def test_the_reference_is_of_this_network(key, stored):
    """An array that is missing or of another run would make the tests above compare nothing."""
    assert np.isfinite(stored[key]).all()
    assert len(stored[key]) == len(stored["images"])
