"""What users of other systems type: names of arguments and methods, classes for methods, and arguments that mean nothing."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cam_engine import CAM, AutoSave, BaseCAM, available_methods, explain, methods_as_classes
from cam_engine.explanation.spellings import IN_AUTOSAVE, IN_EXPLAIN, _items, _per
from cam_engine.methods.registry import get_method


@pytest.fixture
def picture():
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image("flower.jpg")).resize((96, 64))


def test_grad_cams_arguments(cnn, photos):
    expected = CAM(cnn, "gradcam", "stage1")(photos[:1], 3)["gradcam"][0]
    found = explain(
        cnn,
        input_tensor=photos[0],
        target_layers=[cnn.stage1],
        targets=[lambda output: output[3]],
        reshape_transform=None,
    )
    np.testing.assert_allclose(found["heatmap"], expected, atol=1e-6)
    np.testing.assert_array_equal(
        explain(cnn, source=photos[0], layer="stage1", targets=[3])["heatmap"], found["heatmap"]
    )
    with pytest.raises(ValueError, match="2 targets for one image"):
        explain(cnn, photos[0], targets=[1, 2])


def test_the_yolov5_explainers_values():
    assert [_per(flag) for flag in (True, False)] == ["class", "all"]
    assert _items(["class", "x_c", "y_c", "h", "w"]) == ["class", "x_center", "y_center", "height", "width"]


def test_every_spelling_stands_in_the_table_and_for_an_argument():
    import inspect

    from cam_engine.explanation import spellings

    for table, function in ((IN_EXPLAIN, explain), (IN_AUTOSAVE, AutoSave.__init__)):
        names = inspect.signature(function).parameters
        for there, (here, _) in table.items():
            assert f"``{there}``" in spellings.__doc__ and there not in names
            assert here in names or "settings" in names


def test_an_unknown_or_doubled_argument_is_an_error(cnn, picture):
    with pytest.raises(TypeError, match=r"no argument target_layr=; nearest: target_layer"):
        explain(cnn, picture, target_layr="stage1")
    with pytest.raises(TypeError, match=r"layer= is another name of target_layer="):
        explain(cnn, picture, "gradcam", "stage1", layer="stage2")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("GradCAMPlusPlus", "gradcam++"),
        ("FullGradCAM", "fullgrad"),
        ("EigenGradCAM", "eigengradcam"),
        ("GradCAM Element wise", "gradcam_elementwise"),
        ("Eigen-CAM", "eigencam"),
        ("SmoothGradCAMPlusPlus", "smoothgradcam++"),
        ("KPCA_CAM", "kpcacam"),
    ],
)
def test_methods_as_their_classes_are_called(typed, meant):
    assert get_method(typed).name == meant


@pytest.mark.parametrize(
    "arguments",
    [
        {"classes": ["cat"]},
        {"per": "class"},
        {"items": ["width"]},
        {"matching": "overlap"},
        {"k": 5},
        {"conf": 0.5},
        {"iou": 0.5},
    ],
)
def test_a_classifier_refuses_what_is_about_boxes(cnn, picture, arguments):
    with pytest.raises(ValueError, match="about a detector's boxes"):
        explain(cnn, picture, **arguments)


def test_a_component_is_for_methods_that_have_one(cnn, picture):
    with pytest.raises(ValueError, match="component=1 means nothing to gradcam; methods that have it: eigencam"):
        explain(cnn, picture, "gradcam", component=1)
    assert explain(cnn, picture, ["gradcam", "eigencam"], component=1)["methods"]["eigencam"]["heatmap"].any()


def test_a_method_that_cannot_is_left_out_of_several(cnn, picture):
    found = explain(cnn, picture, ["cam", "gradcam", "eigencam"], "stem")
    assert found["method"] == "gradcam, eigencam" and set(found["methods"]) == {"gradcam", "eigencam"}
    assert "cam was left out: " in found["message"]
    np.testing.assert_array_equal(found["heatmap"], explain(cnn, picture, "gradcam", "stem")["heatmap"])
    with pytest.raises(ValueError, match="one linear layer"):
        explain(cnn, picture, "cam", "stem")


def test_a_class_for_each_method():
    classes = methods_as_classes.NamedCAM.__subclasses__()
    assert sorted(c.name for c in classes) == sorted(available_methods())
    assert methods_as_classes.GradCAMPlusPlus.name == "gradcam++"


@pytest.mark.parametrize("name", ["GradCAMPlusPlus", "EigenCAM", "HiResCAM"])
def test_a_ready_class_in_a_with(cnn, photos, name):
    made = getattr(methods_as_classes, name)
    with made(model=cnn, target_layers=[cnn.stage2]) as cam:
        found = cam(input_tensor=photos[:2], targets=[1, 1])
    np.testing.assert_array_equal(found, CAM(cnn, made.name, "stage2")(photos[:2], 1)[made.name])
    np.testing.assert_array_equal(made(cnn, cnn.stage2)(photos[:2], [1, 1]), found)  # a layer without a list
    np.testing.assert_allclose(explain(cnn, photos[0], made, "stage2", 1)["heatmap"], found[0], atol=1e-5)


def test_the_weights_of_a_ready_class():
    activations, grads = (np.random.default_rng(i).normal(size=(2, 3, 4, 5)).astype(np.float32) for i in range(2))
    cam = methods_as_classes.GradCAM(nn.Identity(), [])
    np.testing.assert_allclose(cam.get_cam_weights(None, None, None, activations, grads), grads.mean((2, 3)), atol=1e-6)
    with pytest.raises(TypeError, match="no channel weights"):
        methods_as_classes.EigenCAM(nn.Identity(), []).get_cam_weights(None, None, None, activations, None)


def test_a_class_of_ones_own_as_the_method(cnn, photos):
    class Mine(BaseCAM):
        def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
            return grads.mean(axis=(2, 3))

    class Twice(methods_as_classes.GradCAMPlusPlus):
        def get_cam_weights(self, *given):
            return 2 * super().get_cam_weights(*given)

    expected = explain(cnn, photos[0], "gradcam", "stage2")
    found = explain(cnn, photos[0], [Mine, "gradcam"], "stage2")
    np.testing.assert_allclose(found["methods"]["Mine"]["heatmap"], expected["heatmap"], atol=1e-5)
    plusplus = explain(cnn, photos[0], "gradcam++", "stage2")["heatmap"]
    np.testing.assert_allclose(explain(cnn, photos[0], Twice, "stage2")["heatmap"], plusplus, atol=1e-5)
    with pytest.raises(TypeError, match="get_cam_weights"):
        explain(cnn, photos[0], int)


def test_the_wrappers_arguments_of_libreyolo(cnn, photos, tmp_path):
    model = AutoSave(cnn, save_eigen_cam=True, cam_method="GradCAM", cam_layer="stage2", save_feature_maps=["stem"],
                     folder=tmp_path)  # fmt: skip
    model(photos[:1])
    assert (model.paths[0] / "000001_gradcam_overlay.png").is_file() and model.saved.errors == []
    assert (model.paths[0] / "feature_maps" / "stem.png").is_file()
    model.disable()
    off = AutoSave(cnn, save_eigen_cam=False, folder=tmp_path)
    off(photos[:1])
    assert off.paths == [] and not cnn._forward_hooks
    with pytest.raises(TypeError, match="not colour"):
        AutoSave(cnn, colour="red")


def test_a_mean_and_a_maximum_over_layers(cnn, photos):
    layers = ["stage1", "stage2"]
    for aggregate in ("mean", "max"):
        expected = CAM(cnn, "gradcam", layers, aggregate=aggregate)(photos[:1])["gradcam"][0]
        found = explain(cnn, photos[0], target_layer=layers, aggregate=aggregate)["heatmap"]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_half_of_ultralytics_changes_nothing_on_a_cpu(cnn, photos):
    whole = explain(cnn, photos[0])["heatmap"]
    np.testing.assert_array_equal(explain(cnn, photos[0], half=True)["heatmap"], whole)
    assert next(cnn.parameters()).dtype == torch.float32
