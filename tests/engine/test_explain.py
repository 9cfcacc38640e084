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
    np.testing.assert_array_equal(explained["overlay"], overlay(np.asarray(picture), expected, focus=True))
    assert explained["original_image"].size == (96, 64)
    assert (explained["method"], explained["target_layer"]) == ("layercam", "3") and "saved_path" not in explained
    shown = np.asarray(Image.open(io.BytesIO(explained._repr_png_())))
    np.testing.assert_array_equal(shown, explained["figure"])
    bare = explain(net, picture, "layercam", target_layer="3", target=1, caption=False)
    assert "figure" not in bare and Image.open(io.BytesIO(bare._repr_png_())).size == (96, 64)


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
    name = "flower_gradcam++_overlay.png"
    assert (first["saved_path"], second["saved_path"]) == (
        f"runs/gradcam++/flower/{name}",
        f"runs/gradcam++/flower-2/{name}",
    )
    folder = tmp_path / "runs/gradcam++/flower"
    np.testing.assert_array_equal(np.load(folder / "flower_gradcam++_heatmap.npy"), first["heatmap"])
    np.testing.assert_array_equal(np.asarray(Image.open(first["saved_path"])), first["overlay"])
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "flower_gradcam++_figure.png")), first["figure"])
    grey = np.asarray(Image.open(folder / "flower_gradcam++_heatmap.png"))[:, :, 0]
    assert np.abs(grey / 255 - first["heatmap"]).max() <= 0.5 / 255 + 1e-6
    metadata = json.loads((folder / "metadata.json").read_text())
    assert (metadata["method"], metadata["target_layer"], metadata["image_size"]) == ("gradcam++", "3", [64, 96])
    assert (metadata["class_index"], metadata["probability"]) == (first["class_index"], first["probability"])


def test_a_path_of_a_picture_is_that_file(net, picture, tmp_path):
    file = tmp_path / "results" / "my.png"
    for _ in range(2):  # replaced, as the user named it
        found = explain(net, picture, save=True, output_path=file)
        assert found["saved_path"] == str(file)
    np.testing.assert_array_equal(np.asarray(Image.open(file)), found["overlay"])
    assert [path.name for path in file.parent.iterdir()] == ["my.png"]
    several = explain(net, picture, ["gradcam", "eigencam"], save=True, output_path=tmp_path / "both.jpg")
    assert Image.open(several["saved_path"]).format == "JPEG"
    assert np.asarray(Image.open(tmp_path / "both.jpg")).shape == several["sheet"].shape
    saved = found.save(tmp_path / "new" / "figure.png")
    np.testing.assert_array_equal(np.asarray(Image.open(saved)), found["figure"])
    picture.save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="is one file"):
        explain(net, tmp_path, save=True, output_path=file)


def test_an_invalid_map_is_said_and_marked(net, picture):
    with torch.no_grad():
        net[-1].weight.zero_()
    found = explain(net, picture)
    assert found["message"].startswith("gradcam is blank at 3, and at no other layer asked")
    marked = (found["overlay"] != np.asarray(picture)).any(2)
    assert 0 < marked.mean() < 0.5 and marked.nonzero()[0].min() > 32, "no focus, in the lower left corner"


def test_a_blank_map_names_a_layer_that_shows_it(picture):
    """The score is the first of two branches: the second has no gradient anywhere."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 6, 5, 4, 2), nn.ReLU())
            self.seen, self.unseen = nn.Conv2d(6, 4, 3, 2, 1), nn.Conv2d(6, 4, 3, 2, 1)

        def forward(self, x):
            x = self.stem(x)
            return self.seen(x).relu().mean((2, 3)) + 0 * self.unseen(x).mean((2, 3))

    found = explain(Branches(), picture, "layercam", "unseen")
    assert "layercam is blank at unseen; " in found["message"] and "seen would show it" in found["message"]
    assert "blank" not in explain(Branches(), picture, "layercam", "seen")["message"]


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
