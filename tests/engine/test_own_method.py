"""A method of the user's own: one decorator, and it is used by name."""

import numpy as np
import pytest
import torch

from cam_engine import CAM, available_methods, register
from cam_engine.methods import registry


@pytest.fixture
def own():
    """``register`` whose methods are gone after the test."""
    before = dict(registry._METHODS)
    yield register
    registry._METHODS.clear()
    registry._METHODS.update(before)


def test_it_is_used_by_name_beside_the_others(own, cnn, photos):
    @own("gradient_norm", needs=["gradients"])
    def gradient_norm(activations, gradients):
        return gradients.norm(dim=(2, 3))

    assert available_methods()[-1] == "gradient_norm"
    result = CAM(cnn, ["gradcam", "GradientNorm"], "stage1")(photos, 1)
    assert result.methods == ("gradcam", "gradient_norm")
    assert result["gradient_norm"].shape == (8, 48, 48)
    assert result.valid["gradient_norm"].all()


@pytest.mark.parametrize("name", list(registry.NEEDS))
def test_it_gets_what_it_needs(name, own, cnn, photos):
    seen = {}

    @own("needy", needs=[name], options=["component", "center"])
    def needy(activations, component, center, **given):
        seen.update(given, component=component, center=center)
        return activations.mean(1)

    raw = CAM(cnn, "needy", "stage2", component=2, center=False)(photos, 1).raw["needy", "stage2"]
    assert set(seen) == {name, "component", "center"}
    assert (seen["component"], seen["center"]) == (2, False)
    kept = []
    cnn.stage2.register_forward_hook(lambda m, i, o: kept.append(o.detach().clone()))
    cnn(photos)
    torch.testing.assert_close(raw, kept[0].mean(1).relu())


def test_it_can_ask_for_scores_of_variants(own, cnn, photos):
    """Occlusion: how much the score falls without the upper half, as a map."""

    @own("halves", needs=["images", "scores", "rescore_images"])
    def halves(activations, images, scores, rescore_images):
        def variant(which):
            masks = torch.ones(len(which), *images.shape[-2:])
            masks[which == 0, :24], masks[which == 1, 24:] = 0, 0
            return images[:, None] * masks[None, :, None]

        fall = scores[:, None] - rescore_images(variant, 2)
        return fall[:, :, None].expand(-1, -1, 2)

    raw = CAM(cnn, "halves", "stage2", batch_size=1)(photos, 1).raw["halves", "stage2"]
    with torch.no_grad():
        whole, lower = cnn(photos)[:, 1], torch.cat([torch.zeros(8, 3, 24, 48), photos[:, :, 24:]], 2)
        np.testing.assert_allclose(raw[:, 0, 0], (whole - cnn(lower)[:, 1]).relu(), atol=1e-5)


def test_a_decorator_without_a_name_is_refused():
    with pytest.raises(TypeError, match=r'@register\("my method"\), not @register'):

        @register
        def mine(activations):
            return activations.mean((2, 3))


def test_what_it_finds_wrong_is_said_with_its_layer(own, cnn, photos):
    @own("picky")
    def picky(activations):
        raise ValueError("too few cells")

    with pytest.raises(ValueError, match="method 'picky' at layer 'stage2': too few cells"):
        CAM(cnn, "picky", "stage2")(photos)


def test_a_method_that_is_no_name_lists_the_names(cnn):
    with pytest.raises(TypeError, match=r"not int \(3\); one of eigencam, gradcam, "):
        CAM(cnn, [3])  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["needs", "options"])
def test_an_unknown_need_is_named(kind, own):
    with pytest.raises(ValueError, match=r"method 'mine': unknown \['gradeints'\]; needs= takes \['gradients'"):
        own("mine", **{kind: ["gradeints"]})
    assert "mine" not in available_methods()


@pytest.mark.parametrize(
    ("returned", "error", "match"),
    [
        (
            lambda A: A.mean((1, 2, 3)),
            ValueError,
            r"method 'mine' at layer 'stage2' returned shape \(8,\); expected channel weights \(8, 24\)",
        ),
        (lambda A: A[:, :5], ValueError, r"returned shape \(8, 5, 6, 6\)"),
        (lambda A: A.mean((2, 3))[:, :5], ValueError, r"returned shape \(8, 5\)"),
        (lambda A: A.mean(1)[:3], ValueError, r"returned shape \(3, 6, 6\)"),
        (lambda A: A.mean(1).numpy(), TypeError, "method 'mine' at layer 'stage2' returned ndarray"),
        (lambda A: None, TypeError, "method 'mine' at layer 'stage2' returned NoneType"),
    ],
    ids=["(B,)", "channels", "weights", "batch", "numpy", "None"],
)
def test_a_wrong_result_names_the_method_and_the_shapes(returned, error, match, own, cnn, photos):
    own("mine")(lambda activations: returned(activations))
    with pytest.raises(error, match=match):
        CAM(cnn, "mine", "stage2")(photos)


def test_a_method_can_be_replaced(own, cnn, photos):
    own("fem")(lambda activations: activations.amax(1))
    kept = []
    cnn.stage2.register_forward_hook(lambda m, i, o: kept.append(o.detach().clone()))
    raw = CAM(cnn, "fem", "stage2")(photos).raw["fem", "stage2"]
    torch.testing.assert_close(raw, kept[0].amax(1))
    assert len(set(available_methods())) == len(available_methods()) == 19
