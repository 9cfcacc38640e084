"""Every detector family, built from its configuration with random weights, against its own library and plain autograd."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cam_engine import CAM, explain
from cam_engine.capture import Tap, capture, gradients
from cam_engine.detect import BoxTarget, Detections, explain_detections, family_of
from cam_engine.detect.boxes import overlaps
from cam_engine.detect.yolo import YoloV5Style

pytest.importorskip("ultralytics", reason="make test-models runs this in .venv-peers")
transformers = pytest.importorskip("transformers")
torchvision = pytest.importorskip("torchvision")
libreyolo = pytest.importorskip("libreyolo")

from ultralytics.nn.tasks import DetectionModel, RTDETRDetectionModel, SegmentationModel  # noqa: E402
from ultralytics.utils.nms import non_max_suppression  # noqa: E402

pytestmark = pytest.mark.models

SIZE = (160, 192)


def awake(net, scale=0.5):
    """Random weights in the last layers: at initialisation all rows of a detector score alike."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for module in net.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
                module.bias.add_(torch.randn_like(module.bias) * 0.3)
                if module.weight.std() < 0.02:
                    nn.init.normal_(module.weight, std=scale / module.weight[0].numel() ** 0.5)
    return net.eval()


def calibrated(net):
    """Batch norms that know what they get: at initialisation, what an image shows hardly reaches the last layers."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        momentum, norm.momentum = norm.momentum, None
        norm.reset_running_stats()
        norm.train()
        norm.before = momentum
    with torch.no_grad():
        net(images(seed=7, count=8))
    for norm in norms:
        norm.eval()
        norm.momentum = norm.before
        del norm.before
    return net


def images(seed=0, size=SIZE, count=1):
    """Coloured clouds with noise: of noise alone, the deeper layers see the same everywhere."""
    generator = torch.Generator().manual_seed(seed)
    clouds = nn.functional.interpolate(torch.rand(count, 3, 6, 7, generator=generator), size=size, mode="bilinear")
    return 0.7 * clouds + 0.3 * torch.rand(count, 3, *size, generator=generator)


# ------------------------------------------------------------------------------------------------ the families


class V5Head(nn.Module):
    """The eval-mode output of YOLOv5's own Detect head (v7.0): xywh in pixels, objectness and classes after the sigmoid."""

    def __init__(self, nc, channels, strides):
        super().__init__()
        self.nc, self.no, self.na, self.f, self.strides = nc, nc + 5, 3, [1, 2], strides
        self.register_buffer(
            "anchors", torch.tensor([[[8.0, 9], [14, 20], [30, 24]], [[40.0, 50], [60, 45], [90, 100]]])
        )
        self.m = nn.ModuleList(nn.Conv2d(c, self.no * self.na, 1) for c in channels)

    def forward(self, features):
        rows = []
        for level, x in enumerate(features):
            b, _, h, w = x.shape
            y = self.m[level](x).view(b, self.na, self.no, h, w).permute(0, 1, 3, 4, 2).sigmoid()
            yy, xx = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
            xy = (y[..., :2] * 2 - 0.5 + torch.stack([xx, yy], -1)) * self.strides[level]
            wh = (y[..., 2:4] * 2) ** 2 * self.anchors[level][:, None, None]
            rows.append(torch.cat([xy, wh, y[..., 4:]], -1).view(b, -1, self.no))
        return torch.cat(rows, 1), features


class V5(nn.Module):
    def __init__(self, nc=4):
        super().__init__()
        parts = [nn.Conv2d(3, 8, 8, 8), nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(12, 16, 2, 2)]
        self.model = nn.Sequential(*parts, V5Head(nc, [12, 16], [8, 16]))
        self.names = ["a", "b", "c", "d"]

    def forward(self, x):
        fine = self.model[1](self.model[0](x).relu()).relu()
        return self.model[3]([fine, self.model[2](fine).relu()])


def yolo(name, kind=DetectionModel, *, end2end=False):
    def build():
        net = calibrated(awake(kind(f"{name}.yaml", nc=4, verbose=False)))
        head = net.model[-1]
        for branch in ("cv2", "cv3", "one2one_cv2", "one2one_cv3"):
            for tower in getattr(head, branch, None) or []:  # logits of a few units, so that no two scores are equal
                weight = tower[-1].weight.data
                if branch.startswith("one2one"):
                    weight = weight.flip(1)  # it starts as a copy of the other branch
                tower[-1].weight.data = weight / weight[0].norm()
                tower[-1].bias.data.fill_(1.0)
        if end2end:
            head.end2end = True
        return net

    return build


def resnet_fpn(**settings):
    backbone = torchvision.models.detection.backbone_utils.resnet_fpn_backbone
    return backbone(backbone_name="resnet18", weights=None, trainable_layers=5, **settings)


SMALL = {"min_size": 160, "max_size": 224}


def one_stage(name):
    def build():
        extra = torchvision.ops.feature_pyramid_network.LastLevelP6P7(256, 256)
        backbone = resnet_fpn(returned_layers=[2, 3, 4], extra_blocks=extra)
        return awake(getattr(torchvision.models.detection, name)(backbone, 4, score_thresh=0.0, **SMALL))

    return build


def two_stage(name):
    def build():
        settings = {"box_score_thresh": 0.0, "rpn_post_nms_top_n_test": 50, "box_detections_per_img": 20} | SMALL
        net = getattr(torchvision.models.detection, name)(resnet_fpn(), 4, **settings)
        return awake(net, scale=2.0)

    return build


def ssdlite():
    settings = {"weights": None, "weights_backbone": None, "num_classes": 4, "score_thresh": 0.0}
    net = torchvision.models.detection.ssdlite320_mobilenet_v3_large(**settings)
    return calibrated(awake(net))


