"""Choosing layers: automatically, by name, by glob, by module; and what is said when that fails."""

import pytest
import torch
from torch import nn

from cam_engine import CAM, available_layers
from cam_engine.layers import layers_within
from cam_engine.methods import eigencam


def chosen(model, layers, images):
    return list(CAM(model, "gradcam", layers)(images, 0).layers)


class Tokens(nn.Module):
    """A ViT in miniature: a class token before the patches, two blocks, a norm, the class token to the head."""

    def __init__(self, patch=8, width=16, prefix=1):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.prefix = nn.Parameter(torch.randn(1, prefix, width))
        self.blocks = nn.Sequential(*[nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width)) for _ in range(2)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = self.norm(self.blocks(torch.cat([self.prefix.expand(len(x), -1, -1), x], 1)))
        return self.head(x.mean(1))


class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 20, 8, stride=8)
        self.norm = nn.LayerNorm(20)
        self.mlp = nn.Sequential(nn.Linear(20, 20), nn.GELU())
        self.head = nn.Linear(20, 5)

    def forward(self, x):
        x = self.patches(x).permute(0, 2, 3, 1)
        return self.head(self.mlp(self.norm(x)).mean((1, 2)))


# --- auto ---


def test_auto_is_the_last_layer_with_a_grid(cnn, photos):
    assert chosen(cnn, "auto", photos) == ["stage2"]


def test_auto_passes_over_pooling_dropout_and_identity(cnn, photos):
    cnn.pool = nn.Sequential(nn.MaxPool2d(2), nn.Dropout2d(), nn.Identity(), nn.AdaptiveAvgPool2d(1))
    assert chosen(cnn, "auto", photos) == ["stage2"]


def test_auto_wants_a_grid_of_more_than_one_cell(photos):
    def net(size):
        body = [nn.Conv2d(3, 8, 3, padding=1), nn.AdaptiveAvgPool2d(size), nn.Conv2d(8, 6, 1), nn.Flatten()]
        return nn.Sequential(*body, nn.Linear(6 * size[0] * size[1], 5))

    assert chosen(net((1, 1)), "auto", photos) == ["0"]
    assert chosen(net((2, 2)), "auto", photos) == ["2"]


def test_auto_goes_by_the_order_of_running_not_of_definition(cnn, photos):
    class Reordered(nn.Module):
        def __init__(self):
            super().__init__()
            self.late = nn.Conv2d(24, 24, 1)
            self.net = cnn

        def forward(self, x):
            x = self.net.stage2(self.net.residual(self.net.stage1(self.net.stem(x))))
            return self.net.head(self.late(x).mean((2, 3)))

    assert chosen(Reordered(), "auto", photos) == ["late"]


def test_auto_on_tokens_and_channels_last(photos):
    assert chosen(Tokens(), "auto", photos) == ["norm"]
    assert chosen(ChannelsLast(), "auto", photos) == ["mlp"]


def test_auto_without_any_spatial_layer_says_so(photos):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 48 * 48, 5))
    with pytest.raises(ValueError, match=r'layers="auto" found no layer of Sequential'):
        CAM(net, "gradcam")(photos)


# --- names, globs, modules, lists ---


@pytest.mark.parametrize("layer", ["stem", "stage1.0", "residual.conv2", "stage2.2"])
def test_by_dotted_name(layer, cnn, photos):
    assert chosen(cnn, layer, photos) == [layer]


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("stage[12]", ["stage1", "stage2"]),
        ("stage?.0", ["stage1.0", "stage2.0"]),
        ("*.conv2", ["residual.conv2"]),
        ("residual.bn*", ["residual.bn1", "residual.bn2"]),
        ("stage1*", ["stage1"]),
        ("stage1.*", ["stage1.0", "stage1.1", "stage1.2"]),
        ("**.conv2", ["residual.conv2"]),
    ],
)
def test_by_glob(glob, expected, cnn, photos):
    assert chosen(cnn, glob, photos) == expected


def test_by_module(cnn, photos):
    assert chosen(cnn, cnn.residual.bn2, photos) == ["residual.bn2"]
    by_name, by_module = CAM(cnn, "gradcam", "stage1")(photos, 0), CAM(cnn, "gradcam", cnn.stage1)(photos, 0)
    torch.testing.assert_close(by_module.raw["gradcam", "stage1"], by_name.raw["gradcam", "stage1"])


