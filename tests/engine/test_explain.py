from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cam_engine import CAM, explain
from cam_engine.pictures import to_pictures
from cam_engine.render import overlay, upsample


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, 4, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


@pytest.fixture
def picture():
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image("flower.jpg")).resize((96, 64))


def test_equals_cam_at_the_size_of_the_picture(net, picture):
    explained = explain(net, picture, "layercam", target_layer="3", target=1)
    tensor = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float() / 255
    result = CAM(net, "layercam", "3")(tensor, 1)
    expected = upsample(result["layercam"][0].numpy(), (64, 96))
    np.testing.assert_allclose(explained["heatmap"], expected, atol=1e-6)
    assert (
        explained["heatmap"].dtype == np.float32 and 0 <= explained["heatmap"].min() <= explained["heatmap"].max() <= 1
    )
    np.testing.assert_array_equal(explained["overlay"], overlay(np.asarray(picture), expected))
    assert explained["original_image"].size == (96, 64)
    assert (explained["method"], explained["target_layer"]) == ("layercam", "3") and "saved_path" not in explained
    assert Image.open(io.BytesIO(explained._repr_png_())).size == (96, 64)


def test_every_kind_of_image_gives_the_same(net, picture, tmp_path):
    picture.save(tmp_path / "flower.png")
    pixels = np.asarray(picture)
    kinds = [tmp_path / "flower.png", str(tmp_path / "flower.png"), (tmp_path / "flower.png").read_bytes(), pixels,
             torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255]  # fmt: skip
    expected = explain(net, picture)["heatmap"]
    for kind in kinds:
        np.testing.assert_allclose(explain(net, kind)["heatmap"], expected, atol=1e-6)


def test_preprocess_feeds_the_model_and_the_picture_stays(net, picture):
    seen = []
    net[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    small = explain(
        net, picture, preprocess=lambda p: torch.from_numpy(np.asarray(p.resize((48, 32)))).permute(2, 0, 1) / 255
    )
    assert set(seen) == {(1, 3, 32, 48)}
    assert small["heatmap"].shape == (64, 96)


def test_saving_never_writes_over(net, picture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture.save("flower.png")
    first, second = (explain(net, "flower.png", "gradcam++", save=True) for _ in range(2))
    assert (first["saved_path"], second["saved_path"]) == ("runs/gradcam++/flower", "runs/gradcam++/flower-2")
    folder = tmp_path / first["saved_path"]
    np.testing.assert_array_equal(np.load(folder / "heatmap.npy"), first["heatmap"])
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "overlay.png")), first["overlay"])
    grey = np.asarray(Image.open(folder / "heatmap.png"))[:, :, 0]
    assert np.abs(grey / 255 - first["heatmap"]).max() <= 0.5 / 255 + 1e-6
    metadata = json.loads((folder / "metadata.json").read_text())
    assert (metadata["method"], metadata["target_layer"], metadata["image_size"]) == ("gradcam++", "3", [64, 96])


def test_an_invalid_map_leaves_the_picture_plain(net, picture):
    with torch.no_grad():
        net[-1].weight.zero_()
    np.testing.assert_array_equal(explain(net, picture)["overlay"], np.asarray(picture))


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (np.zeros((4, 4, 3)), TypeError, "uint8"),
        (torch.zeros(2, 3, 8, 8), ValueError, r"\(1, C, H, W\)"),
        (17, TypeError, "not int"),
        ("nowhere.png", FileNotFoundError, "nowhere"),
    ],
)
def test_bad_images_are_named(net, image, error, words):
    with pytest.raises(error, match=words):
        explain(net, image)


def test_results_show_themselves(net):
    images = torch.rand(3, 3, 32, 48)
    result = CAM(net, ("gradcam", "eigencam"))(images)
    shown = result.plot()
    assert np.asarray(Image.open(io.BytesIO(result._repr_png_()))).tolist() == np.asarray(shown).tolist()
    other = result.plot(torch.zeros(3, 3, 32, 48))
    assert shown.size == other.size and np.asarray(shown).tolist() != np.asarray(other).tolist()


def test_pictures_of_any_range():
    images = torch.tensor([-2.0, 0.0, 2.0])[:, None, None, None].expand(3, 1, 2, 2)
    assert to_pictures(images)[:, 0, 0].tolist() == [[0, 0, 0], [128, 128, 128], [255, 255, 255]]
    assert to_pictures(images, mean=0.5, std=0.25)[:, 0, 0, 0].tolist() == [0, 128, 255]
