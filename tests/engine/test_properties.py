"""What has to hold for any small network, any image and every method; the exceptions say why."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from cam_engine import CAM, available_methods

QUICK = settings(
    max_examples=5, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
ALL = tuple(available_methods())
# The score enters through an exponential: Grad-CAM++ and its smooth kin by their derivation (exp(S)), Score-CAM by its softmax
# over channels, Finer-CAM by the rivals' probabilities, ExchangeCAM by the log-probability.
EXPONENTIAL = ("gradcam++", "smoothgradcam++", "scorecam", "finercam", "exchangecam")
CLASSLESS = ("eigencam", "kpcacam", "fem", "randomcam")
# Explains by the images themselves; the layer plays no part.
NOT_THE_LAYER = ("fullgrad", "exchangecam")
# Borrows from the other images of the batch, at random.
BORROWS = "exchangecam"


class Net(nn.Module):
    """Two convolutions, ReLUs and batch norm, global pooling and a linear head, all float64; stride 2 in the first."""

    def __init__(self, seed, channels, symmetric=False):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first = nn.Conv2d(channels, 6, 3, stride=1 if symmetric else 2, padding=1)
        self.layer = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU())
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.last = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Linear(6, 4)
        self.double().eval()
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5)
            for norm in (self.layer[0], self.last[0]):
                norm.weight.abs_().add_(0.3)
                norm.bias.abs_()
            if symmetric:
                for conv in (self.first, self.second):
                    conv.weight.copy_((conv.weight + conv.weight.flip(3)) / 2)

    def forward(self, x):
        return self.head(self.last(self.second(self.layer(self.first(x)))).mean((2, 3)))


@st.composite
def cases(draw, symmetric=False, least=5):
    """(network, images, classes): sizes odd and even, one, three or five channels, one to three images."""
    seed = draw(st.integers(0, 10_000))
    channels = draw(st.sampled_from([1, 3, 5]))
    size = draw(st.integers(least, 12)), draw(st.integers(least, 12))
    batch = draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(seed + 1)
    images = torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64)
    classes = torch.randint(0, 4, (batch,), generator=generator)
    return Net(seed, channels, symmetric), images, classes


def explain(net, images, classes, names=ALL, layer="last"):
    return CAM(net, names, layer, batch_size=8)(images, classes)


def assert_same(found, expected, name, atol=1e-6):
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=0, atol=atol), f"{name}: {(found - expected).abs().max():.2g}"


@QUICK
@given(cases(least=1))
def test_every_map_has_the_layers_shape_and_every_picture_the_images(case):
    net, images, classes = case
    height, width = images.shape[2:]
    result = explain(net, images, classes)
    for name in ALL:
        raw = result.raw[name, "last"]
        on_grid = (height, width) if name in NOT_THE_LAYER else (-(-height // 2), -(-width // 2))
        assert raw.shape == (len(images), *on_grid)
        assert torch.isfinite(raw).all() and (raw >= 0).all(), name
        assert result[name].shape == (len(images), height, width)
        assert result[name].min() >= 0 and result[name].max() <= 1
        bright = result[name].amax((1, 2)) > 0
        assert (~bright | result.valid[name]).all(), "an invalid map is never bright"


@pytest.mark.parametrize("upright", [False, True])
@QUICK
@given(cases(), st.integers(2, 12))
def test_grids_of_a_single_row_or_column(upright, case, cells):
    net, images, classes = case
    row = images[:, :, :1, :1].expand(-1, -1, 2, 2 * cells) * torch.randn(2 * cells, dtype=torch.float64)
    if upright:
        row = row.transpose(2, 3)
    result = explain(net, row, classes)
    for name in ALL:
        if name not in NOT_THE_LAYER:
            assert result.raw[name, "last"].shape == (len(images), *((cells, 1) if upright else (1, cells)))
        assert torch.isfinite(result[name]).all() and torch.isfinite(result.raw[name, "last"]).all()
    if cells <= 5:  # no value of five can lie two standard deviations above their mean
        assert not result.valid["fem"].any()


@QUICK
@given(cases(), st.sampled_from([1e-3, 0.1, 7.0, 1e3]))
def test_the_unit_of_the_logits_does_not_matter(case, factor):
    net, images, classes = case
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.head.weight.mul_(factor), other.head.bias.mul_(factor)
    before, after = explain(net, images, classes), explain(other, images, classes)
    for name in ALL:
        if name not in EXPONENTIAL:
            assert_same(after[name], before[name], name)
            assert torch.equal(after.valid[name], before.valid[name])


@pytest.mark.parametrize("name", EXPONENTIAL)
def test_the_unit_of_the_logits_matters_where_the_definition_has_an_exponential(name):
    net = Net(0, 3)
    images = torch.randn(4, 3, 14, 14, dtype=torch.float64)
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.head.weight.mul_(50), other.head.bias.mul_(50)
    before, after = (explain(n, images, torch.arange(4), [name], "layer") for n in (net, other))
    assert not torch.allclose(after[name], before[name], atol=0.01)


@QUICK
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_the_batch_does_not_matter(case, random):
    net, images, classes = case
    order = list(range(len(images)))
    random.shuffle(order)
    before, after = explain(net, images, classes), explain(net, images[order], classes[order])
    for name in ALL:
        if name != BORROWS:
            assert_same(after[name], before[name][order], name)


@QUICK
@given(cases(), st.permutations(range(6)))
def test_the_order_of_the_channels_does_not_matter(case, order):
    net, images, classes = case
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.second.weight.copy_(net.second.weight[order])
        other.second.bias.copy_(net.second.bias[order])
        for parameter in ("weight", "bias"):
            getattr(other.last[0], parameter).copy_(getattr(net.last[0], parameter)[order])
        other.head.weight.copy_(net.head.weight[:, order])
    before, after = explain(net, images, classes), explain(other, images, classes)
    for name in ALL:
        if name != "randomcam":  # its weights belong to positions
            assert_same(after[name], before[name], name)


@QUICK
@given(cases(symmetric=True))
def test_a_mirrored_image_has_a_mirrored_map(case):
    """On a fully convolutional model whose kernels are their own mirror images."""
    net, images, classes = case
    before, after = explain(net, images, classes), explain(net, images.flip(3), classes)
    for name in ALL:
        if name not in ("smoothgradcam++", BORROWS):  # what they draw is not mirrored
            # The kernel of more than 96 cells is decomposed to a residual of 1e-6.
            assert_same(after[name], before[name].flip(2), name, atol=1e-5 if name == "kpcacam" else 1e-6)


@QUICK
@given(cases(), st.sampled_from([float("nan"), float("inf"), float("-inf")]), st.integers(0, 2), st.data())
def test_a_broken_image_is_invalid_and_alone(case, value, index, data):
    net, images, classes = case
    index %= len(images)
    row, column = data.draw(st.integers(0, images.shape[2] - 1)), data.draw(st.integers(0, images.shape[3] - 1))
    broken = images.clone()
    broken[index, :, row, column] = value
    with torch.no_grad():
        reached = not torch.isfinite(net.last(net.second(net.layer(net.first(broken)))))[index].all()
    before, after = explain(net, images, classes), explain(net, broken, classes)
    others = [i for i in range(len(images)) if i != index]
    for name in ALL:
        if reached or name == "fullgrad":  # which takes the image times its gradient
            assert not after.valid[name][index], name
            assert after[name][index].abs().max() == 0
        if name == BORROWS:
            assert torch.isfinite(after.raw[name, "last"][others]).all()
        else:
            assert_same(after[name][others], before[name][others], name)


@QUICK
@given(cases(), st.sampled_from([float("nan"), float("inf"), float("-inf")]), st.integers(0, 2), st.integers(0, 5))
def test_a_broken_activation_is_invalid_and_alone(case, value, index, channel):
    net, images, classes = case
    index %= len(images)

    class Breaks(nn.Module):
        """Breaks one value of one image, told by its content, whatever the batch around it."""

        def __init__(self):
            super().__init__()
            self.net = copy.deepcopy(net)
            self.spot = nn.Identity()
            with torch.no_grad():
                self.mark = float(self.activation(images)[index].sum())

        def activation(self, x):
            return self.net.last(self.net.second(self.net.layer(self.net.first(x))))

        def forward(self, x):
            a = self.activation(x)
            hit = (a.sum((1, 2, 3)) - self.mark).abs() < 1e-9 * (1 + abs(self.mark))
            spot = torch.zeros_like(a, dtype=torch.bool)
            spot[:, channel, 0, 0] = hit
            return self.net.head(self.spot(a.masked_fill(spot, value)).mean((2, 3)))

    names = [name for name in ALL if name not in NOT_THE_LAYER]
    before, after = explain(net, images, classes, names), explain(Breaks().eval(), images, classes, names, "spot")
    others = [i for i in range(len(images)) if i != index]
    for name in names:
        assert not after.valid[name][index], name
        assert after[name][index].abs().max() == 0
        assert_same(after[name][others], before[name][others], name)


@QUICK
@given(cases())
def test_without_gradients_there_is_no_class_map(case):
    net, images, classes = case
    with torch.no_grad():
        net.head.weight.zero_()
    result = explain(net, images, classes)
    for name in ALL:
        assert torch.isfinite(result.raw[name, "last"]).all()
        if name == "scorecam":  # equal scores are equal weights
            assert torch.equal(result.valid[name], result.raw[name, "last"].sum((1, 2)) > 1e-12)
        elif name not in CLASSLESS:
            assert not result.valid[name].any() and result[name].abs().max() == 0, name


@QUICK
@given(cases())
def test_upsampling_and_scaling_are_those_of_the_raw_map(case):
    net, images, classes = case
    result = explain(net, images, classes)
    for name in ALL:
        raw = result.raw[name, "last"]
        picture = F.interpolate(raw[:, None], images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        low, high = picture.amin((1, 2), keepdim=True), picture.amax((1, 2), keepdim=True)
        expected = torch.where(high > low, (picture - low) / (high - low), 0.0)
        shown = result.valid[name]
        assert_same(result[name][shown], expected[shown], name)
