"""Parts of a detector's explanation: for all boxes, each class, each box, and where there are none."""

import pytest
import torch
from detector_zoo import CASES, FEW, SIZE, built, images

from cam_engine import CAM
from cam_engine.detect import BoxTarget, explain_detections, family_of

pytestmark = pytest.mark.models


@pytest.fixture(params=FEW)
def few(request):
    return CASES[request.param], built(request.param)


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


@pytest.mark.parametrize(
    ("methods", "each"), [(["gradcam", "eigencam", "shapleycam"], 0), (["layercam", "fullgrad"], 1)]
)
def test_parts_share_the_one_forward_of_the_image(methods, each):
    """FullGrad takes one more for each part, through the whole model; nothing else does."""
    net, forwards = built("yolov8n"), []
    handle = net.register_forward_pre_hook(lambda *_: forwards.append(1))
    try:
        (result,) = explain_detections(net, images(), methods, per="detection", confidence=0.0, max_detections=3)
    finally:
        handle.remove()
    assert len(result.parts) == 3 and all(any(part.valid.values()) for part in result.parts)
    assert len(forwards) == 1 + 3 * each