BLOCKS = {
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "d_model": 32,
    "decoder_layers": 2,
    "num_queries": 20,
    "num_labels": 4,
}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "layer_type": "basic"}


def detr(name):
    def build():
        backbone = transformers.ResNetConfig(**RESNET, out_features=["stage4"])
        given = {"use_timm_backbone": False, "backbone": None, "use_pretrained_backbone": False, "encoder_layers": 2}
        config = getattr(transformers, f"{name}Config")(backbone_config=backbone, **given, **BLOCKS)
        return awake(getattr(transformers, f"{name}ForObjectDetection")(config))

    return build


def rtdetr():
    backbone = transformers.RTDetrResNetConfig(**RESNET, out_features=["stage2", "stage3", "stage4"])
    given = {"encoder_in_channels": [16, 24, 32], "encoder_hidden_dim": 32, "decoder_in_channels": [32] * 3}
    config = transformers.RTDetrConfig(
        backbone_config=backbone, **given, **BLOCKS, num_denoising=0, anchor_image_size=None
    )
    return awake(transformers.RTDetrForObjectDetection(config))


def yolos():
    config = transformers.YolosConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=list(SIZE),
        num_detection_tokens=20,
        num_labels=4,
    )
    return awake(transformers.YolosForObjectDetection(config))


def libre(name, size):
    return lambda: awake(getattr(libreyolo, name)(None, size=size, device="cpu").model)


# What each library itself keeps of an image, (n, 6): xyxy, score, label. None: nothing public computes it.


def kept_by_nms(net, x):
    found = net(x)[0]
    return non_max_suppression(found[0] if isinstance(found, tuple) else found, 0.0, 0.5, nc=4, max_det=20)[0][:, :6]


def kept_end_to_end(net, x):
    return net(x)[0][0, :20, :6]


def kept_by_torchvision(net, x):
    found = net(list(x))[0]
    return torch.cat([found["boxes"], found["scores"][:, None], found["labels"][:, None].float()], 1)[:20]


def kept_by_transformers(net, x, processor="DetrImageProcessor"):
    answer = getattr(transformers, processor)().post_process_object_detection(net(pixel_values=x), 0.0, [x.shape[2:]])[
        0
    ]
    order = answer["scores"].argsort(descending=True, stable=True)
    found = torch.cat([answer["boxes"], answer["scores"][:, None], answer["labels"][:, None].float()], 1)[order]
    return found[:20]


def kept_by_rtdetr(net, x):
    found = net(x)[0][0, :20]
    centre, half = found[:, :2], found[:, 2:4] / 2
    scale = torch.tensor([x.shape[3], x.shape[2]] * 2)
    return torch.cat([torch.cat([centre - half, centre + half], 1) * scale, found[:, 4:]], 1)


@dataclass
class Case:
    """A family. ``logit(outputs, row, label)``: the class score to explain, read from what the model itself returned or
    what hooks on ``watched`` saw; ``probability``: from the logits (K,) of that row to the score that boxes are kept by.
    """

    build: Callable[[], nn.Module]
    logit: Callable[[Any, int, int], torch.Tensor]
    kept: Callable[[nn.Module, torch.Tensor], torch.Tensor] | None
    call: Callable[[nn.Module, torch.Tensor], Any] = lambda net, x: net(x)
    size: tuple[int, int] = SIZE
    iou: float | None = None
    logits: bool = True


def watching(path):
    """Call a torchvision detector and return what one of its modules returned."""

    def call(net, x):
        seen = []
        handle = net.get_submodule(path).register_forward_hook(lambda _m, _i, output: seen.append(output))
        net(list(x))
        handle.remove()
        return seen[0]

    return call


def by_keyword(net, x):
    return net(pixel_values=x)


def libre_level(outputs, row, label):
    levels = [level.flatten(2)[0, -80:] for level in outputs["raw_outputs"]]
    return torch.cat(levels, 1)[label, row]


def anchors(output, row, label):
    return output["cls_logits"][0, row, label]


def in_scores(outputs, row, label):
    return outputs[1]["scores"][0, label, row]


def in_one2one(outputs, row, label):
    return outputs[1]["one2one"]["scores"][0, label, row]


def in_one2many(outputs, row, label):
    return outputs[1]["one2many"]["scores"][0, label, row]


def in_logits(outputs, row, label):
    return outputs["logits"][0, row, label]


def ultralytics_case(name, **more):
    return Case(yolo(name, **more), in_scores, kept_by_nms, iou=0.5)


