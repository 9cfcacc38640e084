"""Score-CAM and Ablation-CAM against loops that ask the model once for each channel."""

import copy

import numpy as np
import pytest
import torch
from methods_by_hand import (
    CLASSES,
    LAYERS,
    activations_and_gradients,
    assert_maps_close,
    both_precisions,
    logit,
    resized,
    scaled,
    weighted,
)
from torch import nn

from cam_engine import CAM


@pytest.mark.parametrize("layer", LAYERS)
def test_scorecam_is_a_loop_over_masked_images(layer, exact_net, three_photos):
    A, _ = activations_and_gradients(exact_net, layer, three_photos, logit(CLASSES))
    expected = []
    for image, a, c in zip(three_photos, A, CLASSES, strict=True):
        scores = []
        for channel in a:
            mask = torch.from_numpy(scaled(resized(channel, 48, 48, aligned=True)))
            with torch.no_grad():
                scores.append(float(exact_net((image * mask)[None])[0, c]))
        weights = np.exp(scores) / np.exp(scores).sum()
        expected.append(np.maximum(weighted(weights, a), 0))
    for net, tolerance in both_precisions(exact_net):
        for size in (1, 7, 32):
            raw = CAM(net, "scorecam", layer, batch_size=size)(three_photos, CLASSES).raw["scorecam", layer]
            assert_maps_close(raw, expected, tolerance)


def ablated(net, layer, images, classes):
    """Ablation-CAM by a loop with a hook that sets one channel to zero."""
    expected = []
    with torch.no_grad():
        for image, c in zip(images, classes, strict=True):
            kept = []
            handle = net.get_submodule(layer).register_forward_hook(lambda m, i, o, kept=kept: kept.append(o.clone()))
            whole = float(net(image[None])[0, c])
            handle.remove()
            weights = []
            for k in range(kept[-1].shape[1]):
                mask = torch.ones(kept[-1].shape[1], dtype=image.dtype)
                mask[k] = 0
                handle = net.get_submodule(layer).register_forward_hook(
                    lambda m, i, o, mask=mask: o * mask[:, None, None]
                )
                weights.append((whole - float(net(image[None])[0, c])) / abs(whole))
                handle.remove()
            expected.append(np.maximum(weighted(weights, kept[-1][0].double().numpy()), 0))
    return expected


@pytest.mark.parametrize("layer", LAYERS)
def test_ablationcam_is_a_loop_over_channels(layer, exact_net, three_photos):
    expected = ablated(exact_net, layer, three_photos, CLASSES)
    for net, tolerance in both_precisions(exact_net):
        for size in (1, 7, 32):
            raw = CAM(net, "ablationcam", layer, batch_size=size)(three_photos, CLASSES).raw["ablationcam", layer]
            assert_maps_close(raw, expected, tolerance)


def test_ablationcam_divides_by_the_scores_magnitude(exact_net, three_photos):
    """Desai & Ramaswamy divide by the score, which turns the map upside down where it is negative."""
    down = copy.deepcopy(exact_net)
    with torch.no_grad():
        down.head.bias[1] -= 100
    up, below = (CAM(net, ["ablationcam"], "stage2")(three_photos, 1) for net in (exact_net, down))
    assert (below.scores < 0).all()
    a, b = up.raw["ablationcam", "stage2"], below.raw["ablationcam", "stage2"]
    torch.testing.assert_close(a * up.scores.abs()[:, None, None], b * below.scores.abs()[:, None, None])


class SkipPast(nn.Module):
    """What passes by the layer is added, or concatenated, after a layer that changes its input and is not idempotent."""

    def __init__(self, how, inplace):
        super().__init__()
        self.how = how
        self.first = nn.Conv2d(3, 8, 4, 4)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.Hardswish(inplace=inplace)
        self.head = nn.Linear(16 if how == "concatenated" else 8, 4)

    def forward(self, x):
        x = self.first(x)
        y = self.act(self.norm(x))
        y = torch.cat([x, y], 1) if self.how == "concatenated" else x + y
        return self.head((y * y).mean((2, 3)))


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("how", ["added", "concatenated"])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_ablationcam_where_something_passes_by_the_layer(batch, how, inplace, three_photos):
    """The layers before it cannot be given fewer images then, and what was given to the attempt must not be used again."""
    net = SkipPast(how, inplace).double().eval()
    reference = copy.deepcopy(net)
    reference.act.inplace = False
    images, classes = three_photos[:batch], [1, 0, 2][:batch]
    expected = ablated(reference, "norm", images, classes)
    for size in (1, 2, 3, 32):
        raw = CAM(net, "ablationcam", "norm", batch_size=size)(images, classes).raw["ablationcam", "norm"]
        assert_maps_close(raw, expected, 1e-9, least=1)
