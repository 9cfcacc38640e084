"""The one-image tools on models as ultralytics, libreyolo and transformers hand them out, built without weights."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from cam_callbacks.cli import main
from cam_engine import AutoSave, autosave, explain, get_available_layer_names, save_feature_maps
from cam_engine.layers.friendly import friendly_names

pytestmark = pytest.mark.models

EXAMPLES = Path(__file__).parents[2] / "examples"
SEED_LAYERS = {
    "backbone_p1": "model.0",
    "backbone_c2f2_P3": "model.4",
    "backbone_c2f3_P4": "model.6",
    "backbone_sppf_P5": "model.9",
    "neck_c2f21": "model.12",
    "neck_c2f22": "model.21",
}


@pytest.fixture(scope="module")
def untrained():
    spec = importlib.util.spec_from_file_location("untrained", EXAMPLES / "untrained.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def make_detecting(untrained):
    """YOLOv8n that detects classes 15 and 16; always the same one."""
    from ultralytics import YOLO

    def make():
        torch.manual_seed(1)
        yolo = YOLO("yolov8n.yaml")
        untrained.make_it_detect(yolo.model, share=0.002)
        return yolo

    return make


@pytest.fixture(scope="module")
def detecting(make_detecting):
    return make_detecting()


@pytest.fixture(scope="module")
def photo(untrained):
    return untrained.photograph()


def state_of(net):
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()]
    tensors = {k: v.clone() for k, v in net.state_dict().items()}
    return hooks, [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()], tensors


def assert_untouched(net, before):
    after = state_of(net)
    assert after[:3] == before[:3] and all(p.grad is None for p in net.parameters())
    assert all(torch.equal(after[3][key], value) for key, value in before[3].items())


def test_the_seeds_layer_names(detecting):
    from ultralytics import YOLO

    assert SEED_LAYERS.items() <= friendly_names(detecting.model).items()
    names = get_available_layer_names(detecting, size=64)
    assert names[0] == "backbone_p1" and "model.21.cv2.conv" in names and len(names) == len(set(names))
    assert friendly_names(YOLO("yolo11n.yaml").model)["backbone_c2psa_P5"] == "model.10"
    assert friendly_names(YOLO("yolov5n.yaml").model)["neck_c3_4"] == "model.23"


@pytest.mark.parametrize("layer", ["neck_c2f22", "model.21", -2])
def test_layers_by_every_kind_of_name(detecting, photo, layer):
    found = explain(detecting, photo, "eigencam", layer, size=160)
    np.testing.assert_array_equal(
        found["heatmap"], explain(detecting, photo, "eigencam", "model.21", size=160)["heatmap"]
    )
    assert found["target_layer"] == ("neck_c2f22" if layer == "neck_c2f22" else "model.21")


def test_the_letterbox_is_undone(detecting, photo):
    tall = photo.crop((200, 100, 300, 260))  # 100×160: padded by 14 on both sides, not resized
    found = explain(detecting, tall, "layercam", per="detection", size=160)
    assert found["heatmap"].shape == (160, 100) and found["overlay"].shape == (160, 100, 3)
    assert found["target_layer"] == "model.15, model.18, model.21"
    boxes = np.array([part["box"] for part in found["parts"]])
    wanted = detecting.predict(tall, imgsz=160, conf=0.25, verbose=False)[0].boxes.xyxy.numpy()
    assert len(boxes) > 3
    np.testing.assert_allclose(sorted(boxes.tolist()), sorted(wanted.tolist()), atol=0.1)
    large = explain(detecting, tall.resize((300, 480), Image.Resampling.NEAREST), "layercam", per="detection", size=160)
    boxes_of_large = np.array([part["box"] for part in large["parts"]])
    np.testing.assert_allclose(boxes_of_large[0] / 3, boxes[0], atol=1)


def test_parts_and_classes(detecting, photo):
    found = explain(detecting, photo, "gradcam", per="class", size=160)
    assert {part["label"] for part in found["parts"]} == {"15", "16"} and all(p["box"] is None for p in found["parts"])
    assert len({part["heatmap"].tobytes() for part in found["parts"]}) == 2
    only = explain(detecting, photo, "gradcam", classes=["16"], per="class", size=160)
    np.testing.assert_allclose(
        only["parts"][0]["heatmap"], next(p for p in found["parts"] if p["label"] == "16")["heatmap"], atol=1e-5
    )


def test_nothing_detected_is_said(detecting, photo):
    found = explain(detecting, photo, "gradcam", classes=[3], size=160)
    assert "no 3 was detected" in found["message"] and found["parts"] == [] and found["score"] is None
    np.testing.assert_array_equal(found["overlay"], np.asarray(photo))
    assert not found["heatmap"].any()
    for asked in ({"classes": 3}, {"classes": 0}, {"target": 0}, {"confidence": 1.1, "per": "class"}):
        of_eigencam = explain(detecting, photo, "eigencam", size=160, **asked)
        assert of_eigencam["message"] and not of_eigencam["heatmap"].any()
        np.testing.assert_array_equal(of_eigencam["overlay"], np.asarray(photo))
    of_features = explain(detecting, photo, "eigencam", size=160, confidence=1.1)
    assert "whatever is detected" in of_features["message"] and of_features["heatmap"].max() > 0.5


def test_saving_a_detectors_parts(detecting, photo, tmp_path):
    found = explain(
        detecting, photo, ["eigencam", "layercam"], per="class", size=160, save=True, output_path=tmp_path / "out"
    )
    assert found["saved_path"] == str(tmp_path / "out" / "image_methods.png")
    names = ("parts.png", "figure.png", "overlay.png", "heatmap.npy")
    for name in [*(f"image_layercam_{name}" for name in names), "parts/001_image_layercam_overlay.png"]:
        assert (tmp_path / "out" / "layercam" / name).is_file()
    metadata = json.loads((tmp_path / "out" / "layercam" / "metadata.json").read_text())
    assert len(metadata["detections"]) == len(found["detections"]) and len(metadata["parts"]) == 2


def test_the_shell_does_the_same(detecting, photo, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shell_model", SimpleNamespace(YOLO=lambda: detecting))
    monkeypatch.chdir(tmp_path)
    photo.save("photo.png")
    command = ["explain", "shell_model:YOLO", "photo.png", "--size", "160"]
    options = (
        "--method layercam --layer -2 neck_c2f21 --per class --classes 16 --items class width --matching overlap "
        "--confidence 0.3 --alpha 0.7 -o out"
    )
    assert main([*command, *options.split()]) == 0
    detector = {"per": "class", "classes": [16], "items": ["class", "width"], "matching": "overlap", "confidence": 0.3}
    expected = explain(detecting, photo, "layercam", [-2, "neck_c2f21"], size=160, alpha=0.7, **detector)
    assert [part["label"] for part in expected["parts"]] == ["16"]
    heatmap = np.load("out/photo/parts/001_photo_layercam_heatmap.npy")
    np.testing.assert_allclose(heatmap, expected["parts"][0]["heatmap"], atol=1e-5)
    np.testing.assert_array_equal(np.asarray(Image.open("out/photo/photo_layercam_overlay.png")), expected["overlay"])

    assert main([*command, "--eigen-smooth", "--layer", "model.21"]) == 0
    expected = explain(detecting, photo, "gradcam", "model.21", eigen_smooth=True, size=160)["heatmap"]
    np.testing.assert_allclose(np.load("runs/gradcam/photo/photo_gradcam_heatmap.npy"), expected, atol=1e-5)

    wrong = {"--items size": "'size'", "--aug-smooth": "aug_smooth", "--classes cat": "no class 'cat'"}
    for option, words in wrong.items():
        assert main([*command, *option.split()]) == 2 and words in capsys.readouterr().err

    assert main(["layers", "shell_model:YOLO", "--size", "160"]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["model.21", "neck_c2f22", "C2f"] in [row[:3] for row in table]


def test_no_trace_on_the_network(detecting, photo):
    before = state_of(detecting.model)
    for kwargs in ({"method": "gradcam", "per": "class"}, {"method": ["eigencam", "hirescam"], "target_layer": -3}):
        explain(detecting, photo, size=160, **kwargs)
    assert_untouched(detecting.model, before)


@pytest.mark.parametrize("predicted_before", [False, True])
def test_autosave_beside_a_yolos_detections(make_detecting, photo, tmp_path, predicted_before):
    yolo = make_detecting()
    expected = make_detecting().predict(photo, imgsz=160, verbose=False)[0].boxes.data
    if predicted_before:
        yolo.predict(photo, imgsz=160, verbose=False)
    before = state_of(yolo.model)
    with autosave(yolo, "gradcam", "neck_c2f22", folder=tmp_path) as saved:
        results = yolo(photo, imgsz=160, verbose=False)
    assert len(saved.paths) == 1 and saved.errors == [] and saved.paths[0].name == "image0"
    torch.testing.assert_close(results[0].boxes.data, expected)
    assert_untouched(yolo.model, before)
    yolo(photo, imgsz=160, verbose=False)
    assert len(list(tmp_path.iterdir())) == 1
    assert not yolo.predictor.model.backend.model._forward_hooks


def test_feature_maps_of_a_yolo(detecting, photo, tmp_path):
    out = save_feature_maps(detecting, photo, ["backbone_p1", "neck_c2f22"], folder=tmp_path / "maps", size=160)
    assert sorted(path.name for path in out.iterdir()) == ["backbone_p1.png", "metadata.json", "neck_c2f22.png"]
    with pytest.raises(KeyError, match="backbone_p1, backbone_p2"):
        save_feature_maps(detecting, photo, ["backbone_p9"], folder=tmp_path / "maps", size=160)
    every = save_feature_maps(detecting, photo, channels=2, folder=tmp_path / "all", size=160)
    assert {path.stem for path in every.glob("*.png")} == set(friendly_names(detecting.model))


@pytest.mark.parametrize("name", ["yolov8n-cls", "yolo11n-cls", "yolo12n-cls", "yolo26n-cls"])
def test_a_yolo_classifier(photo, name):
    from ultralytics import YOLO

    found = explain(YOLO(f"{name}.yaml"), photo, "gradcam", -2, target=3)
    assert found["heatmap"].shape == (427, 640) and "parts" not in found
    assert found["heatmap"][:, :100].max() == 0  # the centre crop never saw the sides


def test_libreyolo(untrained, photo, tmp_path):
    from libreyolo import LibreYOLO9

    model = LibreYOLO9(None, size="t", device="cpu")
    untrained.make_it_detect(model.model, share=0.002)
    before = state_of(model.model)
    found = explain(model, photo, "gradcam", "neck_elan_down2", per="detection", size=160)
    assert found["target_layer"] == "neck_elan_down2" and found["heatmap"].shape == (427, 640)
    boxes = np.array([part["box"] for part in found["parts"]])
    assert len(boxes) and (boxes[:, 2] <= 640).all() and (boxes[:, 3] <= 427).all()
    assert_untouched(model.model, before)
    wrapped = AutoSave(model, layer="neck_elan_down2", folder=tmp_path)
    wrapped(photo, imgsz=160)
    assert len(wrapped.paths) == 1 and wrapped.saved.errors == []


def test_transformers_with_a_processor(photo):
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    config = ViTConfig(image_size=64, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                       intermediate_size=64, num_labels=4)  # fmt: skip
    torch.manual_seed(0)
    model = ViTForImageClassification(config).eval()
    processor = ViTImageProcessor(size={"height": 64, "width": 64})
    before = state_of(model)
    found = explain(model, photo, "layercam", target=2, processor=processor)
    assert found["heatmap"].shape == (427, 640) and found["heatmap"].max() > 0.5
    with torch.no_grad():
        logits = model(processor(images=photo, return_tensors="pt")["pixel_values"]).logits
    assert found["score"] == pytest.approx(float(logits[0, 2]), abs=1e-5)
    assert_untouched(model, before)


@pytest.mark.parametrize(
    ("script", "written"),
    [
        (
            "libreyolo_explain",
            ["results/image_eigencam_overlay.png", "gradcam++/metadata.json", "auto/image", "features/metadata.json"],
        ),
        (
            "yolov8_eigencam",
            [
                "components.png",
                "eigencam-2/image_eigencam_heatmap.npy",
                "per_class/image_eigengradcam_parts.png",
                "classify/image_eigencam_overlay.png",
            ],
        ),
        (
            "yolov5_explainer",
            [
                "dog/cat-dog_gradcam_parts.png",
                "averaged/cat-dog_gradcam_heatmap.npy",
                "none_found/cat-dog_gradcam_overlay.png",
            ],
        ),
    ],
)
def test_examples(script, written, tmp_path):
    command = [sys.executable, EXAMPLES / f"{script}.py", "--folder", "out", "--size", "160"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / "out" / name).exists() for name in written), done.stdout
    if script == "yolov5_explainer":
        assert "no person was detected" in done.stdout
        source = np.asarray(Image.open(tmp_path / "out" / "cat-dog.jpg"))
        np.testing.assert_array_equal(
            np.asarray(Image.open(tmp_path / "out" / "none_found" / "cat-dog_gradcam_overlay.png")), source
        )