CASES = {
    "YOLOv5": Case(V5, lambda out, row, label: out[0][0, row, 5 + label].log(), None, iou=0.5, logits=False),
    "yolov5nu": ultralytics_case("yolov5n"),
    "yolov8n": ultralytics_case("yolov8n"),
    "yolo11n": ultralytics_case("yolo11n"),
    "yolo12n": ultralytics_case("yolo12n"),
    "yolov8n-seg": ultralytics_case("yolov8n-seg", kind=SegmentationModel),
    "yolov10n": Case(yolo("yolov10n", end2end=True), in_one2one, kept_end_to_end),
    "yolo26n": Case(yolo("yolo26n", end2end=True), in_one2one, kept_end_to_end),
    "yolo26n one-to-many": Case(yolo("yolo26n"), in_one2many, kept_by_nms, iou=0.5),
    "rtdetr-l": Case(
        yolo("rtdetr-l", RTDETRDetectionModel), lambda out, row, label: out[1][1][-1, 0, row, label], kept_by_rtdetr
    ),
    "Faster R-CNN": Case(
        two_stage("FasterRCNN"),
        lambda out, row, label: out[0][row // 3, label],
        kept_by_torchvision,
        watching("roi_heads.box_predictor"),
    ),
    "RetinaNet": Case(one_stage("RetinaNet"), anchors, kept_by_torchvision, watching("head")),
    "FCOS": Case(one_stage("FCOS"), anchors, kept_by_torchvision, watching("head")),
    "SSDlite": Case(ssdlite, anchors, kept_by_torchvision, watching("head")),
    "DETR": Case(detr("Detr"), in_logits, kept_by_transformers, by_keyword),
    "Conditional DETR": Case(
        detr("ConditionalDetr"),
        in_logits,
        lambda net, x: kept_by_transformers(net, x, "ConditionalDetrImageProcessor"),
        by_keyword,
    ),
    "YOLOS": Case(yolos, in_logits, lambda net, x: kept_by_transformers(net, x, "YolosImageProcessor"), by_keyword),
    "RT-DETR": Case(rtdetr, in_logits, lambda net, x: kept_by_transformers(net, x, "RTDetrImageProcessor"), by_keyword),
    "libreyolo YOLO9": Case(libre("LibreYOLO9", "t"), libre_level, None, iou=0.5),
    "libreyolo YOLO9 e2e": Case(libre("LibreYOLO9E2E", "t"), libre_level, None),
    "libreyolo DETR": Case(libre("LibreDETR", "r50"), lambda out, row, label: out["pred_logits"][0, row, label], None),
    "libreyolo D-FINE": Case(
        libre("LibreDFINE", "n"), lambda out, row, label: out["pred_logits"][0, row, label], None, size=(640, 640)
    ),
}
FEW = ["yolov8n", "yolo26n", "Faster R-CNN", "DETR"]


@cache
def built(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CASES[name].build().requires_grad_(False)


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param], built(request.param)


@pytest.fixture(params=FEW)
def few(request):
    return CASES[request.param], built(request.param)


def detect(case, net, x, most=20):
    family = family_of(net)
    with torch.no_grad():
        outputs = family.forward(net, x)
        return family, outputs, family.detections(outputs, confidence=0.0, iou=case.iou, max_detections=most)


def test_keeps_what_its_own_library_keeps(case):
    case, net = case
    if case.kept is None:
        pytest.skip("this library has no public function for it")
    x = images(size=case.size)
    found = detect(case, net, x)[2][0]
    with torch.no_grad():
        theirs = case.kept(net, x)
    assert len(found) == len(theirs) > 3
    ours = torch.cat([found.boxes, found.scores[:, None], found.labels[:, None]], 1)
    scale = torch.tensor([*[max(case.size)] * 4, 1, 1])
    for row in ours:  # equal scores leave the order open
        assert ((theirs - row) / scale).abs().amax(1).min() < 1e-4


def test_the_exact_row_is_the_row(case):
    case, net = case
    x = images(size=case.size)
    family, outputs, (found,) = detect(case, net, x)
    raw = family.raw(outputs)
    assert len(found) > 3 and len(set(found.rows.tolist())) > 1
    torch.testing.assert_close(raw.boxes[0, found.rows], found.boxes)
    with torch.no_grad():
        native = case.call(net, x)
        expected = [case.logit(native, int(r), int(c)) for r, c in zip(found.rows, found.labels, strict=True)]
    scores = raw.classes[0, found.rows, found.labels]
    torch.testing.assert_close(scores if case.logits else scores.log(), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_the_gradient_is_that_of_plain_autograd(case):
    case, net = case
    x = images(size=case.size)
    family, _, (found,) = detect(case, net, x)
    layers = [net.get_submodule(name) for name in family.layers()]
    target = BoxTarget(found.select([1]), family=family)
    row, label = int(found.rows[1]), int(found.labels[1])
    some = False
    for name, layer in zip(family.layers(), layers, strict=True):
        captured = capture(net, x, [Tap(name, layer, first_tensor)], record="from_layer", forward=family.forward)
        with torch.enable_grad():
            ours = gradients(target(captured.outputs), captured.activations)[name]
        leaf: list[torch.Tensor] = []

        def cut(_module, _inputs, output, leaf=leaf):
            if isinstance(output, torch.Tensor):
                leaf[:] = [output.detach().requires_grad_()]
                return leaf[0]
            leaf[:] = [output[0].detach().requires_grad_()]
            return type(output)(leaf[0])

        handle = layer.register_forward_hook(cut)
        try:
            score = case.logit(case.call(net, x), row, label)
        finally:
            handle.remove()
        (theirs,) = torch.autograd.grad(score, leaf, allow_unused=True)
        theirs = torch.zeros_like(leaf[0]) if theirs is None else theirs
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6 * float(theirs.abs().max()) + 1e-12)
        some |= bool(theirs.any())
    assert some


def first_tensor(output):
    return () if isinstance(output, torch.Tensor) else (next(iter(output.keys())),)


def test_every_family_gives_maps_and_is_left_as_it_was(case):
    case, net = case
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.train()
    try:
        (result,) = explain_detections(
            net, images(size=case.size), ["layercam", "hirescam"], per="detection", confidence=0.0, max_detections=3
        )
        assert all(module.training for module in net.modules())
    finally:
        net.eval()
    assert len(result.parts) == len(result.detections) == 3
    for part in result.parts:
        assert part.heatmaps["layercam"].shape == case.size
        assert any(part.valid.values())
        assert part.heatmaps["layercam"].min() >= 0 and part.heatmaps["layercam"].max() <= 1
    assert all(not p.requires_grad and p.grad is None for p in net.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


# ------------------------------------------------------------------------------------------------ targets


def v5_outputs(seed=0, rows=60, classes=4, batch=1):
    """Rows as YOLOv5 returns them, in the graph: (B, N, 5 + K)."""
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(batch, rows, 2, generator=generator) * 60 + 50
    wh = torch.rand(batch, rows, 2, generator=generator) * torch.tensor([60.0, 30]) + 20
    rest = torch.rand(batch, rows, 1 + classes, generator=generator) * 0.9 + 0.05
    return torch.cat([xy, wh, rest], 2).requires_grad_()


@pytest.fixture
def v5():
    return YoloV5Style(V5())


def seeds_formula(table, boxes, labels, item, k):
    """The YOLOv5 explainer's Score, in numpy, with width and height in the columns where they are."""
    table = np.asarray(table, dtype=np.float64)
    corners = np.c_[table[:, :2] - table[:, 2:4] / 2, table[:, :2] + table[:, 2:4] / 2]
    score = 0.0
    for box, label in zip(np.asarray(boxes, dtype=np.float64), labels, strict=True):
        low, high = np.maximum(corners[:, :2], box[:2]), np.minimum(corners[:, 2:], box[2:])
        inside = np.prod(np.clip(high - low, 0, None), axis=1)
        iou = inside / (np.prod(corners[:, 2:] - corners[:, :2], 1) + np.prod(box[2:] - box[:2]) - inside)
        best = np.argsort(-iou)[:k]
        best = best[table[best, 5:].argmax(1) == label]
        if not len(best):
            continue
        weights = np.exp(iou[best]) / np.exp(iou[best]).sum()
        columns = {"x_center": 0, "y_center": 1, "width": 2, "height": 3, "confidence": 4, "class": 5 + label}
        if item == "class_confidence":
            score += np.log((table[best, 4] * weights).sum() * (table[best, 5 + label] * weights).sum())
        else:
            score += np.log((table[best, columns[item]] * weights).sum())
    return score


@pytest.mark.parametrize("k", [10, 1000])
@pytest.mark.parametrize("item", ["class", "confidence", "class_confidence", "x_center", "y_center", "width", "height"])
def test_overlap_is_the_seeds_formula(v5, item, k):
    outputs = v5_outputs()
    (found,) = v5.detections(outputs, confidence=0.0, max_detections=6)
    ours = BoxTarget(found, item, "overlap", k, family=v5)((outputs, []))
    theirs = seeds_formula(outputs[0].detach(), found.boxes, found.labels.tolist(), item, k)
    assert theirs != 0
    assert ours.item() == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize(
    ("item", "column"),
    [("x_center", 0), ("y_center", 1), ("width", 2), ("height", 3), ("confidence", 4), ("class", None)],
)
def test_each_item_reads_its_own_column(v5, item, column):
    outputs = v5_outputs()
    (found,) = v5.detections(outputs, confidence=0.0, max_detections=1)
    target = BoxTarget(found, item, family=v5)
    (gradient,) = torch.autograd.grad(target(outputs).sum(), outputs)
    row, column = int(found.rows[0]), 5 + int(found.labels[0]) if column is None else column
    touched = (gradient[0].abs() > 1e-5).nonzero().tolist()
    assert touched == [[row, column]]
    value = outputs[0, row, column].item()
    assert target(outputs).item() == pytest.approx(np.log(value), rel=1e-5)
    doubled = outputs.detach().clone()
    doubled[0, row, column] *= 2
    assert target(doubled).item() - target(outputs).item() == pytest.approx(np.log(2), rel=1e-4)


@pytest.mark.parametrize("item", ["x_center", "y_center", "width", "height"])
def test_logits_families_have_the_same_items(item):
    net = built("yolov8n")
    family, outputs, (found,) = detect(CASES["yolov8n"], net, images())
    x, y, w, h = outputs[0][0, :4, found.rows[0]].tolist()
    expected = {"x_center": x, "y_center": y, "width": w, "height": h}[item]
    got = BoxTarget(found.select([0]), item, family=family)(outputs).item()
    assert got == pytest.approx(np.log(expected), rel=1e-4)


def test_logits_are_explained_themselves_and_confidence_falls_back_to_them():
    net = built("yolov8n")
    family, outputs, (found,) = detect(CASES["yolov8n"], net, images())
    logits = outputs[1]["scores"][0].T[found.rows[:5]]
    expected = logits.gather(1, found.labels[:5, None]).sum()
    for item in ("class", "confidence", "class_confidence"):
        got = BoxTarget(found.select(range(5)), item, family=family)(outputs)
        torch.testing.assert_close(got, expected[None], rtol=1e-5, atol=1e-4)


def test_overlap_with_logits_is_the_weighted_logit():
    net = built("yolov8n")
    family, outputs, (found,) = detect(CASES["yolov8n"], net, images())
    raw = family.raw(outputs)
    got = BoxTarget(found.select([2]), matching="overlap", family=family)(outputs).item()
    iou = torchvision.ops.box_iou(found.boxes[2:3], raw.boxes[0])[0]
    values, rows = iou.topk(10)
    agree = raw.classes[0, rows].argmax(1) == found.labels[2]
    expected = (values[agree].softmax(0) * raw.classes[0, rows[agree], found.labels[2]]).sum()
    assert got == pytest.approx(expected.item(), rel=1e-5)


def test_overlap_of_boxes_is_torchvisions():
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(2, 30, 2, generator=generator) * 50
    boxes = torch.cat([low, low + torch.rand(2, 30, 2, generator=generator) * 40], 2)
    torch.testing.assert_close(overlaps(*boxes), torchvision.ops.box_iou(*boxes))
    assert overlaps(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0


def test_annotations_are_matched_by_overlap_only(v5):
    outputs = v5_outputs()
    boxes = torch.tensor([[30.0, 40, 90, 80]])
    annotated = Detections(boxes, torch.tensor([2]), torch.ones(1))
    with pytest.raises(ValueError, match='matching="overlap"'):
        BoxTarget(annotated, family=v5)
    assert torch.isfinite(BoxTarget(annotated, matching="overlap", family=v5)(outputs)).all()


@pytest.mark.parametrize("matching", ["exact", "overlap"])
def test_no_boxes_score_zero_with_a_gradient_of_zeros(v5, matching):
    outputs = v5_outputs()
    (found,) = v5.detections(outputs, confidence=0.0, max_detections=3)
    score = BoxTarget(found.select([]), ["class", "width"], matching, family=v5)(outputs)
    (gradient,) = torch.autograd.grad(score.sum(), outputs)
    assert score.tolist() == [0.0] and not gradient.any()


def test_vanished_probabilities_have_no_infinite_logarithm(v5):
    outputs = v5_outputs().detach()
    outputs[..., 4:] = 0
    found = Detections(torch.tensor([[10.0, 10, 40, 40]]), torch.tensor([0]), torch.ones(1), torch.tensor([3]))
    outputs.requires_grad_()
    for item in ("class", "confidence", "class_confidence"):
        score = BoxTarget(found, item, family=v5)(outputs)
        (gradient,) = torch.autograd.grad(score.sum(), outputs)
        assert torch.isfinite(score).all() and torch.isfinite(gradient).all()


def test_each_image_of_a_batch_has_its_own_boxes(v5):
    outputs = v5_outputs(batch=2)
    found = v5.detections(outputs, confidence=0.0, max_detections=4)
    together = BoxTarget([found[0], found[1].select([])], family=v5)(outputs)
    alone = BoxTarget(found[0], family=v5)(outputs[:1])
    torch.testing.assert_close(together, torch.stack([alone[0], torch.zeros(())]))
    with pytest.raises(ValueError, match="1 images, the batch has 2"):
        BoxTarget(found[0], family=v5)(outputs)


def test_one_images_rows_need_no_batch_dimension(v5):
    outputs = v5_outputs()
    (found,) = v5.detections(outputs, confidence=0.0, max_detections=4)
    (alone,) = v5.detections(outputs[0], confidence=0.0, max_detections=4)
    assert torch.equal(found.rows, alone.rows) and torch.equal(found.boxes, alone.boxes)
    target = BoxTarget(found, family=v5)
    torch.testing.assert_close(target(outputs[0]), target(outputs))


def test_classes_are_chosen_by_name_or_index(v5):
    outputs = v5_outputs()
    (found,) = v5.detections(outputs, confidence=0.0, max_detections=20)
    by_index = BoxTarget(found, family=v5, classes=[1, 2]).detections[0]
    by_name = BoxTarget(found, family=v5, classes=["b", "c"]).detections[0]
    assert set(by_index.labels.tolist()) == {1, 2}
    assert torch.equal(by_index.rows, by_name.rows)
    assert v5.indices(["1", "c"]) == {1, 2}  # as a shell writes an index
    assert len(BoxTarget(found, family=v5, classes=[]).detections[0]) == 20
    with pytest.raises(KeyError, match=r"no class 'bb'; nearest names: b"):
        BoxTarget(found, family=v5, classes="bb")
    with pytest.raises(KeyError, match="no class 7"):
        BoxTarget(found, family=v5, classes=7)


def test_wrong_arguments_say_what_is_right(v5):
    found = Detections(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    with pytest.raises(ValueError, match=r"'x_c'.*x_center"):
        BoxTarget(found, "x_c", family=v5)
    with pytest.raises(ValueError, match="exact"):
        BoxTarget(found, matching="nearest", family=v5)
    with pytest.raises(ValueError, match="per="):
        explain_detections(built("yolov8n"), images(), per="box")
    with pytest.raises(ValueError, match="mirrored"):
        explain_detections(built("yolov8n"), images(), aug_smooth=True)
    with pytest.raises(TypeError, match=r"Linear is no detector.*YOLOv5.*ultralytics.*torchvision"):
        family_of(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="no instance masks"):
        explain_detections(built("yolov8n"), images(), items="mask", confidence=0.0)


# ------------------------------------------------------------------------------------------------ families in detail


def test_a_branch_from_detached_features_gives_way_to_the_one_with_a_gradient():
    """ultralytics has detached the one-to-one branch in eval mode too; its row sits on the same cell of the other one."""
    net = built("yolo26n")
    x = images()
    head = net.model[-1]
    family, _, (found,) = detect(CASES["yolo26n"], net, x)

    def forward(features):
        one2many = head.forward_head(features, **head.one2many)
        one2one = head.forward_head([f.detach() for f in features], **head.one2one)
        answer = head._inference(one2one)
        return head.postprocess(answer.permute(0, 2, 1)), {"one2many": one2many, "one2one": one2one}

    head.forward = forward
    try:
        target = Tap("model.16", net.get_submodule("model.16"), lambda _: ())
        captured = capture(net, x, [target], record="from_layer")
        with torch.enable_grad():
            score = BoxTarget(found.select([0]), family=family)(captured.outputs)
            expected = captured.outputs[1]["one2many"]["scores"][0, found.labels[0], found.rows[0]]
            gone = captured.outputs[1]["one2one"]["scores"].sum()
        assert not gone.requires_grad
        assert score.item() == pytest.approx(expected.item(), rel=1e-5)
        (result,) = explain_detections(net, x, "layercam", confidence=0.0, max_detections=5)
        assert result.parts[0].valid["layercam"]
        assert torch.equal(result.detections.rows, found.rows[:5])
    finally:
        del head.forward


def test_masks_of_an_instance_segmenter():
    net = built("yolov8n-seg")
    x = images()
    family, outputs, (found,) = detect(CASES["yolov8n-seg"], net, x)
    one = found.select([0])
    (_, prototypes), extra = outputs
    logits = (extra["mask_coefficient"][0, :, one.rows[0]][:, None, None] * prototypes[0]).sum(0)
    x1, y1, x2, y2 = (one.boxes[0] / 4).tolist()  # prototypes are a quarter of the image
    yy, xx = np.mgrid[: logits.shape[0], : logits.shape[1]] + 0.5
    inside = torch.from_numpy((xx >= x1) & (xx <= x2) & (yy >= y1) & (yy <= y2)) & (logits > 0)
    expected = logits[inside].mean() if inside.any() else torch.zeros(())
    got = BoxTarget(one, "mask", family=family)(outputs)
    assert got.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    (result,) = explain_detections(net, x, "layercam", items=["mask", "class"], confidence=0.0, max_detections=4)
    assert result.parts[0].valid["layercam"]


def test_masks_of_mask_rcnn():
    torch.manual_seed(0)
    net = two_stage("MaskRCNN")()
    x = images()
    family, outputs, (found,) = detect(CASES["Faster R-CNN"], net, x)
    logits, inside = family.masks(outputs, 0, found.select([3]))
    with torch.no_grad():
        probabilities = watching("roi_heads.mask_predictor")(net, x)[3, found.labels[3]]
    torch.testing.assert_close(logits[0].detach(), probabilities, rtol=1e-3, atol=1e-4)
    assert torch.equal(inside, logits > 0)
    (result,) = explain_detections(net, x, "layercam", items="mask", per="detection", confidence=0.0, max_detections=2)
    assert all(part.valid["layercam"] for part in result.parts)


def test_wrappers_are_opened_and_names_found():
    net = built("yolov8n")
    holder = SimpleNamespace(model=SimpleNamespace(model=net))
    family = family_of(holder)
    assert family.model is net and family.name_of(0) == net.names[0]
    wrapped = libreyolo.LibreYOLO9(None, size="t", device="cpu")
    assert family_of(wrapped).model is wrapped.model and family_of(wrapped).name_of(0) == "person"


def test_a_padded_batch_is_cut_back_to_the_image():
    """torchvision enlarges 150 × 200 to 160 × 213 and pads that to 160 × 224: the last columns of a map are no image."""
    net = built("RetinaNet")
    x = images(size=(150, 200))
    family = family_of(net)
    with torch.no_grad():
        high, wide = family.canvas(family.forward(net, x))
    assert (high, wide) == (1, pytest.approx(224 / 213))
    layer = "backbone.fpn.layer_blocks.0"
    (result,) = explain_detections(net, x, "eigencam", layers=layer, confidence=0.0, max_detections=2)
    whole = CAM(net, "eigencam", layer, forward=family.forward, reshape=lambda maps: maps)(x).raw["eigencam", layer]
    assert whole.shape == (1, 20, 28)
    enlarged = nn.functional.interpolate(whole[None], size=(150, 210), mode="bilinear")[0, 0, :, :200]
    expected = (enlarged - enlarged.min()) / (enlarged.max() - enlarged.min())
    torch.testing.assert_close(result.parts[0].heatmaps["eigencam"], expected, rtol=1e-3, atol=1e-4)
    (nothing,) = explain_detections(net, x, ["eigencam", "gradcam"], layers=layer, confidence=1.1)
    assert nothing.parts == [] and set(nothing.features) == {"eigencam"}
    torch.testing.assert_close(nothing.features["eigencam"], expected, rtol=1e-3, atol=1e-4)
    picture = Image.fromarray((x[0] * 255).round().byte().permute(1, 2, 0).numpy())
    shown = explain(net, picture, "eigencam", layer, confidence=1.1)
    np.testing.assert_allclose(shown["heatmap"], expected, atol=0.02)
    assert "nothing was detected" in shown["message"] and "whatever is detected" in shown["message"]


# ------------------------------------------------------------------------------------------------ explain


def drawn(size=SIZE, seed=0):
    """A picture and, exactly, the input (1, 3, H, W) that it becomes."""
    pixels = (images(seed, size)[0] * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels), torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def letterbox_of(net, size):
    """``size=`` that leaves a picture as it is: YOLO networks get letterboxes of 640 otherwise."""
    return {"size": max(size)} if isinstance(net, DetectionModel) and not isinstance(net, RTDETRDetectionModel) else {}


def test_explain_takes_every_family(case):
    """Picture in, heatmap out: what explain_detections gives for the input that the picture becomes."""
    case, net = case
    picture, x = drawn(case.size)
    if isinstance(net, RTDETRDetectionModel):  # made square
        picture, x = drawn((192, 192))
        settings = {"size": 192}
    else:
        settings = letterbox_of(net, case.size)
    confidence = explain_detections(net, x, "eigencam", confidence=0.0)[0].detections.scores[:4].min().item() - 1e-6
    found = explain(net, picture, ["layercam", "eigencam"], confidence=confidence, **settings)
    (wanted,) = explain_detections(net, x, ["layercam", "eigencam"], confidence=confidence)
    assert len(found["detections"]) >= 4 and len(found["parts"]) == 1
    assert [d["label"] for d in found["detections"]] == [
        family_of(net).name_of(c) for c in wanted.detections.labels.tolist()
    ]
    height, width = x.shape[2:]
    edges = torch.tensor([width, height, width, height])
    expected = wanted.detections.boxes.clamp(min=0).minimum(edges)
    torch.testing.assert_close(torch.tensor([d["box"] for d in found["detections"]]), expected, rtol=1e-3, atol=0.05)
    for method in ("layercam", "eigencam"):
        heatmap = found["methods"][method]["heatmap"]
        np.testing.assert_allclose(heatmap, wanted.parts[0].heatmaps[method], atol=0.01)
        assert heatmap.max() > 0.99
    assert found["overlay"].shape == (height, width, 3)


class DetectMultiBackend(nn.Module):
    """What YOLOv5's class of that name is to us: it holds the network, has its names and stride, and calls it."""

    def __init__(self, model):
        super().__init__()
        self.model, self.names, self.stride, self.pt, self.fp16 = model, model.names, model.stride, True, False

    def forward(self, im, augment=False, visualize=False):
        return list(self.model(im))


class AutoShape(nn.Module):
    """As in YOLOv5: names and stride are copied, pictures go in, and what comes out is behind suppression."""

    def __init__(self, model):
        super().__init__()
        self.names, self.stride, self.dmb, self.pt, self.model = model.names, model.stride, True, True, model.eval()

    @torch.no_grad()
    def forward(self, ims, size=640):
        raise AssertionError("what is behind suppression has no gradient")


@pytest.fixture
def v5_net():
    net = calibrated(awake(V5()))
    net.stride = torch.tensor([8.0, 16.0])
    return net


@pytest.mark.parametrize("wrap", [DetectMultiBackend, lambda net: AutoShape(DetectMultiBackend(net))])
@pytest.mark.parametrize("per", ["all", "class", "detection"])
def test_the_wrappers_of_yolov5_are_taken_off(v5_net, wrap, per):
    picture, x = drawn()
    seen = explain_detections(v5_net, x, "layercam", confidence=0.0)[0].detections
    classes = [v5_net.names[label] for label in dict.fromkeys(seen.labels.tolist())][-2:]
    last = [v5_net.names[label] in classes for label in seen.labels.tolist()].index(True) + 8
    settings = {"per": per, "confidence": seen.scores[last].item(), "classes": classes, "matching": "overlap"}
    found = explain(wrap(v5_net), picture, "layercam", size=192, **settings)
    plain = explain(v5_net, picture, "layercam", size=192, **settings)
    assert len(found["parts"]) == len(plain["parts"]) > 0
    assert {detection["label"] for detection in found["detections"]} <= set(classes) and len(classes) == 2
    for ours, theirs in zip(found["parts"], plain["parts"], strict=True):
        np.testing.assert_array_equal(ours["heatmap"], theirs["heatmap"])
        assert (ours["label"], ours["box"]) == (theirs["label"], theirs["box"])
    (direct,) = explain_detections(wrap(v5_net), x, "layercam", **settings)
    for ours, theirs in zip(found["parts"], direct.parts, strict=True):
        np.testing.assert_allclose(ours["heatmap"], theirs.heatmaps["layercam"], atol=1e-3)
    nothing = explain(wrap(v5_net), picture, "layercam", size=192, per=per, classes=["b"], confidence=0.9999)
    assert nothing["parts"] == [] and nothing["detections"] == [] and "no b was detected" in nothing["message"]
    assert not nothing["heatmap"].any()
    np.testing.assert_array_equal(nothing["overlay"], np.asarray(picture))


def test_ultralytics_own_wrapper_is_taken_off():
    from ultralytics.nn.autobackend import AutoBackend

    picture, _ = drawn()
    net = yolo("yolov8n")()
    wrapped = AutoBackend(net, fuse=False, verbose=False)
    confidence = explain_detections(net, drawn()[1], "layercam", confidence=0.0)[0].detections.scores[5].item()
    found, plain = (explain(m, picture, "layercam", confidence=confidence, size=192) for m in (wrapped, net))
    assert found["parts"]
    np.testing.assert_allclose(found["heatmap"], plain["heatmap"], atol=1e-5)
    assert family_of(wrapped).model is net


@pytest.mark.parametrize("name", ["yolov8n-seg", "yolo11n-seg", "yolo12n-seg", "yolo26n-seg"])
def test_explain_of_mask_coefficients(name):
    net = built(name) if name in CASES else yolo(name, SegmentationModel, end2end=name.startswith("yolo26"))()
    picture, x = drawn()
    family, outputs, (found,) = detect(CASES.get(name, CASES["yolov8n-seg"]), net, x)
    one = found.select([0])
    logits, inside = family.masks(outputs, 0, one)
    settings = {"per": "detection", "items": ["mask"], "confidence": one.scores.item() - 1e-6, "size": 192}
    (part, *_) = explain(net, picture, "layercam", **settings)["parts"]
    (classes, *_) = explain(net, picture, "layercam", **settings | {"items": ["class"]})["parts"]
    assert inside.any()
    assert BoxTarget(one, "mask", family=family)(outputs).item() == pytest.approx(
        logits[inside].mean().item(), rel=1e-4
    )
    assert part["heatmap"].max() > 0.99 and np.abs(part["heatmap"] - classes["heatmap"]).max() > 0.05


# ------------------------------------------------------------------------------------------------ explain_detections


def test_parts_equal_a_cam_call_for_each(few):
    case, net = few
    x = images()
    methods = ["gradcam", "layercam", "eigencam"]
    family = family_of(net)
    settings = {"layers": family.layers(), "confidence": 0.0, "iou": case.iou, "max_detections": 3}
    (result,) = explain_detections(net, x, methods, per="detection", **settings)
    for part, position in zip(result.parts, range(3), strict=True):
        target = BoxTarget(result.detections.select([position]), family=family)
        settings = {"forward": family.forward, "aggregate": "max", "reshape": family.reshape(SIZE)}
        single = CAM(net, methods, family.layers(), **settings)(x, target)
        high, wide = family.canvas(family.forward(net, x))
        for method in methods:
            if high == wide == 1:
                torch.testing.assert_close(part.heatmaps[method], single[method][0], rtol=1e-3, atol=1e-4)
            assert part.valid[method] == bool(single.valid[method][0])


def test_a_level_without_a_part_in_the_boxes_is_blank_for_eigencam_too():
    """By default. YOLOv8's levels build on one another: a box of stride 16 depends on the inputs of stride 8 and 16."""
    net, x = built("yolov8n"), images()
    layers = family_of(net).layers()
    (result,) = explain_detections(net, x, ["eigencam", "layercam"], per="detection", confidence=0.0)
    ends = np.cumsum([SIZE[0] // stride * (SIZE[1] // stride) for stride in (8, 16, 32)])
    levels = [int(np.searchsorted(ends, row, side="right")) for row in result.detections.rows.tolist()]
    assert {0, 1} <= set(levels)
    expected = [CAM(net, "eigencam", layers[: level + 1], aggregate="max")(x)["eigencam"][0] for level in range(3)]
    for part, level in zip(result.parts, levels, strict=True):
        torch.testing.assert_close(part.heatmaps["eigencam"], expected[level], rtol=1e-3, atol=1e-4)
    alone = explain_detections(net, x, "eigencam", per="detection", confidence=0.0)[0]
    every = explain_detections(net, x, "eigencam", layers=layers, confidence=0.0)[0]
    torch.testing.assert_close(alone.parts[0].heatmaps["eigencam"], result.parts[0].heatmaps["eigencam"])
    torch.testing.assert_close(every.parts[0].heatmaps["eigencam"], expected[2], rtol=1e-3, atol=1e-4)


def test_methods_that_score_variants_work_too():
    net = built("yolov8n")
    methods = ["smoothgradcam++", "fullgrad", "gradcam"]
    (result,) = explain_detections(net, images(size=(64, 64)), methods, confidence=0.0, max_detections=2)
    assert set(result.parts[0].heatmaps) == set(methods)
    assert result.parts[0].valid["smoothgradcam++"] and result.parts[0].valid["fullgrad"]


@pytest.mark.parametrize("name", ["yolov8n", "RT-DETR"])
def test_scorecam_of_one_layer(name):
    net = built(name)
    layer = family_of(net).layers()[0]
    (result,) = explain_detections(
        net, images(size=(64, 64)), "scorecam", layers=layer, confidence=0.0, max_detections=1
    )
    assert result.parts[0].valid["scorecam"]


def test_several_items_are_averaged_as_maps():
    net, x = built("yolov8n"), images()
    single = [
        explain_detections(net, x, "layercam", items=item, confidence=0.0, max_detections=3)[0]
        .parts[0]
        .heatmaps["layercam"]
        for item in ("class", "height")
    ]
    both = explain_detections(net, x, "layercam", items=["class", "height"], confidence=0.0, max_detections=3)[0].parts[
        0
    ]
    mean = torch.stack(single).mean(0)
    expected = (mean - mean.min()) / (mean.max() - mean.min())
    torch.testing.assert_close(both.heatmaps["layercam"], expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(single[0], single[1], atol=1e-2)


def test_all_class_and_detection_group_the_same_boxes():
    net, x = built("yolov8n"), images()

    def explained(per, **more):
        return explain_detections(net, x, per=per, confidence=0.0, iou=0.5, max_detections=12, **more)[0]

    everything, classes, boxes = explained("all"), explained("class"), explained("detection")
    assert [part.members for part in everything.parts] == [tuple(range(12))]
    assert everything.parts[0].label is None and everything.parts[0].box is None
    assert sorted(i for part in classes.parts for i in part.members) == list(range(12))
    assert len({part.label for part in classes.parts}) == len(classes.parts) > 1
    assert [part.name for part in classes.parts] == [net.names[part.label] for part in classes.parts]
    assert len(boxes.parts) == 12
    for part, box in zip(boxes.parts, boxes.detections.boxes, strict=True):
        assert part.box == pytest.approx(box.tolist())
    label = classes.parts[0].label
    only = explained("class", classes=net.names[label])
    assert [part.label for part in only.parts] == [label]
    assert set(only.detections.labels.tolist()) == {label}


def test_nothing_detected_is_a_result_that_says_so():
    net = built("yolov8n")
    (result,) = explain_detections(net, images(), confidence=1.0)
    assert result.parts == [] and len(result.detections) == 0
    assert result.note == "nothing was detected with a confidence of 1 or more"
    assert result.heatmap("gradcam").shape == SIZE and not result.heatmap("gradcam").any()
    (result,) = explain_detections(net, images(), classes=[net.names[2]], confidence=1.0)
    assert net.names[2] in result.note


def test_a_single_late_layer_is_blank_for_boxes_of_another_stride():
    net, x = built("yolov8n"), images()
    family = family_of(net)
    with torch.no_grad():
        raw = family.raw(net(x))
    cells = [(SIZE[0] // stride) * (SIZE[1] // stride) for stride in (8, 16, 32)]
    starts = np.cumsum([0, *cells])
    valid = {}
    for level, start in enumerate(starts[:3]):
        row = torch.tensor([int(start) + cells[level] // 2])
        found = Detections(raw.boxes[0, row], raw.classes[0, row].argmax(1), torch.ones(1), row)
        for layers in (tuple(family.layers()), *((layer,) for layer in family.layers())):
            result = CAM(net, "layercam", list(layers), aggregate="max")(x, BoxTarget(found, family=family))
            valid[level, layers] = bool(result.valid["layercam"][0])
    everything = tuple(family.layers())
    assert [valid[level, everything] for level in range(3)] == [True, True, True]
    assert [valid[level, (everything[2],)] for level in range(3)] == [False, False, True]
