"""Native maps become heatmaps: scaled, upsampled, averaged over layers."""

import cv2
import numpy as np
import pytest
import torch
from methods_by_hand import ONE_PASS
from torch import nn

from cam_engine import CAM, CAMResult

LAYERS = ["stem", "residual", "stage2"]


def scaled(one):
    one = one - one.min()
    return one / one.max() if one.max() > 0 else np.zeros_like(one)


def heatmap(layers, size, combine=np.mean):
    """Of one image: native maps [(h, w), …] → (H, W), with OpenCV's bilinear resize, in float64."""
    H, W = size
    up = [cv2.resize(scaled(np.asarray(m, np.float64)), (W, H), interpolation=cv2.INTER_LINEAR) for m in layers]
    return scaled(combine(up, axis=0))


def result_of(*layers, size=(12, 20), aggregate="mean"):
    raw = {("gradcam", f"layer{i}"): torch.as_tensor(m, dtype=torch.float32) for i, m in enumerate(layers)}
    return CAMResult(raw, None, None, size, aggregate)


@pytest.mark.parametrize("aggregate", ["mean", "max"])
@pytest.mark.parametrize("layers", [["stage2"], LAYERS], ids=["one layer", "three layers"])
@pytest.mark.parametrize("method", ONE_PASS)
def test_heatmaps_equal_an_independent_computation(method, layers, aggregate, cnn, photos):
    wide = torch.cat([photos, photos[:, :, :, :24]], 3)
    result = CAM(cnn, method, layers, aggregate=aggregate)(wide, torch.arange(8) % 5)
    combine = {"mean": np.mean, "max": np.max}[aggregate]
    for i in range(8):
        expected = heatmap([result.raw[method, layer][i].numpy() for layer in layers], (48, 72), combine)
        np.testing.assert_allclose(result[method][i].numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("method", ONE_PASS)
def test_heatmaps_use_the_whole_range(method, cnn, photos):
    result = CAM(cnn, method, LAYERS)(photos, torch.arange(8) % 5)
    maps = result[method]
    assert maps.shape == (8, 48, 48)
    assert maps.dtype == torch.float32
    assert result.valid[method].dtype == torch.bool
    usable = result.valid[method]
    assert usable.sum() >= 4
    torch.testing.assert_close(maps[usable].amin((1, 2)), torch.zeros(int(usable.sum())))
    torch.testing.assert_close(maps[usable].amax((1, 2)), torch.ones(int(usable.sum())))


def test_raw_is_on_the_native_grid_after_relu_and_not_rescaled(cnn, photos):
    result = CAM(cnn, ONE_PASS, LAYERS)(photos, 1)
    for (method, layer), maps in result.raw.items():
        assert maps.shape == (8, *{"stem": (24, 24), "residual": (12, 12), "stage2": (6, 6)}[layer]), method
        assert maps.dtype == torch.float32
        assert maps.min() >= 0
    # Behind global average pooling HiResCAM is the class's share of the logit, cell by cell.
    kept = []
    cnn.stage2.register_forward_hook(lambda _m, _i, out: kept.append(out.detach().clone()))
    with torch.no_grad():
        cnn(photos)
        signed = torch.einsum("bchw,c->bhw", kept[0], cnn.head.weight[1]) / 36
    assert (signed < 0).any()
    torch.testing.assert_close(result.raw["hirescam", "stage2"], signed.relu(), rtol=1e-4, atol=1e-6)


def test_outputs_and_scores_are_the_models_own(cnn, photos):
    result = CAM(cnn, "gradcam", "stage1")(photos, [0, 1, 2, 3, 4, 0, 1, 2])
    logits = cnn(photos).detach()
    torch.testing.assert_close(result.outputs, logits)
    torch.testing.assert_close(result.scores, logits[range(8), [0, 1, 2, 3, 4, 0, 1, 2]])
    assert result.size == (48, 48)


def test_methods_and_layers_in_the_order_asked_for(cnn, photos):
    result = CAM(cnn, ["layercam", "eigencam", "gradcampp"], ["stage2", "stem"])(photos)
    assert result.methods == ("layercam", "eigencam", "gradcam++")
    assert result.layers == ("stage2", "stem")
    assert [m for m, _ in result.raw] == ["layercam", "layercam", "eigencam", "eigencam", "gradcam++", "gradcam++"]


def test_methods_are_found_under_their_other_spellings(cnn, photos):
    result = CAM(cnn, ["GradCAM", "grad-cam++"], "stage2")(photos)
    assert result["GradCAM++"] is result["gradcampp"]
    with pytest.raises(KeyError, match=r"'hirescam' was not computed; this result holds gradcam, gradcam\+\+"):
        result["hirescam"]
    with pytest.raises(KeyError, match="no CAM method 'gradcat'; nearest: gradcam"):
        result["gradcat"]


# --- maps that show nothing ---

BUMP = np.array([[0.0, 1.0], [2.0, 5.0]])
INVALID = {
    "zero": np.zeros((2, 2)),
    "below the floor": np.full((2, 2), 2e-13),
    "NaN": np.array([[0.0, 1.0], [np.nan, 5.0]]),
    "all NaN": np.full((2, 2), np.nan),
    "infinite": np.array([[0.0, 1.0], [np.inf, 5.0]]),
}


@pytest.mark.parametrize("kind", INVALID)
def test_an_invalid_map_is_zero_everywhere_and_alone(kind):
    result = result_of([BUMP, INVALID[kind], BUMP])
    assert result.valid["gradcam"].tolist() == [True, False, True]
    assert (result["gradcam"][1] == 0).all()
    for i in (0, 2):
        np.testing.assert_allclose(result["gradcam"][i].numpy(), heatmap([BUMP], (12, 20)), atol=1e-6)


@pytest.mark.parametrize("kind", INVALID)
def test_beside_an_invalid_layer_the_valid_one_still_shows(kind):
    result = result_of([INVALID[kind]], [BUMP[::-1].copy()])
    assert result.valid["gradcam"].tolist() == [True]
    np.testing.assert_allclose(result["gradcam"][0].numpy(), heatmap([BUMP[::-1]], (12, 20)), atol=1e-6)


@pytest.mark.parametrize("size", [1e-10, 1e-6, 1e30, 1e38])
def test_the_size_of_the_values_does_not_matter(size):
    small = result_of([BUMP * size / 5])
    assert small.valid["gradcam"].tolist() == [True]
    np.testing.assert_allclose(small["gradcam"][0].numpy(), heatmap([BUMP], (12, 20)), atol=1e-5)


def test_a_uniform_map_is_valid_and_shows_no_place():
    result = result_of([np.full((2, 2), 0.7)])
    assert result.valid["gradcam"].tolist() == [True]
    assert (result["gradcam"] == 0).all()


def test_an_image_with_nan_is_invalid_and_the_others_are_as_without_it(cnn, photos):
    broken = photos.clone()
    broken[2, 0, 5, 5] = float("nan")
    result, clean = (CAM(cnn, ONE_PASS, "stage2")(images, 1) for images in (broken, photos))
    others = [0, 1, 3, 4, 5, 6, 7]
    for method in ONE_PASS:
        assert not result.valid[method][2]
        assert (result[method][2] == 0).all()
        torch.testing.assert_close(result[method][others], clean[method][others], rtol=1e-3, atol=1e-3)


def test_where_no_place_speaks_for_the_class_the_map_is_invalid(cnn, photos):
    with torch.no_grad():
        cnn.head.weight[1] = -cnn.head.weight[1].abs()
    result = CAM(cnn, ("gradcam", "hirescam", "layercam"), "stage2")(photos, 1)
    for method in result.methods:
        assert not result.valid[method].any()
        assert (result[method] == 0).all()


def test_weights_that_are_nan_give_no_heatmap(cnn, photos):
    with torch.no_grad():
        cnn.stage1[0].weight[0, 0, 0, 0] = float("nan")
    result = CAM(cnn, ONE_PASS, ["stem", "stage2"])(photos, 1)
    for method in ONE_PASS:
        assert not torch.isfinite(result.raw[method, "stage2"]).all()
        valid = result.valid[method]
        assert (result[method][~valid] == 0).all()
        assert torch.isfinite(result[method]).all()
    assert result.valid["eigencam"].all()  # the stem lies before the broken layer
    assert not result.valid["gradcam"].any()


def test_a_dead_layer_is_invalid_for_every_method(cnn, photos):
    nn.init.zeros_(cnn.stage2[1].weight)
    nn.init.constant_(cnn.stage2[1].bias, -1)  # behind it the ReLU is zero everywhere
    result = CAM(cnn, ONE_PASS, "stage2")(photos, 1)
    for method in ONE_PASS:
        assert not result.valid[method].any(), method
        assert (result[method] == 0).all()


def test_settings_that_make_no_sense_are_refused(cnn):
    with pytest.raises(ValueError, match="aggregate="):
        CAM(cnn, aggregate="sum")
    with pytest.raises(ValueError, match="methods= is empty"):
        CAM(cnn, methods=())
    with pytest.raises(TypeError, match="Module"):
        CAM(lambda x: x)
    with pytest.raises(KeyError, match=r"no CAM method 'gradkam'.*nearest: .*gradcam"):
        CAM(cnn, methods="gradkam")
