"""Grids and ``"auto"`` on the architectures that people use, built from their configurations with random weights."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from cam_engine import CAM, available_layers
from cam_engine.capture import Tap, capture
from cam_engine.grids import infer_grid, prefix_tokens, select_tensor

timm = pytest.importorskip("timm", reason="make test-models runs this in .venv-peers")
transformers = pytest.importorskip("transformers")
torchvision = pytest.importorskip("torchvision")

pytestmark = pytest.mark.models

TALL, WIDE, SQUARE = (128, 96), (96, 128), (224, 224)


@dataclass
class Case:
    """An architecture and what is known of it from its code, not from this package.

    ``auto``: the layer that must be chosen; ``stride``: the image's pixels per cell there. ``early``: a layer whose cells
    see little more than their own pixels, and its stride. ``reach``: by how many cells the place of the largest change there
    may miss the patch that was changed: 0 where patches do not overlap. ``prefix``: tokens before the patches.
    """

    build: Callable[[tuple[int, int]], nn.Module]
    auto: str
    stride: int
    early: str
    early_stride: int
    sizes: tuple[tuple[int, int], ...] = (WIDE,)
    reach: int = 1
    prefix: int | None = None


def in_timm(name, *, sized=False, **settings):
    return lambda size: timm.create_model(name, pretrained=False, **({"img_size": size} if sized else {}), **settings)


def in_torchvision(name, **settings):
    return lambda size: torchvision.models.get_model(name, weights=None, **settings)


def in_transformers(name, *, sized=True, kind="ForImageClassification", **settings):
    def build(size):
        config = getattr(transformers, f"{name}Config")(**({"image_size": size} if sized else {}), **settings)
        return getattr(transformers, name + kind)(config)

    return build


SMALL = {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 192}

CASES = {
    "resnet18, torchvision": Case(in_torchvision("resnet18"), "layer4", 32, "layer1.0.conv1", 4, (WIDE, TALL)),
    "resnet18, timm": Case(in_timm("resnet18"), "layer4", 32, "layer1.0.conv1", 4),
    "resnet, transformers": Case(
        in_transformers("ResNet", sized=False, depths=[1, 1, 1, 1], layer_type="basic", hidden_sizes=[16, 32, 64, 128]),
        "resnet.encoder", 32, "resnet.embedder.pooler", 4,
    ),
    "convnext, torchvision": Case(in_torchvision("convnext_tiny"), "features", 32, "features.0", 4, reach=0),
    "convnext, timm": Case(in_timm("convnext_atto"), "stages", 32, "stem", 4, (WIDE, TALL), reach=0),
    "convnext, transformers": Case(
        in_transformers("ConvNext", sized=False, depths=[1, 1, 1, 1]),
        "convnext.encoder", 32, "convnext.embeddings.patch_embeddings", 4, reach=0,
    ),
    "efficientnet_b0, torchvision": Case(in_torchvision("efficientnet_b0"), "features", 32, "features.2.0", 4),
    "efficientnet_b0, timm": Case(in_timm("efficientnet_b0"), "bn2", 32, "blocks.1.0", 4),
    "mobilenet_v3, torchvision": Case(in_torchvision("mobilenet_v3_small"), "features", 32, "features.1", 4),
    "mobilenet_v3, timm": Case(in_timm("mobilenetv3_small_050"), "blocks", 32, "blocks.0", 4),
    "densenet121, torchvision": Case(in_torchvision("densenet121"), "features", 32, "features.pool0", 4),
    "densenet121, timm": Case(in_timm("densenet121"), "features", 32, "features.pool0", 4, (TALL,)),
    "vgg11, torchvision": Case(in_torchvision("vgg11_bn"), "features", 32, "features.7", 4, (WIDE,)),
    "vgg11, timm": Case(in_timm("vgg11"), "features", 32, "features.5", 4, (TALL,)),
    "vit, timm": Case(
        in_timm("vit_tiny_patch16_224", sized=True, depth=3), "blocks.2.norm1", 16, "blocks.0.norm1", 16,
        (WIDE, TALL, SQUARE), 0, 1,
    ),
    "vit with its size open, timm": Case(
        in_timm("vit_tiny_patch16_224", dynamic_img_size=True, depth=3), "blocks.2.norm1", 16, "blocks.0.norm1", 16,
        reach=0, prefix=1,
    ),
    "vit without class token, timm": Case(
        in_timm("vit_tiny_patch16_224", sized=True, depth=3, class_token=False, global_pool="avg"), "blocks", 16,
        "blocks.0.norm1", 16, reach=0, prefix=0,
    ),
    "vit, torchvision": Case(
        lambda size: torchvision.models.VisionTransformer(size[0], 16, 3, 3, 96, 192),
        "encoder.layers.encoder_layer_2.ln_1", 16, "encoder.layers.encoder_layer_0.ln_1", 16, (SQUARE,), 0, 1,
    ),
    "vit, transformers": Case(
        in_transformers("ViT", **SMALL), "vit.layers.2.layernorm_before", 16, "vit.layers.0.layernorm_before", 16,
        (WIDE, TALL), 0, 1,
    ),
    "deit distilled, timm": Case(
        in_timm("deit_tiny_distilled_patch16_224", sized=True, depth=3), "blocks.2.norm1", 16, "blocks.0.norm1", 16,
        reach=0, prefix=2,
    ),
    "deit, transformers": Case(
        in_transformers("DeiT", **SMALL), "deit.layers.2.layernorm_before", 16, "deit.layers.0.layernorm_before", 16,
        reach=0, prefix=2,
    ),
    "dinov2 with registers, timm": Case(
        in_timm("vit_small_patch14_reg4_dinov2", sized=True, depth=3, num_classes=7), "blocks.2.norm1", 14,
        "blocks.0.norm1", 14, ((84, 112),), 0, 5,
    ),
    "dinov2 with registers, transformers": Case(
        in_transformers("Dinov2WithRegisters", sized=False, image_size=224, patch_size=14, **{
            k: v for k, v in SMALL.items() if k != "intermediate_size"}),
        "dinov2_with_registers", 14, "dinov2_with_registers.encoder.layer.0.norm1", 14, ((84, 112),), 0, 5,
    ),
    "cait, timm": Case(
        in_timm("cait_xxs24_224", depth=2), "blocks", 16, "blocks.0.norm1", 16, (SQUARE,), 0,
    ),
    "mixer, timm": Case(in_timm("mixer_s32_224"), "norm", 32, "blocks.0.norm1", 32, (SQUARE,), 0),
    "swin, timm": Case(
        in_timm("swin_tiny_patch4_window7_224", sized=True, depths=(1, 1, 2, 1)), "norm", 32, "patch_embed", 4,
        ((224, 448),), 0,
    ),
    "swinv2, timm": Case(
        in_timm("swinv2_tiny_window8_256", depths=(1, 1, 2, 1)), "norm", 32, "patch_embed", 4, ((256, 256),), 0,
    ),
    "swin, torchvision": Case(
        lambda size: torchvision.models.SwinTransformer([4, 4], 48, [1, 1, 2, 1], [3, 3, 6, 12], [7, 7]),
        "norm", 32, "features.0", 4, reach=0,
    ),
    "swin, transformers": Case(
        in_transformers("Swin", embed_dim=48, depths=[1, 1, 2, 1], num_heads=[3, 3, 6, 12]), "swin.layernorm", 32,
        "swin.embeddings", 4, ((224, 448),), 0,
    ),
    "maxvit, timm": Case(in_timm("maxvit_rmlp_pico_rw_256"), "norm", 32, "stem", 2, ((256, 256),)),
    "maxvit, torchvision": Case(
        lambda size: torchvision.models.MaxVit(size, 32, 7, [32, 64, 96, 128], [1, 1, 1, 1], 32, 0.0),
        "blocks.3", 32, "stem", 2, (SQUARE,),
    ),
    "segformer, transformers": Case(
        in_transformers("Segformer", sized=False, depths=[1, 1, 1, 1]), "segformer", 32,
        "segformer.stages.0.patch_embeddings", 4,
    ),
}  # fmt: skip

DENSE = {
    "segformer, transformers": (
        in_transformers(
            "Segformer", sized=False, kind="ForSemanticSegmentation", depths=[1, 1, 1, 1], num_labels=6
        ),
        "logits", "decode_head.activation",
    ),
    "deeplabv3, torchvision": (
        lambda size: torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=5
        ),
        "out", "classifier.3",
    ),
    "lraspp, torchvision": (
        lambda size: torchvision.models.segmentation.lraspp_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=5
        ),
        "out", "classifier.cbr",
    ),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """The networks are small; on a busy machine threads that wait for one another cost most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=[(name, size) for name, case in CASES.items() for size in case.sizes], ids=str)
