"""FullGrad: its terms are complete, its map is their sum, by hooks on a copy."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from methods_by_hand import CLASSES, assert_maps_close, both_precisions, logit, resized, scaled
from torch import nn

from cam_engine import CAM, register
from cam_engine.methods import registry


class Shared(nn.Module):
    """One convolution and one batch norm that run twice, as a detector's head does on every level of its pyramid."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.shared = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.head = nn.Linear(6, 5)
        self.only_in_training = nn.Conv2d(6, 2, 1)  # an auxiliary head, as GoogLeNet's

    def forward(self, x):
        x = self.shared(self.stem(x))
        return self.head(self.shared(F.max_pool2d(x, 2)).mean((2, 3)))


def shared_net():
    torch.manual_seed(2)
    net = Shared().double()
    with torch.no_grad():
        norm = net.shared[1]
        (
            norm.weight.uniform_(0.5, 1.5),
            norm.bias.normal_(),
            norm.running_mean.normal_(),
            norm.running_var.uniform_(0.5, 2),
        )
    return net.eval()


def fullgrad_terms(net, images, classes):
    """Input × gradient, and bias × gradient at every call of a convolution or batch norm, by hooks on a copy."""
    net, kept = copy.deepcopy(net), []

    def keep(module, _inputs, output):
        output.retain_grad()
        if isinstance(module, nn.BatchNorm2d):
            scale = module.weight / torch.sqrt(module.running_var + module.eps)
            kept.append((output, module.bias - module.running_mean * scale))
        elif module.bias is not None:
            kept.append((output, module.bias))
        return output.clone()  # an in-place layer comes next

    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            module.register_forward_hook(keep)
    images = images.clone().requires_grad_()
    logit(classes)(net(images)).sum().backward()
    terms = [images * images.grad] + [bias[:, None, None] * output.grad for output, bias in kept]
    return [t.detach().numpy() for t in terms]


def fullgrad(terms, size):
    out = np.zeros((len(terms[0]), *size))
    for term in terms:
        for n, c in np.ndindex(*term.shape[:2]):
            out[n] += resized(scaled(np.abs(term[n, c])), *size, aligned=False)
    return out


@pytest.fixture
def terms_method():
    """A method of one's own that only keeps what it was given."""
    seen = {}

    @register("terms", needs=["bias_terms"])
    def terms(activations, bias_terms):
        seen["terms"] = bias_terms
        return activations

    yield seen
    del registry._METHODS["terms"]


@pytest.mark.parametrize("build", ["cnn", "in place", "shared"])
def test_fullgrad_terms_are_complete_and_its_map_is_their_sum(build, make_cnn, terms_method, three_photos):
    """For a network of ReLUs, input × gradient plus all biases × gradients is the score (Srinivas & Fleuret 2019, prop. 1)."""
    net = shared_net() if build == "shared" else make_cnn(inplace=build == "in place").double()
    result = CAM(net, ["fullgrad", "terms"])(three_photos, CLASSES)
    total = sum(t.flatten(1).sum(1) for t in terms_method["terms"]) + net.head.bias.detach()[CLASSES]
    torch.testing.assert_close(total, result.scores, rtol=0, atol=1e-4 * float(result.scores.abs().max()))
    terms = fullgrad_terms(net, three_photos, CLASSES)
    assert len(terms) == len(terms_method["terms"])
    expected = fullgrad(terms, (48, 48))
    for net_, tolerance in both_precisions(net):
        result = CAM(net_, "fullgrad")(three_photos, CLASSES)
        (raw,) = result.raw.values()
        assert_maps_close(raw, expected, tolerance, least=3)


def test_fullgrad_is_the_same_whatever_the_layer(cnn, photos):
    raw = CAM(cnn, "fullgrad", ["stem", "stage2"])(photos, 1).raw
    assert raw["fullgrad", "stem"].shape == (8, 48, 48)
    torch.testing.assert_close(raw["fullgrad", "stem"], raw["fullgrad", "stage2"])


def test_fullgrad_of_a_frozen_model(cnn, photos):
    before = CAM(cnn, "fullgrad")(photos, 1)["fullgrad"]
    torch.testing.assert_close(CAM(cnn.requires_grad_(False), "fullgrad")(photos, 1)["fullgrad"], before)


def test_fullgrad_without_biases_says_so(photos):
    net = nn.Sequential(nn.Conv2d(3, 4, 8, 8, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    with pytest.raises(ValueError, match="fullgrad needs a model with biases"):
        CAM(net, "fullgrad", "0")(photos)
