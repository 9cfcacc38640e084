"""Every detector family, built from its configuration with random weights, and its own library's way to read it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from cam_engine.detect import family_of

pytest.importorskip("ultralytics", reason="make test-models runs this in .venv-peers")
transformers = pytest.importorskip("transformers")
torchvision = pytest.importorskip("torchvision")
libreyolo = pytest.importorskip("libreyolo")

from ultralytics.nn.tasks import DetectionModel, RTDETRDetectionModel, SegmentationModel  # noqa: E402
from ultralytics.utils.nms import non_max_suppression  # noqa: E402

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


def detect(case, net, x, most=20):
    family = family_of(net)
    with torch.no_grad():
        outputs = family.forward(net, x)
        return family, outputs, family.detections(outputs, confidence=0.0, iou=case.iou, max_detections=most)


def drawn(size=SIZE, seed=0):
    """A picture and, exactly, the input (1, 3, H, W) that it becomes."""
    pixels = (images(seed, size)[0] * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels), torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
