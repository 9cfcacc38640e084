"""The score of boxes: rows, items, ways to match; against the YOLOv5 explainer's formula and torchvision's overlaps."""

import numpy as np
import pytest
import torch
from detector_zoo import CASES, V5, built, detect, images
from torch import nn

from cam_engine.detect import BoxTarget, Detections, explain_detections, family_of
from cam_engine.detect.boxes import overlaps
from cam_engine.detect.yolo import YoloV5Style

torchvision = pytest.importorskip("torchvision")

pytestmark = pytest.mark.models


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
