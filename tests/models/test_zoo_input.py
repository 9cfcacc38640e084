"""torchvision, timm and transformers models get the input that their library gives them; and the shell opens all of them."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("timm", reason="make test-models runs this in .venv-peers")
import timm
from timm.data import create_transform, resolve_model_data_config

from cam_callbacks.cli import main
from cam_engine import explain
from cam_engine.loading import load_model

sys.path.insert(0, str(Path(__file__).parent))
from photographs import PHOTOGRAPHS

pytestmark = pytest.mark.models
CAT = PHOTOGRAPHS["cat"]


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_timm(name):
    net = timm.create_model(name).eval()
    expected = create_transform(**resolve_model_data_config(net))(CAT.image())
    torch.testing.assert_close(load_model(net).prepare(CAT.image())[0][0], expected)
    found = explain(net, CAT.path(), "eigencam", target="Egyptian cat")
    assert (found["class_index"], found["class_name"]) == (285, "Egyptian cat") and "message" not in found
    other = explain(net, CAT.path(), "eigencam", mean=0.1, std=0.9)
    assert other["score"] != explain(net, CAT.path(), "eigencam")["score"]


def test_timm_made_for_another_size_and_other_classes():
    net = timm.create_model("vit_tiny_patch16_224", img_size=64, patch_size=8, num_classes=7).eval()
    loaded = load_model(net)
    assert loaded.prepare(CAT.image())[0].shape == (1, 3, 64, 64) and loaded.classes is None


def test_torchvision():
    from torchvision.models import MobileNet_V3_Small_Weights as Weights
    from torchvision.models import mobilenet_v3_small

    net = mobilenet_v3_small().eval()
    expected = Weights.IMAGENET1K_V1.transforms()(CAT.image())
    loaded = load_model(net)
    torch.testing.assert_close(loaded.prepare(CAT.image())[0][0], expected)
    assert loaded.classes[285] == "Egyptian cat" and not loaded.input_assumed
    tuned = mobilenet_v3_small(num_classes=3).eval()
    found = explain(tuned, CAT.path(), "eigencam")
    assert "assumed" in found["message"] and "MobileNet_V3" in found["message"] and found["class_name"] is None
    told = explain(tuned, CAT.path(), "eigencam", weights=Weights.IMAGENET1K_V1, class_names=["a", "b", "c"])
    assert "message" not in told and told["class_name"] in "abc"
    with pytest.raises(TypeError, match="member of torchvision's weights"):
        explain(net, CAT.path(), weights="mobilenet.pth")


@pytest.fixture(scope="module")
def hf_folder(tmp_path_factory):
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    config = ViTConfig(image_size=64, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                       intermediate_size=64, num_labels=3, id2label={0: "cat", 1: "cup", 2: "rocket"})  # fmt: skip
    folder = tmp_path_factory.mktemp("vit")
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 64, "width": 64}, image_mean=[0.2] * 3, image_std=[0.7] * 3).save_pretrained(
        folder
    )
    return folder


def test_transformers_with_the_processor_beside_the_weights(hf_folder):
    from transformers import AutoImageProcessor, ViTForImageClassification

    net = ViTForImageClassification.from_pretrained(hf_folder).eval()
    expected = AutoImageProcessor.from_pretrained(hf_folder)(images=CAT.image(), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(load_model(net).prepare(CAT.image())[0], expected)
    found = explain(net, CAT.path(), "layercam", target="cup")
    with torch.no_grad():
        probabilities = net(expected).logits.softmax(1)[0]
    assert found["probability"] == pytest.approx(float(probabilities[1]), abs=1e-5) and found["class_name"] == "cup"


def test_the_shell_opens_what_people_have(hf_folder, tmp_path, monkeypatch, capsys):
    from ultralytics import YOLO

    monkeypatch.chdir(tmp_path)
    CAT.image().resize((150, 100)).save("cat.png")
    YOLO("yolov8n-cls.yaml", verbose=False).save("best.pt")
    torch.save(timm.create_model("mobilenetv3_small_050", num_classes=4).state_dict(), "four.pth")
    commands = {
        "timm": ["timm:mobilenetv3_small_050", "--num-classes", "4", "--weights", "four.pth", "--class-names", *"abcd"],
        "torchvision": ["torchvision:mobilenet_v3_small", "--target", "Egyptian cat", "--colormap", "red"],
        "hf": [f"hf:{hf_folder}", "--method", "eigencam", "--component", "1"],
        "best": ["best.pt", "--size", "64", "--no-caption"],
    }
    for name, (model, *options) in commands.items():
        method = [] if "--method" in options else ["--method", "layercam"]
        assert main(["explain", model, "cat.png", *options, *method, "-o", f"{name}.png"]) == 0, capsys.readouterr().err
        said = capsys.readouterr()
        assert f"cat.png: {name}.png  " in said.out
        assert ("RANDOM WEIGHTS" in said.err) == (name in ("torchvision", "best")), said.err
        assert np.asarray(Image.open(f"{name}.png")).shape == (100, 150, 3)
    for wrong, words in {
        "timm:nonet": "timm: ",
        "hf:nowhere": "save_pretrained",
        "none.module": "package.module:name",
    }.items():
        assert main(["explain", wrong, "cat.png"]) == 2 and words in capsys.readouterr().err


def test_layers_marks_what_auto_takes(capsys):
    assert main(["layers", "torchvision:mobilenet_v3_small"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.endswith("<- auto")] == ["features"]
    assert main(["layers", "yolov8n.yaml", "--size", "64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    marked = [line.split()[0] for line in lines if line.endswith("<- auto")]
    assert marked == ["model.15", "model.18", "model.21"]
