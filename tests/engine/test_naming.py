"""Which class is explained, and what input a network of no known library gets."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cam_engine import explain
from cam_engine.explanation.naming import percent

NAMES = ["tench, Tinca tinca", "tabby", "Egyptian cat", "crane", "crane, bird"]


@pytest.fixture
def picture():
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image("flower.jpg")).resize((96, 64))


def test_the_predicted_class_with_its_probability(cnn, photos):
    with torch.no_grad():
        probabilities = cnn(photos[:1]).softmax(1)[0]
    found = explain(cnn, photos[0], class_names=NAMES)
    best = int(probabilities.argmax())
    assert (found["class_index"], found["class_name"]) == (best, NAMES[best])
    assert found["probability"] == pytest.approx(float(probabilities[best]), abs=1e-6)
    of_eigencam = explain(cnn, photos[0], "eigencam")
    assert (of_eigencam["class_index"], of_eigencam["class_name"]) == (best, None)


@pytest.mark.parametrize(("typed", "index"), [("Egyptian cat", 2), ("TABBY", 1), ("tinca tinca", 0), ("4", 4), (3, 3)])
def test_a_class_by_name(cnn, photos, typed, index):
    found = explain(cnn, photos[0], target=typed, class_names=NAMES)
    np.testing.assert_array_equal(found["heatmap"], explain(cnn, photos[0], target=index)["heatmap"])
    assert found["class_name"] == NAMES[index]


def test_names_that_do_not_fit(cnn, photos):
    for target, names, words in (
        ("tabbi", NAMES, "nearest names: tabby"),
        ("tabby", None, "knows no class names"),
        ("bird", [*NAMES[:3], "a, bird", "b, bird"], "2 classes are called 'bird'"),
    ):
        with pytest.raises(KeyError, match=words):
            explain(cnn, photos[0], target=target, class_names=names)
    with pytest.raises(ValueError, match="2 names, and the model has 5 classes"):
        explain(cnn, photos[0], class_names=["a", "b"])
    assert explain(cnn, photos[0], target=2, class_names={2: "cat"})["class_name"] == "cat"


@pytest.mark.parametrize(("target", "index"), [(None, 1), (1, 1), (0, 0)])
def test_one_logit_is_a_class_and_its_opposite(make_cnn, photos, target, index):
    net = make_cnn(classes=1)
    with torch.no_grad():
        logit = float(net(photos[:1]))
    found = explain(net, photos[0], target=target, class_names=["no", "yes"])
    assert (found["class_index"], found["class_name"]) == (index, ("no", "yes")[index])
    assert found["probability"] == pytest.approx(1 / (1 + np.exp(-logit if index else logit)), abs=1e-6)


def test_a_score_of_ones_own_is_no_class(cnn, photos):
    found = explain(cnn, photos[0], target=lambda outputs: outputs[:, 0] + outputs[:, 1])
    assert found["class_index"] is None and found["probability"] is None


def test_what_returns_no_classes_has_an_eigencam_all_the_same(photos):
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU())
    assert explain(net, photos[0], "eigencam", "1")["heatmap"].any()
    with pytest.raises(ValueError, match="targets="):
        explain(net, photos[0], "gradcam", "1")


def test_percentages():
    assert [percent(p) for p in (0.72, 0.0312, 0.9999, 1.0, 1e-6)] == [
        "72 %",
        "3.1 %",
        "99.9 %",
        "100 %",
        "under 0.1 %",
    ]


def test_an_assumed_normalisation_is_said_and_can_be_changed(cnn, picture):
    plain = explain(cnn, picture)
    assert "assumed to be RGB in [0, 1], not normalised; pass mean= and std=" in plain["message"]
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.2, 0.2]
    told = explain(cnn, picture, mean=mean, std=std)
    assert "message" not in told and told["preprocessing"] == f"RGB in [0, 1], mean {mean}, std {std}"

    def preprocess(picture):
        tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
        return (tensor - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    np.testing.assert_allclose(told["heatmap"], explain(cnn, picture, preprocess=preprocess)["heatmap"], atol=1e-5)
    tensor = explain(cnn, torch.rand(3, 32, 32))
    assert "message" not in tensor and tensor["preprocessing"].startswith("none")
    with pytest.raises(ValueError, match="for each of 3 channels"):
        explain(cnn, picture, mean=[0.1, 0.2])
    with pytest.raises(ValueError, match="leave out"):
        explain(cnn, picture, preprocess=preprocess, mean=0.5)


def test_a_picture_is_resized_to_what_a_fixed_network_takes(picture):
    fixed = nn.Sequential(nn.Conv2d(3, 4, 5, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16 * 16, 3))
    found = explain(fixed, picture, target_layer="1")
    stretched = picture.resize((64, 64), Image.Resampling.BILINEAR)
    tensor = torch.from_numpy(np.array(stretched)).permute(2, 0, 1) / 255
    assert found["heatmap"].shape == (64, 96)
    assert found["score"] == pytest.approx(explain(fixed, tensor, target_layer="1")["score"], abs=1e-5)


def test_a_network_of_one_channel_gets_grey(make_cnn, picture):
    net = make_cnn(channels=1)
    grey = torch.from_numpy(np.array(picture.convert("L")))[None] / 255
    assert explain(net, picture)["score"] == pytest.approx(explain(net, grey)["score"], abs=1e-5)


def test_what_a_crop_left_out_is_drawn_apart(cnn, picture):
    def crop(picture):
        return torch.from_numpy(np.array(picture.crop((32, 0, 96, 64)))).permute(2, 0, 1) / 255

    found = explain(cnn, picture, preprocess=crop)
    np.testing.assert_allclose(found["seen"], (32, 0, 96, 64), atol=1)
    outside = found["overlay"][:, :30].astype(int)
    assert (outside.max(2) - outside.min(2)).max() <= 1, "grey"
    assert not found["heatmap"][:, :30].any()
    assert "seen" not in explain(cnn, picture)