def test_by_list_in_the_order_given_and_once_each(cnn, photos):
    layers = ["stage2", cnn.stem, "stage[12]", "auto", "stem"]
    assert chosen(cnn, layers, photos) == ["stage2", "stem", "stage1"]
    assert chosen(cnn, tuple(layers), photos) == ["stage2", "stem", "stage1"]


def test_a_module_with_two_names_can_be_asked_for_by_either(cnn, photos):
    cnn.backbone = cnn.stage1
    for name in ("stage1", "backbone"):
        result = CAM(cnn, "gradcam", name)(photos, 0)
        assert result.raw["gradcam", name].max() > 0
    both = CAM(cnn, "gradcam", ["stage1", "backbone"])(photos, 0)
    torch.testing.assert_close(both.raw["gradcam", "stage1"], both.raw["gradcam", "backbone"])


# --- errors ---


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("stage3", ["stage2", "stage1"]),
        ("stag1", ["stage1"]),
        ("conv1", ["residual.conv1"]),
        ("layer4.conv2", ["residual.conv2"]),
    ],
)
def test_a_wrong_name_lists_the_nearest(wrong, near, cnn, photos):
    with pytest.raises(KeyError) as error:
        CAM(cnn, "gradcam", wrong)(photos)
    message = str(error.value)
    assert repr(wrong) in message
    named = message.split("nearest names: ")[1].split(". ")[0].split(", ")
    assert set(near) <= set(named)
    assert len(named) <= 5
    assert "available_layers" in message


def test_a_glob_that_matches_nothing_is_a_wrong_name(cnn, photos):
    with pytest.raises(KeyError, match="layer9"):
        CAM(cnn, "gradcam", "layer9.*")(photos)


def test_a_module_of_another_model_is_refused(cnn, make_cnn, photos):
    with pytest.raises(ValueError, match="ConvBlock that is not a module of this model"):
        CAM(cnn, "gradcam", make_cnn().stage1)(photos)
    with pytest.raises(ValueError, match="CNN that is the model itself"):
        CAM(cnn, "gradcam", cnn)(photos)


def test_a_layer_that_never_runs_is_named(cnn, photos):
    cnn.unused = nn.Conv2d(3, 3, 1)
    for methods in ("gradcam", "eigencam"):
        with pytest.raises(RuntimeError, match="'unused' did not run"):
            CAM(cnn, methods, ["stage1", "unused"])(photos)


def test_a_layer_without_grid_is_named_with_its_shape(cnn, photos):
    for methods in ("gradcam", "eigencam"):
        with pytest.raises(ValueError, match=r"'head' returns \(8, 5\).*available_layers"):
            CAM(cnn, methods, ["stage1", "head"])(photos)


@pytest.mark.parametrize("layers", [[], ()])
def test_no_layers_is_an_error(layers, cnn, photos):
    with pytest.raises(ValueError, match="empty"):
        CAM(cnn, "gradcam", layers)(photos)


@pytest.mark.parametrize("layers", [3, None, ["stage1", 3]])
def test_layers_of_another_type_are_refused(layers, cnn, photos):
    with pytest.raises(TypeError, match="layers="):
        CAM(cnn, "gradcam", layers)(photos)


# --- available_layers ---


def test_available_layers_describes_what_can_be_explained(cnn, photos):
    layers = {info.name: info for info in available_layers(cnn, photos)}
    # 48 pixels at strides 2, 4, 4, 8
    for name, kind, channels, stride in [
        ("stem", "ConvBlock", 12, 2),
        ("stage1.0", "Conv2d", 16, 4),
        ("residual", "Residual", 16, 4),
        ("residual.relu", "ReLU", 16, 4),
        ("stage2.1", "BatchNorm2d", 24, 8),
    ]:
        cells = 48 // stride
        info = layers[name]
        assert info.type == kind
        assert info.shape == (8, channels, cells, cells)
        assert info.stride == stride
        assert info.grid == (cells, cells)
    assert not {"", "pool", "dropout", "head"} & set(layers)


