"""What every method has to stand: images beside it, half precision, dead layers, layers that run twice or return containers."""

import copy

import pytest
import torch
import torch.nn.functional as F
from methods_by_hand import ONE_PASS, OTHERS, assert_maps_close
from torch import nn

from cam_engine import CAM, available_methods
from cam_engine.methods import get_method


def test_they_are_listed_in_order():
    assert available_methods() == [*ONE_PASS, *OTHERS]


def test_those_of_one_pass_need_no_more_than_gradients():
    assert {need for method in ONE_PASS for need in get_method(method).needs} == {"gradients"}


@pytest.mark.parametrize("method", OTHERS)
def test_one_image_does_not_see_the_others(method, cnn, photos):
    layer, classes = "stage2", torch.arange(8) % 5
    cam = CAM(cnn, method, layer, batch_size=5)
    whole = cam(photos, classes).raw[method, layer]
    order = torch.tensor([5, 2, 7, 0, 1, 6, 4, 3])
    assert_maps_close(cam(photos[order], classes[order]).raw[method, layer], whole[order], 2e-4, least=4)
    alone = torch.cat([cam(photos[i : i + 1], classes[i : i + 1]).raw[method, layer] for i in (0, 3, 6)])
    assert_maps_close(alone, whole[[0, 3, 6]], 2e-4)


@pytest.mark.parametrize("method", OTHERS)
def test_half_precision_models_are_explained_in_float32(method, exact_net, photos):
    half = copy.deepcopy(exact_net).bfloat16()
    raw = CAM(half, method, "stage2")(photos, 1).raw[method, "stage2"]
    assert raw.dtype == torch.float32
    exact = CAM(exact_net, method, "stage2")(photos, 1).raw[method, "stage2"]
    a, b = raw.flatten(1).double(), exact.flatten(1)
    alive = (a.amax(1) > 0) & (b.amax(1) > 0)
    assert F.cosine_similarity(a[alive], b[alive]).mean() > 0.95


@pytest.mark.parametrize("method", OTHERS)
def test_under_autocast_variants_are_scored_as_the_model_runs_there(method, exact_net, photos):
    net, seen = copy.deepcopy(exact_net).float(), set()
    exact = CAM(net, method, "stage2")(photos, 1).raw[method, "stage2"]
    net.stage2[0].register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        raw = CAM(net, method, "stage2")(photos, 1).raw[method, "stage2"]
    assert seen == {torch.bfloat16} and raw.dtype == torch.float32
    a, b = raw.flatten(1), exact.flatten(1)
    alive = (a.amax(1) > 0) & (b.amax(1) > 0)
    assert alive.any() and F.cosine_similarity(a[alive], b[alive]).mean() > 0.95


@pytest.mark.parametrize("method", available_methods())
def test_a_dead_layer_is_invalid_and_never_bright(method, cnn, photos):
    if method == "fullgrad":
        pytest.skip("does not read the layer")
    with torch.no_grad():
        cnn.stage2[1].weight.zero_()
        cnn.stage2[1].bias.fill_(-1)
        cnn.head.bias.fill_(0.1)  # Ablation-CAM divides by the score
    result = CAM(cnn, method, "stage2")(photos, 1)
    assert not result.valid[method].any()
    assert result[method].abs().max() == 0


@pytest.mark.parametrize("layer", ["stem", "stage1", "residual", "stage2", "stage2.1"])
def test_in_place_consumers_change_nothing(layer, make_cnn, photos):
    names = [m for m in OTHERS if m != "cam"]
    results = [CAM(make_cnn(inplace=p), names, layer)(photos[:3], 1).raw for p in (False, True)]
    for method in names:
        torch.testing.assert_close(results[1][method, layer], results[0][method, layer], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_layer_that_runs_twice_is_explained_at_its_last_call(inplace, make_cnn, photos):
    names = [m for m in OTHERS if m != "cam"]
    net = make_cnn(inplace=inplace)
    twice = CAM(net, names, "residual.relu")(photos[:3], 1).raw
    block = CAM(net, names, "residual")(photos[:3], 1).raw
    for method in names:
        reference = block[method, "residual"]
        assert reference.max() > 0, method
        torch.testing.assert_close(twice[method, "residual.relu"], reference, rtol=1e-3, atol=1e-5)


class Packed(nn.Module):
    """A stage whose output lies inside of something, as a feature pyramid's does."""

    def __init__(self, stage, pack):
        super().__init__()
        self.stage, self.pack = stage, pack

    def forward(self, x):
        return self.pack(self.stage(x))


@pytest.mark.parametrize(
    ("pack", "unpack"),
    [
        (lambda t: (t, "more"), lambda o: o[0]),
        (lambda t: [t], lambda o: o[0]),
        (lambda t: {"count": 3, "0": t}, lambda o: o["0"]),
        (lambda t: {"levels": [(t,)]}, lambda o: o["levels"][0][0]),
    ],
    ids=["tuple", "list", "dict", "nested"],
)
def test_layers_that_return_tuples_lists_and_dictionaries(pack, unpack, cnn, photos):
    names = [m for m in available_methods() if m != "cam"]
    plain = CAM(cnn, names, "stage1")(photos[:3], 1).raw

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = copy.deepcopy(cnn)
            self.packed = Packed(self.net.stage1, pack)

        def forward(self, x):
            x = unpack(self.packed(self.net.stem(x)))
            return self.net.head(self.net.pool(self.net.stage2(self.net.residual(x))).flatten(1))

    found = CAM(Net().eval(), names, "packed")(photos[:3], 1).raw
    for method in names:
        torch.testing.assert_close(found[method, "packed"], plain[method, "stage1"], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_unit_of_the_activations_does_not_matter(factor, three_photos):
    """The layer's output times c, and what follows divided by it."""

    def build(c):
        torch.manual_seed(4)
        net = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 144, 3))
        with torch.no_grad():
            net[0].weight.mul_(c), net[0].bias.mul_(c), net[3].weight.div_(c)
        return net.eval()

    names = [m for m in OTHERS if m not in ("cam", "kpcacam", "fullgrad")]  # kpcacam's tanh knows a unit
    before, after = (CAM(build(c), names, "1")(three_photos.float(), 1) for c in (1.0, factor))
    for method in names:
        assert_maps_close(after[method], before[method], 5e-4)
