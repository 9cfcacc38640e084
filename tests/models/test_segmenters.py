"""Semantic segmenters: the mean logit of a class inside its predicted mask, against plain autograd."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cam_engine import explain
from cam_engine.targets import MaskTarget

torchvision = pytest.importorskip("torchvision", reason="make test-models runs this in .venv-peers")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.models

CLASSES = 4


def in_torchvision(name):
    return lambda: getattr(torchvision.models.segmentation, name)(
        weights=None, weights_backbone=None, num_classes=CLASSES
    )


def segformer():
    config = transformers.SegformerConfig(depths=[1, 1, 1, 1], num_labels=CLASSES)
    return transformers.SegformerForSemanticSegmentation(config)


@dataclass
class Case:
    build: Callable[[], nn.Module]
    output: str
    layer: str


CASES = {
    "DeepLabV3": Case(in_torchvision("deeplabv3_mobilenet_v3_large"), "out", "classifier.3"),
    "FCN": Case(in_torchvision("fcn_resnet50"), "out", "classifier.2"),
    "SegFormer": Case(segformer, "logits", "decode_head.activation"),
}


@pytest.fixture(params=CASES)
def case(request):
    case = CASES[request.param]
    torch.manual_seed(0)
    net = case.build()
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    with torch.no_grad():
        net.train()(torch.rand(4, 3, 96, 128))  # the statistics of an untouched norm let little of an image through
    return case, net.eval()


def test_a_class_inside_its_predicted_mask(case):
    case, net = case
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    kept = []
    handle = net.get_submodule(case.layer).register_forward_hook(lambda _m, _i, out: kept.append(out.requires_grad_()))
    logits = net(x)[case.output][0]
    handle.remove()
    label = int(logits.argmax(0).flatten().mode().values)
    inside = logits.argmax(0) == label
    assert inside.sum() > 0
    score = logits[label][inside].mean()
    (gradient,) = torch.autograd.grad(score, kept)
    expected = (gradient.relu() * kept[0]).sum(1, keepdim=True).relu()
    expected = nn.functional.interpolate(expected, size=x.shape[2:], mode="bilinear")[0, 0].detach()
    expected = (expected - expected.min()) / (expected.max() - expected.min())

    found = explain(net, x[0], "layercam", case.layer, MaskTarget(label), output=case.output)  # as the model gets it
    assert found["score"] == pytest.approx(score.item(), rel=1e-4)
    np.testing.assert_allclose(found["heatmap"], expected, atol=2e-3)
    assert found["overlay"].shape == pixels.shape and not any(p.grad is not None for p in net.parameters())
    plain = explain(net, x[0], "layercam", case.layer, label)
    np.testing.assert_allclose(plain["heatmap"], found["heatmap"], atol=1e-5)
    with pytest.raises(ValueError, match="of a segmenter"):
        explain(net, Image.fromarray(pixels), "layercam", case.layer)