def test_available_layers_are_in_the_order_of_finishing(cnn, photos):
    names = [info.name for info in available_layers(cnn, photos)]
    block = ["residual.conv1", "residual.bn1", "residual.conv2", "residual.bn2", "residual.relu", "residual"]
    stages = [[f"{stage}.0", f"{stage}.1", f"{stage}.2", stage] for stage in ("stem", "stage1", "stage2")]
    assert names == stages[0] + stages[1] + block + stages[2]


def test_every_available_layer_can_be_explained(cnn, photos):
    names = [info.name for info in available_layers(cnn, photos[:1])]
    result = CAM(cnn, ["hirescam", "eigencam"], names)(photos, 1)
    for info in available_layers(cnn, photos):
        assert result.raw["hirescam", info.name].shape == (8, *info.grid)
        assert result.raw["hirescam", info.name].max() > 0


def test_grids_of_images_that_are_not_square(cnn, photos):
    wide = torch.cat([photos, photos[:, :, :, :24]], 3)  # 48×72
    grids = {info.name: info.grid for info in available_layers(cnn, wide)}
    assert grids["stem"] == (24, 36)
    assert grids["stage2"] == (6, 9)


@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
@pytest.mark.parametrize("columns", [48, 72])
def test_tokens_become_the_grid_of_their_patches(prefix, columns, photos):
    net = Tokens(prefix=prefix).eval()
    images = torch.cat([photos, photos[:, :, :, : columns - 48]], 3)
    grid = (6, columns // 8)
    assert {i.name: (i.grid, i.stride) for i in available_layers(net, images)}["norm"] == (grid, 8)
    # Every token has the same weight in the score, so HiResCAM of a cell is that cell's token times the head's row.
    kept = []
    handle = net.norm.register_forward_hook(lambda _m, _i, out: kept.append(out.detach()))
    net(images)
    handle.remove()
    expected = (kept[0][:, prefix:] @ net.head.weight[2] / kept[0].shape[1]).reshape(8, *grid).relu().detach()
    torch.testing.assert_close(CAM(net, "hirescam", "norm")(images, 2).raw["hirescam", "norm"], expected)


def test_channels_last_maps_are_turned(photos):
    net = ChannelsLast().eval()
    info = {i.name: i for i in available_layers(net, photos)}["norm"]
    assert (info.grid, info.shape) == ((6, 6), (8, 6, 6, 20))
    with torch.no_grad():
        maps = net.norm(net.patches(photos).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(CAM(net, "eigencam", "norm")(photos).raw["eigencam", "norm"], eigencam(maps).relu())


def test_reshape_serves_a_layout_that_is_not_recognised(photos):
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, 16, 8, stride=8)
            self.flat = nn.Flatten()
            self.head = nn.Linear(16 * 36, 5)

        def forward(self, x):
            return self.head(self.flat(self.patches(x)))

    net = Flat().eval()
    with pytest.raises(ValueError, match="pass reshape="):
        CAM(net, "hirescam", "flat")(photos, 1)
    result = CAM(net, "hirescam", "flat", reshape=lambda t: t.unflatten(1, (16, 6, 6)))(photos, 1)
    expected = CAM(net, "hirescam", "patches")(photos, 1)
    torch.testing.assert_close(result.raw["hirescam", "flat"], expected.raw["hirescam", "patches"])
    with pytest.raises(ValueError, match=r"reshape= turned .*\(8, 576\).* into \(8, 576\)"):
        CAM(net, "hirescam", "flat", reshape=lambda t: t)(photos, 1)
    with pytest.raises(ValueError, match=r"layer 'flat'.* into \(1, 16, 6, 6\).* with B = 8 images"):
        CAM(net, "hirescam", "flat", reshape=lambda t: t[:1].unflatten(1, (16, 6, 6)))(photos, 1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("net.stage1", "stage1"),
        ("stage1", "stage1"),
        ("net.*.0", "*.0"),
        (["net.stage1[0]", "stem.1"], ["stage1[0]", "stem.1"]),
        ("net.nowhere", "nowhere"),
    ],
)
def test_names_may_be_those_in_what_holds_the_model(given, expected, cnn):
    holder = nn.ModuleDict({"net": cnn})
    assert layers_within(holder, cnn, given) == expected
    assert layers_within(cnn, cnn, given) == given
    assert layers_within(holder, cnn, cnn.stage1) is cnn.stage1
