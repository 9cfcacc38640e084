"""YOLO's own matters: detached branches, mask coefficients, strides, and the wrappers of YOLOv5 and ultralytics."""

import numpy as np
import pytest
import torch
from detector_zoo import CASES, SIZE, V5, awake, built, calibrated, detect, drawn, images, yolo
from torch import nn
from ultralytics.nn.tasks import SegmentationModel

from cam_engine import CAM, explain
from cam_engine.capture import Tap, capture
from cam_engine.detect import BoxTarget, Detections, explain_detections, family_of

pytestmark = pytest.mark.models


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