def built(request):
    name, size = request.param
    case = CASES[name]
    torch.manual_seed(0)
    net = case.build(size).eval()
    for weight in net.parameters():
        if weight.ndim > 1 and not weight.any():  # a head that starts at zero makes every gradient zero
            nn.init.normal_(weight, std=0.1)
    return case, net, torch.rand(2, 3, *size), size


def scores(net):
    return "logits" if type(net).__module__.startswith("transformers") else None


def seen(net, images, layer):
    """What a layer returned, and the engine's (B, C, h, w) view of it."""
    size, prefix = (images.shape[-2], images.shape[-1]), prefix_tokens(net)

    def select(output):
        return select_tensor(output, len(images), size, layer=layer, prefix=prefix)

    kept = capture(net, images, [Tap(layer, net.get_submodule(layer), select)], record="nothing")
    raw = kept.activations[layer]
    return raw, infer_grid(tuple(raw.shape), len(images), size, layer=layer, prefix=prefix)(raw)


def test_auto(built):
    case, net, images, (height, width) = built
    assert list(CAM(net, "gradcam", output=scores(net)).resolve(images)) == [case.auto]
    raw, maps = seen(net, images, case.auto)
    assert maps.shape[2:] == (height // case.stride, width // case.stride)
    assert maps.shape[2] * maps.shape[3] > 1
    assert (maps.amax((2, 3)) > maps.amin((2, 3))).any()
    listed = {info.name: info for info in available_layers(net, images)}
    assert (listed[case.auto].grid, listed[case.auto].stride) == (maps.shape[2:], case.stride)
    assert listed[case.auto].shape == raw.shape


def test_gradcam_at_auto_sees_the_cells(built):
    case, net, images, _ = built
    cam = CAM(net, "gradcam", case.auto, output=scores(net))
    maps = torch.stack([cam(images, c).raw["gradcam", case.auto] for c in range(2)]).flatten(2)
    assert torch.isfinite(maps).all()
    assert (maps.amax(2) > maps.amin(2)).any(0).all()  # each image, for some class


def test_each_cell_is_the_token_that_stands_for_it(built):
    case, net, images, (height, width) = built
    raw, maps = seen(net, images, case.early)
    h, w = height // case.early_stride, width // case.early_stride
    assert maps.shape[2:] == (h, w)
    if raw.ndim == 3:
        prefix = case.prefix or 0
        assert raw.shape[1] == prefix + h * w
    for i, j in [(0, 0), (0, w - 1), (h - 1, 0), (1, w - 2)]:
        if raw.ndim == 3:
            expected = raw[:, prefix + i * w + j]
        elif raw.shape[1:3] == (h, w):
            expected = raw[:, i, j]
        else:
            expected = raw[:, :, i, j]
        torch.testing.assert_close(maps[:, :, i, j], expected, rtol=0, atol=0)


def changed_most(net, images, layer, rows, columns):
    """The cell (i, j) that changes most when a rectangle of the image does."""
    shaken = images.clone()
    shaken[:, :, rows, columns] += 2.0 * torch.randn(shaken[:, :, rows, columns].shape)
    change = (seen(net, shaken, layer)[1] - seen(net, images, layer)[1]).norm(dim=1).mean(0)
    return divmod(int(change.argmax()), change.shape[1])


def test_a_changed_patch_changes_its_own_cell(built):
    case, net, images, (height, width) = built
    s = case.early_stride
    h, w = height // s, width // s
    for i, j in [(1, w - 2), (h - 2, w // 3), (h // 3, 1)]:
        found = changed_most(net, images, case.early, slice(i * s, i * s + s), slice(j * s, j * s + s))
        assert max(abs(found[0] - i), abs(found[1] - j)) <= case.reach, (found, (i, j))


def test_listed_layers_have_the_grids_of_their_strides(built):
    case, net, images, (height, width) = built
    listed = available_layers(net, images)
    assert {case.auto, case.early} <= {info.name for info in listed}
    for info in listed:
        (h, w), kind = info.grid, type(net.get_submodule(info.name.partition("[")[0])).__name__
        assert h * w > 1
        # One stride explains both sides; a pooling to a fixed size is the only exception.
        assert "Adaptive" in kind or abs(h * width - w * height) <= max(height, width), info
        assert info.shape[0] == len(images)


def test_auto_on_a_classifier_that_averages_maps_of_its_scores():
    net = torchvision.models.squeezenet1_1(weights=None).eval()
    images = torch.rand(1, 3, *WIDE)
    assert list(CAM(net, "gradcam").resolve(images)) == ["features"]
    assert CAM(net, "gradcam")(images, 3).raw["gradcam", "features"].shape == (1, 5, 7)


@pytest.mark.parametrize("name", DENSE)
def test_auto_on_segmentation_is_the_last_layer_of_features(name):
    build, output, expected = DENSE[name]
    torch.manual_seed(0)
    net = build(WIDE).eval()
    images = torch.rand(1, 3, *WIDE)
    cam = CAM(net, "gradcam", output=output)
    assert list(cam.resolve(images)) == [expected]
    result = cam(images, lambda scores: scores[:, 2].mean((1, 2)))
    assert result.raw["gradcam", expected].shape[1:] == seen(net, images, expected)[1].shape[2:]


def test_auto_on_a_head_of_zeros_and_that_it_stays_zero():
    torch.manual_seed(0)
    net = torchvision.models.VisionTransformer(224, 16, 3, 3, 96, 192).eval()
    before = {name: (p, p._version, p.detach().clone()) for name, p in net.named_parameters()}
    assert not net.heads.head.weight.any()
    assert list(CAM(net, "gradcam").resolve(torch.rand(1, 3, 224, 224))) == ["encoder.layers.encoder_layer_2.ln_1"]
    after = dict(net.named_parameters())
    assert list(after) == list(before)
    for name, (parameter, version, values) in before.items():
        assert after[name] is parameter
        assert parameter._version == version
        assert torch.equal(parameter, values)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("vit, timm", 1), ("vit without class token, timm", 0), ("deit distilled, timm", 2), ("deit, transformers", 2),
     ("dinov2 with registers, timm", 5), ("dinov2 with registers, transformers", 5), ("vit, torchvision", 1),
     ("resnet18, torchvision", None), ("swin, transformers", None)],
)  # fmt: skip
def test_prefix_tokens_are_asked_of_the_model(name, expected):
    case = CASES[name]
    assert prefix_tokens(case.build(case.sizes[0])) == expected


def test_layers_inside_transformers_outputs_can_be_explained():
    """Layers that return a ModelOutput: the rebuilt one keeps its type, keys and attributes."""
    torch.manual_seed(0)
    net = CASES["segformer, transformers"].build(WIDE).eval()
    images = torch.rand(2, 3, *WIDE)
    with pytest.raises(TypeError, match="output="):
        CAM(net, "gradcam", "segformer")(images, 1)
    result = CAM(net, "hirescam", ["segformer", "segformer[last_hidden_state]"], output="logits")(images, 1)
    assert type(result.outputs) is type(net(images))
    with torch.no_grad():
        torch.testing.assert_close(result.scores, net(images).logits[:, 1])
        features = net.segformer(images).last_hidden_state  # its cells are averaged and go to the linear head
        expected = torch.einsum("bchw,c->bhw", features, net.classifier.weight[1]) / features[0, 0].numel()
    for layer in result.layers:
        torch.testing.assert_close(result.raw["hirescam", layer], expected.relu(), rtol=1e-3, atol=1e-6)


def test_an_entry_of_a_feature_pyramid():
    torch.manual_seed(0)
    backbone = torchvision.models.detection.backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None)

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = backbone
            self.linear = nn.Linear(256, 4)

        def forward(self, x):
            pyramid = self.backbone(x)
            return self.linear(sum(pyramid[key].mean((2, 3)) * (k + 1) for k, key in enumerate(["0", "1", "2", "3"])))

    net = Head().eval()
    images = torch.rand(2, 3, *WIDE)
    listed = {info.name: info.grid for info in available_layers(net, images)}
    grids = {"[0]": (24, 32), "[1]": (12, 16), "[2]": (6, 8), "[3]": (3, 4), "[pool]": (2, 2)}
    assert {name: grid for name, grid in listed.items() if name.startswith("backbone.fpn[")} == {
        f"backbone.fpn{entry}": grid for entry, grid in grids.items()
    }
    assert listed["backbone.fpn"] == (24, 32)
    layers = ["backbone.fpn", "backbone.fpn[0]", "backbone.fpn[2]"]
    result = CAM(net, "hirescam", layers)(images, 1)
    with torch.no_grad():
        pyramid = net.backbone(images)
        for layer, key, weight in [("backbone.fpn", "0", 1), ("backbone.fpn[0]", "0", 1), ("backbone.fpn[2]", "2", 3)]:
            cells = pyramid[key][0, 0].numel()
            expected = weight * torch.einsum("bchw,c->bhw", pyramid[key], net.linear.weight[1]) / cells
            torch.testing.assert_close(result.raw["hirescam", layer], expected.relu(), rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match=r"\[0\], \[1\], \[2\], \[3\], \[pool\]"):
        CAM(net, "eigencam", "backbone.fpn[7]")(images)
