"""Recognising grids from shapes, entries of what a layer returns, and what "auto" makes of them on small models."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from cam_engine import CAM, available_layers
from cam_engine.grids import Grid, GridError, infer_grid, prefix_tokens


def found(shape, size, prefix=None):
    return infer_grid(shape, shape[0], size, prefix=prefix)


@pytest.mark.parametrize(
    ("shape", "size", "prefix", "expected"),
    [
        ((2, 8, 6, 9), (48, 72), None, Grid("maps", 6, 9)),
        ((2, 6, 9, 8), (48, 72), None, Grid("channels_last", 6, 9)),
        ((2, 7, 7, 768), (224, 224), None, Grid("channels_last", 7, 7)),
        ((2, 768, 7, 7), (224, 224), None, Grid("maps", 7, 7)),
        ((2, 16, 1, 40), (32, 320), None, Grid("maps", 1, 40)),
        ((2, 197, 96), (224, 224), None, Grid("tokens", 14, 14, 1)),
        ((2, 198, 96), (224, 224), None, Grid("tokens", 14, 14, 2)),
        ((2, 201, 96), (224, 224), None, Grid("tokens", 14, 14, 5)),
        ((2, 196, 96), (224, 224), 1, Grid("tokens", 14, 14, 0)),  # before the class token joins
        ((2, 204, 96), (224, 224), 8, Grid("tokens", 14, 14, 8)),  # eight registers: only the model can say so
        ((2, 197, 96), (168, 224), None, Grid("tokens", 12, 16, 5)),
        ((2, 13 * 17, 96), (100, 130), None, Grid("tokens", 13, 17, 0)),  # rounded up: 100 / 8, 130 / 8
    ],
)
def test_shapes(shape, size, prefix, expected):
    grid = found(shape, size, prefix)
    assert grid == expected


def test_what_the_model_tells_decides_between_two_readings():
    assert found((1, 50, 8), (48, 64)) == Grid("tokens", 6, 8, 2)
    assert found((1, 197, 8), (224, 224)) == Grid("tokens", 14, 14, 1)
    assert found((1, 17, 8), (64, 64)) == Grid("tokens", 4, 4, 1)
    assert found((1, 9, 8), (48, 48)) == Grid("tokens", 3, 3, 0)
    assert found((1, 9, 8), (48, 48), prefix=5) == Grid("tokens", 2, 2, 5)


@pytest.mark.parametrize("shape", [(2, 13, 8), (2, 8), (3, 8, 6, 6)])
def test_no_grid_is_said_with_the_shape(shape):
    with pytest.raises(GridError, match=r"'late' returns a tensor of shape"):
        infer_grid(shape, 2, (48, 48), layer="late")


@pytest.mark.parametrize("layout", [Grid("maps", 3, 5), Grid("channels_last", 3, 5), Grid("tokens", 3, 5, 2)])
def test_put_back_undoes_the_view(layout):
    shape = {"maps": (2, 4, 3, 5), "channels_last": (2, 3, 5, 4), "tokens": (2, 17, 4)}[layout.layout]
    raw = torch.arange(torch.Size(shape).numel()).reshape(shape).float()
    maps = layout(raw)
    assert maps.shape == (2, 4, 3, 5)
    assert torch.equal(layout.put_back(raw, maps), raw)
    doubled = layout.put_back(raw, 2 * maps)
    assert torch.equal(layout(doubled), 2 * maps)
    if layout.prefix:
        assert torch.equal(doubled[:, :2], raw[:, :2])


def test_prefix_tokens_are_counted():
    net = nn.Module()
    net.inner = nn.Module()
    assert prefix_tokens(net) is None
    net.inner.mask_token = nn.Parameter(torch.zeros(1, 1, 8))
    assert prefix_tokens(net) is None
    net.inner.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
    net.inner.register_tokens = nn.Parameter(torch.zeros(1, 4, 8))
    assert prefix_tokens(net) == 5
    net.num_prefix_tokens = 3
    assert prefix_tokens(net) == 3


# --- entries of what a layer returns ---


class Pyramid(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.fine, self.coarse, self.wrap = nn.Conv2d(3, 6, 4, stride=4), nn.Conv2d(6, 6, 2, stride=2), wrap

    def forward(self, x):
        fine = self.fine(x)
        return self.wrap(fine, self.coarse(fine))


class Uses(nn.Module):
    def __init__(self, wrap, unwrap):
        super().__init__()
        self.pyramid, self.unwrap, self.head = Pyramid(wrap), unwrap, nn.Linear(12, 5)

    def forward(self, x):
        fine, coarse = self.unwrap(self.pyramid(x))
        return self.head(torch.cat([fine.mean((2, 3)), coarse.mean((2, 3))], 1))


KINDS = {
    "ordered dict": (lambda a, b: OrderedDict([("0", a), ("pool", b)]), lambda y: (y["0"], y["pool"]), "0", "pool"),
    "tuple": (lambda a, b: (a, b), lambda y: y, "0", "1"),
    "list in a dict": (lambda a, b: {"maps": [a, b]}, lambda y: y["maps"], "maps][0", "maps][1"),
    "after a vector": (lambda a, b: (a.mean((2, 3)), a, b), lambda y: y[1:], "1", "2"),
}


@pytest.fixture(params=KINDS)
def pyramid(request):
    wrap, unwrap, fine, coarse = KINDS[request.param]
    return Uses(wrap, unwrap).eval(), f"pyramid[{fine}]", f"pyramid[{coarse}]"


def test_an_entry_is_the_layer_that_made_it(pyramid, photos):
    net, fine, coarse = pyramid
    result = CAM(net, ["hirescam", "eigencam"], ["pyramid", fine, coarse])(photos, 1)
    assert result.layers == ("pyramid", fine, coarse)
    with torch.no_grad():
        first = net.pyramid.fine(photos)
        for layer, maps, weights in [
            (fine, first, net.head.weight[1, :6]),
            (coarse, net.pyramid.coarse(first), net.head.weight[1, 6:]),
        ]:
            expected = torch.einsum("bchw,c->bhw", maps, weights).relu() / maps[0, 0].numel()
            torch.testing.assert_close(result.raw["hirescam", layer], expected)
    for method in result.methods:  # a bare name is the first entry with a grid
        torch.testing.assert_close(result.raw[method, "pyramid"], result.raw[method, fine])


def test_entries_are_listed_and_each_can_be_explained(pyramid, photos):
    net, fine, coarse = pyramid
    listed = {info.name: info.grid for info in available_layers(net, photos)}
    assert (listed["pyramid"], listed[fine], listed[coarse]) == ((12, 12), (12, 12), (6, 6))
    result = CAM(net, "eigencam", list(listed))(photos)
    assert {layer: tuple(result.raw["eigencam", layer].shape[1:]) for layer in result.layers} == listed


def test_an_entry_that_is_not_there_lists_those_that_are(photos):
    net = Uses(*KINDS["ordered dict"][:2]).eval()
    with pytest.raises(GridError, match=r"'pyramid\[1\]'.*OrderedDict, holds \[0\], \[pool\]"):
        CAM(net, "eigencam", "pyramid[1]")(photos)
    with pytest.raises(KeyError, match="pyramids"):
        CAM(net, "eigencam", "pyramids[1]")(photos)


def test_reshape_sees_the_entry(photos):
    net = Uses(*KINDS["tuple"][:2]).eval()
    shapes = []

    def reshape(tensor):
        shapes.append(tuple(tensor.shape))
        return tensor

    CAM(net, "eigencam", "pyramid[1]", reshape=reshape)(photos)
    assert set(shapes) == {(8, 6, 6, 6)}


# --- auto ---


class Transformer(nn.Module):
    """Two blocks of attention; the head reads the class token alone."""

    def __init__(self, width=16):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, stride=8)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"norm": nn.LayerNorm(width), "attention": nn.MultiheadAttention(width, 2, batch_first=True)})
            for _ in range(2)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 5)

    def tokens(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            y = block["norm"](x)
            x = x + block["attention"](y, y, y)[0]
        return self.norm(x)

    def forward(self, x):
        return self.head(self.tokens(x)[:, 0])


def auto(net, images, **settings):
    (name,) = CAM(net.eval(), "gradcam", **settings).resolve(images)
    return name


def test_auto_wants_a_gradient_on_the_cells(photos):
    net = Transformer()
    assert auto(net, photos) == "blocks.1.norm"  # "norm" comes last, but its patches reach no output
    assert CAM(net, "gradcam")(photos, 1).raw["gradcam", "blocks.1.norm"].max() > 0


@pytest.mark.parametrize("frozen", [False, True])
def test_auto_looks_through_a_head_of_zeros(frozen, photos):
    net = Transformer().requires_grad_(not frozen)
    with torch.no_grad():
        net.head.weight.zero_()
    parameters = [(p, p._version) for p in net.parameters()]
    assert auto(net, photos) == "blocks.1.norm"
    assert all(now is p and p._version == v for now, (p, v) in zip(net.parameters(), parameters, strict=True))
    assert not net.head.weight.any()
    assert all(p.grad is None for p in net.parameters())


def test_auto_does_not_depend_on_what_the_images_show(photos):
    net = Transformer()
    assert auto(net, torch.zeros_like(photos)) == auto(net, photos) == "blocks.1.norm"


def test_auto_draws_no_random_number_and_keeps_the_modes(photos):
    net = Transformer().train()
    before = torch.get_rng_state()
    CAM(net, "gradcam").resolve(photos)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in net.modules())
    assert not any(module._forward_hooks for module in net.modules())


def test_auto_without_any_gradient_is_the_last_layer(cnn, photos):
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = cnn

        def forward(self, x):
            return self.net(x).detach()

    assert auto(Detached(), photos) == "net.stage2"


class Dense(nn.Module):
    """Segmentation: features, one map for each class, enlarged."""

    def __init__(self, classes):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.classifier = nn.Conv2d(8, classes, 1)
        self.up = nn.Upsample(scale_factor=4, mode="bilinear")

    def forward(self, x):
        return self.up(self.classifier(self.features(x)))


@pytest.mark.parametrize("classes", [1, 4])
def test_auto_passes_over_maps_of_the_scores_themselves(classes, photos):
    assert auto(Dense(classes), photos) == "features"


def test_auto_passes_over_the_scores_of_a_classifier_that_averages_them(photos):
    net = nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.ReLU(), nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert auto(net, photos) == "1"


def test_auto_goes_by_the_output_that_is_explained(photos):
    class Both(Transformer):
        def tokens(self, x):
            self.kept = super().tokens(x)
            return self.kept

        def forward(self, x):
            logits = super().forward(x)
            return {"tokens": self.kept, "logits": logits}

    net = Both()
    assert auto(net, photos, output="logits") == "blocks.1.norm"
    assert auto(net, photos, output="tokens") == "norm"


def test_auto_takes_the_layer_that_is_read_and_not_one_that_returns_its_tensor(photos):
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(3, 6, 4, 4)

        def forward(self, x):
            maps = self.body(x)
            return {"maps": maps, "pooled": maps.mean((2, 3))}

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.head = Encoder(), nn.Linear(6, 5)

        def forward(self, x):
            return self.head(self.encoder(x)["pooled"])

    assert auto(Net(), photos) == "encoder.body"


def test_heads_and_windows_inside_attention_are_not_listed(photos):
    class SelfAttention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.q_norm, self.weights = nn.Linear(16, 48), nn.LayerNorm(8), nn.Softmax(dim=-1)
            self.proj = nn.Linear(16, 16)

        def forward(self, x):
            q, k, v = self.qkv(x).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)
            mixed = self.weights(self.q_norm(q) @ k.transpose(2, 3)) @ v
            return self.proj(mixed.transpose(1, 2).flatten(2))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.attn, self.head = nn.Conv2d(3, 16, 8, 8), SelfAttention(), nn.Linear(16, 5)

        def forward(self, x):
            return self.head(self.attn(self.patches(x).flatten(2).transpose(1, 2)).mean(1))

    net = Net().eval()
    assert [info.name for info in available_layers(net, photos)] == ["patches", "attn.qkv", "attn.proj", "attn"]
    assert auto(net, photos) == "attn"
