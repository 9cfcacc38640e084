"""ShapleyCAM against the whole Hessian, and finite differences."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from methods_by_hand import CLASSES, LAYERS, assert_maps_close, both_precisions, weighted
from torch import nn

from cam_engine import CAM


class SmoothTail(nn.Module):
    """A score that is not linear in the activations: their Hessian is not zero."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Softplus())
        self.conv = nn.Conv2d(4, 6, 3)
        self.head = nn.Linear(6, 3)

    def tail(self, a):
        return self.head(F.gelu(self.conv(a)).flatten(2).pow(2).mean(2))

    def forward(self, x):
        return self.tail(self.layer(x))


def test_shapleycam_uses_the_whole_hessian(three_photos):
    net, classes = SmoothTail().double().eval(), [2, 0, 1]
    small = three_photos[:, :, 10:20, 10:22]
    expected = []
    for image, c in zip(small, classes, strict=True):
        a = net.layer(image[None]).detach()

        def score(flat, c=c, shape=a.shape):
            return net.tail(flat.reshape(shape))[0, c]

        flat = a.flatten()
        H = torch.autograd.functional.hessian(score, flat)
        g = torch.autograd.functional.jacobian(score, flat)
        assert (H @ flat).abs().max() > 0.1 * g.abs().max(), "the second order has to matter here"
        weights = (g - 0.5 * H @ flat).reshape(a.shape[1:]).mean((1, 2)).numpy()
        expected.append(np.maximum(weighted(weights, a[0].numpy()), 0))
    for net_, tolerance in both_precisions(net):
        raw = CAM(net_, ["gradcam", "shapleycam"], "layer")(small, classes).raw["shapleycam", "layer"]
        assert_maps_close(raw, expected, tolerance)


def test_shapleycam_agrees_with_finite_differences(three_photos):
    net, small = SmoothTail().double().eval(), three_photos[:, :, 10:20, 10:22]
    a = net.layer(small).detach()

    def gradient(at):
        at = at.detach().requires_grad_()
        return torch.autograd.grad(net.tail(at)[:, 0].sum(), at)[0]

    step = 1e-5
    product = (gradient(a * (1 + step)) - gradient(a * (1 - step))) / (2 * step)  # H·A: the direction is A itself
    weights = (gradient(a) - 0.5 * product).mean((2, 3)).numpy()
    raw = CAM(net, "shapleycam", "layer")(small, 0).raw["shapleycam", "layer"]
    assert_maps_close(raw, np.maximum([weighted(w, b) for w, b in zip(weights, a.numpy(), strict=True)], 0), 1e-7)


@pytest.mark.parametrize("layer", LAYERS)
def test_shapleycam_is_gradcam_where_the_score_is_piecewise_linear(layer, exact_net, three_photos):
    raw = CAM(exact_net, ["shapleycam", "gradcam"], layer)(three_photos, CLASSES).raw
    torch.testing.assert_close(raw["shapleycam", layer], raw["gradcam", layer])


def test_shapleycam_of_several_layers_is_that_of_each(three_photos):
    net = nn.Sequential(SmoothTail().layer, nn.Conv2d(4, 5, 3), nn.GELU(), nn.Flatten(), nn.Linear(5 * 22 * 22, 3))
    net = net.double().eval()
    together = CAM(net, "shapleycam", ["0", "2"])(three_photos, CLASSES % 3).raw
    for layer in ("0", "2"):
        alone = CAM(net, "shapleycam", layer)(three_photos, CLASSES % 3).raw["shapleycam", layer]
        torch.testing.assert_close(together["shapleycam", layer], alone)


def test_shapleycam_differentiates_attention_twice(three_photos):
    """torch's fused attention has no second derivative."""

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, 16, 8, 8)
            self.encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
            self.head = nn.Linear(16, 4)

        def forward(self, x):
            return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))

    result = CAM(Attention().eval(), ["shapleycam", "gradcam"], "patches")(three_photos.float(), 1)
    assert result.valid["shapleycam"].any()
    assert not torch.allclose(result.raw["shapleycam", "patches"], result.raw["gradcam", "patches"], rtol=1e-3)
