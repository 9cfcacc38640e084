"""What ``predict`` of ultralytics detects, ``explain`` explains: size, thresholds and classes are the checkpoint's."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("ultralytics", reason="make test-models runs this in .venv-peers")
from ultralytics import RTDETR, YOLO

from cam_engine import AutoSave, explain
from cam_engine.loading import load_model

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "models"), str(ROOT / "examples")]
import shapes  # noqa: E402
import untrained  # noqa: E402

pytestmark = [pytest.mark.models, pytest.mark.timeout(1200)]
SIZE = shapes.SIZE


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint as a training of 160 px leaves it, opened as a user does."""
    yolo = YOLO("yolov8n.yaml", verbose=False)
    yolo.model = shapes.trained().float()
    yolo.model.args = {"imgsz": SIZE, "task": "detect", "model": "yolov8n.yaml"}
    yolo.ckpt = {"model": yolo.model}
    path = tmp_path_factory.mktemp("weights") / "best.pt"
    torch.save({"model": yolo.model.half(), "train_args": yolo.model.args, "date": "", "version": "8"}, path)
    return YOLO(path)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """Four pictures of shapes beside and below each other, 320×320: at 640 px each shape would be four times its size."""
    generator = np.random.default_rng(7)
    drawn = [shapes.draw(generator)[0] for _ in range(4)]
    rows = [np.concatenate(drawn[i : i + 2], axis=2) for i in (0, 2)]
    pixels = (np.concatenate(rows, axis=1).transpose(1, 2, 0) * 255).round().astype(np.uint8)
    path = tmp_path_factory.mktemp("picture") / "shapes.png"
    Image.fromarray(pixels[:, :280]).save(path)
    return path


def assert_same(found, predicted):
    """The same boxes, scores and labels; a fused network rounds differently."""
    assert len(found["detections"]) == len(predicted.boxes) > 0
    boxes = np.array([each["box"] for each in found["detections"]])
    np.testing.assert_allclose(boxes, predicted.boxes.xyxy.numpy(), atol=0.5)
    np.testing.assert_allclose([d["score"] for d in found["detections"]], predicted.boxes.conf.numpy(), atol=2e-3)
    names = [predicted.names[int(label)] for label in predicted.boxes.cls]
    assert [each["label"] for each in found["detections"]] == names


def test_a_checkpoint_is_explained_at_the_size_it_was_trained_at(trained, picture):
    assert trained.overrides["imgsz"] == SIZE
    predicted = trained.predict(picture, verbose=False)[0]
    found = explain(trained, picture, "layercam")
    assert_same(found, predicted)
    assert found["preprocessing"] == f"as predict makes it, {SIZE} px"
    other = explain(trained, picture, "layercam", imgsz=320)
    assert_same(other, trained.predict(picture, imgsz=320, verbose=False)[0])
    assert len(other["detections"]) != len(found["detections"]) or other["score"] != found["score"]


@pytest.mark.parametrize(
    "given",
    [
        {"conf": 0.6},
        {"iou": 0.2},
        {"agnostic_nms": True, "iou": 0.2, "conf": 0.01},
        {"max_det": 2},
        {"classes": [1]},
        {"imgsz": [128, 192]},
        {"imgsz": 100},
        {"half": True},
    ],
    ids=str,
)
def test_what_predict_is_told_explain_is_told(trained, picture, given):
    assert_same(explain(trained, picture, "layercam", **given), trained.predict(picture, verbose=False, **given)[0])


def test_what_the_model_itself_is_told(trained, picture):
    trained.overrides |= {"classes": [0], "iou": 0.3, "max_det": 3, "agnostic_nms": True}
    try:
        assert_same(explain(trained, picture, "layercam"), trained.predict(picture, verbose=False)[0])
    finally:
        for name in ("classes", "iou", "max_det", "agnostic_nms"):
            trained.overrides.pop(name)


def test_autosave_keeps_name_and_pixels(trained, picture, tmp_path):
    model = AutoSave(trained, cam_method="layercam", folder=tmp_path)
    model(str(picture), verbose=False)
    model.disable()
    assert [path.name for path in model.paths] == ["shapes"] and model.saved.errors == []
    overlay = np.asarray(Image.open(model.paths[0] / "shapes_layercam_overlay.png"))
    np.testing.assert_array_equal(overlay, explain(trained, picture, "layercam")["overlay"])


def test_a_blank_layer_names_the_one_that_shows_it(trained, picture):
    """Boxes of one level leave the other levels without a gradient."""
    strides = {"model.15": 8, "model.18": 16, "model.21": 32}
    maps = {layer: explain(trained, picture, "layercam", layer) for layer in strides}
    blank = [layer for layer, found in maps.items() if not found["heatmap"].any()]
    shown = [layer for layer in strides if layer not in blank]
    assert blank and shown
    for layer in blank:
        message = maps[layer]["message"]
        assert f"({layer})" in message and "is blank at" in message
        assert all(f"({other})" in message for other in shown[-2:])
    assert (maps[blank[0]]["overlay"] != np.asarray(Image.open(picture).convert("RGB"))).any()


