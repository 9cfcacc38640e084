"""CAM, by the weights of the last linear layer, and RandomCAM, by weights drawn."""

import numpy as np
import pytest
import torch
from methods_by_hand import CLASSES, activations_and_gradients, assert_maps_close, logit, weighted
from torch import nn

from cam_engine import CAM


@pytest.mark.parametrize("targets", [CLASSES.tolist(), None])
def test_cam_is_the_class_weights_and_so_gradcam_times_the_cells(targets, exact_net, three_photos):
    result = CAM(exact_net, ["cam", "gradcam"], "stage2")(three_photos, targets)
    A, _ = activations_and_gradients(exact_net, "stage2", three_photos, logit(CLASSES))
    classes = result.outputs.argmax(1) if targets is None else CLASSES
    weights = exact_net.head.weight.detach().numpy()
    expected = np.maximum([weighted(weights[c], a) for c, a in zip(classes, A, strict=True)], 0)
    assert_maps_close(result.raw["cam", "stage2"], expected, 1e-12)
    torch.testing.assert_close(result.raw["cam", "stage2"], 36 * result.raw["gradcam", "stage2"])


@pytest.mark.parametrize("target", [0, 1, None])
def test_cam_of_a_single_logit_is_for_or_against_it(target, make_cnn, three_photos):
    net = make_cnn(classes=1, inplace=False).double()
    raw = CAM(net, ["cam", "gradcam"], "stage2")(three_photos, target).raw
    torch.testing.assert_close(raw["cam", "stage2"], 36 * raw["gradcam", "stage2"])


@pytest.mark.parametrize(
    ("layer", "targets"), [("stage1", 1), ("stage2", lambda outputs: outputs[:, 0])], ids=["layer", "callable"]
)
def test_cam_says_what_it_needs(layer, targets, cnn, photos):
    with pytest.raises(ValueError, match="'cam' needs a class as its target and a model that ends in one linear layer"):
        CAM(cnn, "cam", layer)(photos, targets)


def test_cam_does_not_take_another_linear_layer_for_the_head(photos):
    """A gate (squeeze and excitation) has as many inputs as the layer has channels."""

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(3, 8, 8, 8)
            self.head = nn.Linear(8, 4)
            self.gate = nn.Linear(8, 8)

        def forward(self, x):
            a = self.body(x)
            return self.head((a * self.gate(a.mean((2, 3))).sigmoid()[:, :, None, None]).mean((2, 3)))

    net = Gated().eval()
    A = net.body(photos).detach()
    expected = (net.head.weight[2].detach()[None, :, None, None] * A).sum(1).relu()
    torch.testing.assert_close(CAM(net, "cam", "body")(photos, 2).raw["cam", "body"], expected)


def test_randomcam_is_seeded_and_leaves_the_streams_alone(cnn, photos):
    before = torch.get_rng_state()
    first = CAM(cnn, "randomcam", "stage2")(photos)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    again = CAM(cnn, "randomcam", "stage2")(photos)
    other = CAM(cnn, "randomcam", "stage2", seed=1)(photos)
    assert torch.equal(first.raw["randomcam", "stage2"], again.raw["randomcam", "stage2"])
    assert not torch.allclose(first.raw["randomcam", "stage2"], other.raw["randomcam", "stage2"])
    weights = (torch.rand(24, generator=torch.Generator().manual_seed(0)) * 2 - 1)[None, :, None, None]
    cnn(photos[:1])
    kept = []
    cnn.stage2.register_forward_hook(lambda m, i, o: kept.append(o.detach().clone()))
    cnn(photos)
    torch.testing.assert_close(first.raw["randomcam", "stage2"], (weights * kept[0]).sum(1).relu())