def test_half_reaches_a_model_that_is_not_on_a_cpu():
    """Where there is no GPU: one parameter on a device without memory."""
    yolo = YOLO("yolov8n.yaml", verbose=False)
    assert load_model(yolo, half=True).net is yolo.model
    yolo.model.register_parameter("elsewhere", torch.nn.Parameter(torch.zeros(1, device="meta")))
    taken = load_model(yolo, half=True).net
    assert {p.dtype for p in taken.parameters()} == {torch.float16}
    assert {p.dtype for p in yolo.model.parameters()} == {torch.float32}


def test_what_suppresses_inside_of_itself_is_never_agnostic():
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    net = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    with pytest.raises(ValueError, match=r"agnostic=True means nothing for .*inside of itself"):
        explain(net, untrained.photograph(), "layercam", agnostic_nms=True)


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("name", ["yolov8n-obb", "yolo11n-obb"])
def test_oriented_boxes_are_kept_as_ultralytics_keeps_them(name, agnostic):
    from ultralytics.utils.nms import non_max_suppression
    from ultralytics.utils.ops import xywhr2xyxyxyxy

    from cam_engine.detect import family_of

    torch.manual_seed(0)
    net = YOLO(f"{name}.yaml", verbose=False).model
    untrained.make_it_detect(net, classes=(3, 4), share=0.02)
    picture = np.array(untrained.photograph().resize((320, 224)))  # no two scores are equal, as in noise
    with torch.no_grad():
        outputs = net.eval()(torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255)
    family = family_of(net)
    family.agnostic = agnostic
    (kept,) = family.detections(outputs, confidence=0.25, iou=0.7)
    (theirs,) = non_max_suppression(outputs, 0.25, 0.7, nc=len(net.names), rotated=True, agnostic=agnostic)
    assert len(kept) == len(theirs) > 10
    corners = xywhr2xyxyxyxy(torch.cat([theirs[:, :4], theirs[:, -1:]], 1))
    boxes = torch.cat([corners.amin(1), corners.amax(1)], 1)
    torch.testing.assert_close(kept.boxes, boxes, atol=1e-2, rtol=1e-4)
    torch.testing.assert_close(kept.corners, corners, atol=1e-2, rtol=1e-4)
    assert kept.labels.tolist() == theirs[:, 5].long().tolist()


@pytest.mark.parametrize("method", ["eigencam", "layercam"])
def test_oriented_boxes_are_explained(method):
    torch.manual_seed(0)
    yolo = YOLO("yolov8n-obb.yaml", verbose=False)
    untrained.make_it_detect(yolo.model, classes=(3, 4), share=0.01)
    photo = untrained.photograph()
    found = explain(yolo, photo, method, size=160, per="class")
    assert found["parts"] and found["heatmap"].any()
    for each in found[
        "detections"
    ]:  # as ultralytics has them (above); the upright box around them is cut at the picture's edges
        corners = np.array(each["corners"])
        around = [corners.min(0).clip(0, photo.size), corners.max(0).clip(0, photo.size)]
        np.testing.assert_allclose(np.concatenate(around), each["box"], atol=1e-2)
    for part in found["parts"]:  # of the same boxes, in the same order
        of = [d["corners"] for d in found["detections"] if d["label"] == part["label"]]
        assert part["corners"] == of and len(of) == len(part["boxes"])


def test_a_classifier_is_cropped_as_predict_crops():
    yolo = YOLO("yolov8n-cls.yaml", verbose=False)
    yolo.overrides["imgsz"] = 96
    photo = untrained.photograph()
    probs = yolo.predict(photo, verbose=False)[0].probs
    found = explain(yolo, photo, "gradcam")
    assert found["class_index"] == probs.top1
    assert found["probability"] == pytest.approx(float(probs.top1conf), rel=1e-3)


@pytest.mark.parametrize("task", ["segment", "pose", "semantic", "depth", "rtdetr"])
def test_every_other_task_is_explained_at_the_models_own_size(task):
    names = {"segment": "yolov8n-seg", "pose": "yolov8n-pose", "semantic": "yolo26n-sem", "depth": "yolo26n-depth"}
    torch.manual_seed(0)
    model = RTDETR("rtdetr-l.yaml") if task == "rtdetr" else YOLO(f"{names[task]}.yaml", verbose=False)
    model.overrides["imgsz"] = 96
    photo = untrained.photograph()
    conf = 0.0002 if task in ("segment", "pose") else 0.01
    extra = {"target": 3} if task == "semantic" else {} if task == "depth" else {"conf": conf, "max_det": 20}
    found = explain(model, photo, "eigencam", **extra)
    assert found["heatmap"].any() and found["preprocessing"] == "as predict makes it, 96 px"
    if task not in ("semantic", "depth"):
        predicted = model.predict(photo, verbose=False, conf=conf, max_det=20)[0]
        assert len(found["detections"]) == len(predicted.boxes)
        ours = np.array([each["score"] for each in found["detections"]])
        np.testing.assert_allclose(ours, predicted.boxes.conf.numpy(), rtol=0.02)
