"""Each method against its paper's formula, written here with plain loops in float64."""

import copy

import numpy as np
import pytest
import torch
from methods_by_hand import ONE_PASS

from cam_engine import CAM, methods

CLASS_METHODS = tuple(m for m in ONE_PASS if m != "eigencam")


# --- the formulas, for one image: A and g are (C, h, w) ---


def gradcam(A, g):  # Selvaraju et al. 2017, eq. 1 and 2
    out = np.zeros(A.shape[1:])
    for k in range(len(A)):
        out += g[k].sum() / g[k].size * A[k]
    return out


def gradcampp(A, g):  # Chattopadhyay et al. 2018, eq. 19, with the fraction as printed
    out = np.zeros(A.shape[1:])
    for k in range(len(A)):
        weight = 0.0
        for i, j in np.ndindex(*A.shape[1:]):
            denominator = 2 * g[k, i, j] ** 2 + A[k].sum() * g[k, i, j] ** 3
            if g[k, i, j] > 0 and denominator > 0:  # a cell outside of what the derivation covers gets no weight
                weight += g[k, i, j] ** 2 / denominator * g[k, i, j]
        out += weight * A[k]
    return out


def xgradcam(A, g):  # Fu et al. 2020, eq. 8
    out = np.zeros(A.shape[1:])
    for k in range(len(A)):
        if abs(A[k].sum()) > 1e-7 * np.abs(A[k]).sum():
            out += (A[k] / A[k].sum() * g[k]).sum() * A[k]
    return out


def hirescam(A, g):  # Draelos & Carin 2020, eq. 6
    out = np.zeros(A.shape[1:])
    for k in range(len(A)):
        for i, j in np.ndindex(*A.shape[1:]):
            out[i, j] += g[k, i, j] * A[k, i, j]
    return out


def layercam(A, g):  # Jiang et al. 2021, eq. 5 and 6
    out = np.zeros(A.shape[1:])
    for k in range(len(A)):
        for i, j in np.ndindex(*A.shape[1:]):
            out[i, j] += max(g[k, i, j], 0.0) * A[k, i, j]
    return out


def eigencam(A, g=None, component=0, center=True):  # Muhammad & Yeasin 2020, eq. 3; along the channel mean
    M = A.reshape(len(A), -1).T
    if center:
        M = M - M.mean(0)
    out = M @ np.linalg.svd(M, full_matrices=False)[2][component]
    mean = M.mean(1)
    covariance = ((out - out.mean()) * (mean - mean.mean())).sum()
    if abs(covariance) > 1e-6 * out.std() * mean.std() * len(out):
        out = out * np.sign(covariance)
    elif out[np.abs(out).argmax()] < 0:
        out = -out
    return out.reshape(A.shape[1:])


def eigengradcam(A, g):
    return eigencam(A * g)


FORMULAS = dict(zip(ONE_PASS, (eigencam, gradcam, gradcampp, xgradcam, hirescam, layercam, eigengradcam), strict=True))
FUNCTIONS = {name: getattr(methods, name.replace("+", "p")) for name in ONE_PASS}


def by_formula(method, A, g):
    return np.stack([FORMULAS[method](a, b) for a, b in zip(A.double().numpy(), g.double().numpy(), strict=True)])


def by_engine(method, A, g):
    return methods.collapse(FUNCTIONS[method](A) if method == "eigencam" else FUNCTIONS[method](A, g), A)


def assert_maps_close(actual, expected, rtol):
    """Each map (h, w) within ``rtol`` of its own largest value."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    scale = np.abs(expected).max((1, 2), keepdims=True)
    assert (scale > 0).all(), "an all-zero reference map compares nothing"
    np.testing.assert_allclose(actual / scale, expected / scale, rtol=0, atol=rtol)


def activations_and_gradients(net, layer, images, classes):
    """By PyTorch's own means on a copy: retain_grad and backward."""
    net = copy.deepcopy(net)
    kept = []

    def keep(_module, _inputs, output):
        output.retain_grad()
        kept.append(output)

    net.get_submodule(layer).register_forward_hook(keep)
    net(images).gather(1, classes[:, None]).sum().backward()
    return kept[-1].detach(), kept[-1].grad


@pytest.fixture(scope="module")
def exact_net(make_cnn):
    """float64, nothing in place, logits large enough for GradCAM++'s exponential score to matter."""
    net = make_cnn(inplace=False).double()
    with torch.no_grad():
        net.head.weight.mul_(20)
    return net


def random_signed(seed, shape=(3, 6, 5, 7)):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize(
    "layer", ["stage1", "residual.bn2", "stage2"]
)  # positive, signed, positive with uniform gradients
@pytest.mark.parametrize("method", ONE_PASS)
def test_cam_on_a_real_model_equals_the_formula(method, layer, exact_net, photos):
    images, classes = photos.double(), torch.arange(8) % 5
    A, g = activations_and_gradients(exact_net, layer, images, classes)
    expected = np.maximum(by_formula(method, A, g), 0)
    # Close to GradCAM++'s pole, which signed activations come near, float32's rounding is magnified.
    in_float32 = 2e-3 if (method, layer) == ("gradcam++", "residual.bn2") else 2e-4
    for net, tolerance in [(exact_net, 1e-7), (copy.deepcopy(exact_net).float(), in_float32)]:
        raw = CAM(net, method, layer)(images, classes).raw[method, layer]
        alive = expected.max((1, 2)) > 0
        assert alive.sum() >= 4
        assert_maps_close(raw[alive], expected[alive], tolerance)
        assert (raw[~alive] <= tolerance).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("method", ONE_PASS)
def test_random_signed_input_equals_the_formula(method, seed):
    A, g = random_signed(seed)
    assert_maps_close(by_engine(method, A, g), by_formula(method, A, g), 1e-9)


@pytest.mark.parametrize("method", ["eigencam", "eigengradcam"])
@pytest.mark.parametrize("shape", [(2, 30, 3, 4), (2, 4, 6, 5)], ids=["channels>cells", "cells>channels"])
def test_eigen_methods_in_float32_match_a_float64_svd(method, shape):
    A, g = random_signed(7, shape)
    assert_maps_close(by_engine(method, A.float(), g.float()), by_formula(method, A, g), 1e-4)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("component", [0, 1, 2])
@pytest.mark.parametrize("shape", [(4, 30, 3, 4), (4, 5, 6, 5)], ids=["channels>cells", "cells>channels"])
def test_components_are_those_of_the_svd(component, center, shape):
    A = random_signed(11, shape)[0] + 0.4
    expected = np.stack([eigencam(a, component=component, center=center) for a in A.numpy()])
    assert_maps_close(methods.eigencam(A, component=component, center=center), expected, 1e-8)


def test_cam_hands_component_and_center_to_the_eigen_methods(exact_net, photos):
    images = photos.double()
    A, _ = activations_and_gradients(exact_net, "stage1", images, torch.zeros(8, dtype=torch.long))
    raw = CAM(exact_net, "eigencam", "stage1", component=1, center=False)(images).raw["eigencam", "stage1"]
    expected = np.maximum(np.stack([eigencam(a, component=1, center=False) for a in A.numpy()]), 0)
    assert_maps_close(raw, expected, 1e-7)


@pytest.mark.parametrize("component", [-1, 4])
def test_a_component_that_does_not_exist_is_refused(component):
    with pytest.raises(ValueError, match=f"component={component}.*there are 4"):
        methods.eigencam(torch.rand(1, 4, 3, 3), component=component)


def test_a_component_that_a_layer_does_not_have_is_said_with_the_layer(cnn, photos):
    with pytest.raises(ValueError, match=r"'eigencam' at layer 'stage2': component=24 .* there are 24, counted from 0"):
        CAM(cnn, "eigencam", "stage2", component=24)(photos)


@pytest.mark.parametrize("component", [-1, 1.0, "first", True])
def test_a_component_that_is_no_count_is_refused_at_once(component, cnn):
    with pytest.raises(ValueError, match="must be a whole number, counted from 0"):
        CAM(cnn, "eigencam", component=component)


def test_eigencam_is_oriented_like_the_mean_activation():
    A, _ = random_signed(3)
    for sign in (1, -1):  # negated activations have the same singular vectors, up to their sign
        maps = methods.eigencam(sign * A)
        for one, mean in zip(maps.numpy(), (sign * A).mean(1).numpy(), strict=True):
            assert np.corrcoef(one.ravel(), mean.ravel())[0, 1] > 0


def test_eigencam_without_correlation_puts_its_peak_above_zero():
    pattern = torch.tensor([[3.0, -1.0], [-1.0, -1.0]])
    for flipped in (pattern, -pattern):
        A = torch.stack([flipped, -flipped])[None]  # the channel mean is zero everywhere
        raw = methods.eigencam(A)[0]
        np.testing.assert_allclose(raw, pattern * 2**0.5, atol=1e-5)


@pytest.mark.parametrize("value", [1.0, 1e4, 0.1])
def test_eigencam_of_constant_channels_is_zero_and_no_rounding_noise(value):
    A = (torch.arange(1.0, 9.0) * value)[None, :, None, None].expand(1, 8, 6, 6) / 3
    assert methods.eigencam(A).abs().max() == 0


def test_xgradcam_leaves_out_a_channel_whose_activations_cancel():
    A, g = random_signed(5, (1, 3, 2, 2))
    A[0, 1] = torch.tensor([[1.0, -1.0], [2.0, 1e-9 - 2.0]], dtype=A.dtype)  # a weight of about 1e9
    kept = methods.xgradcam(A[:, [0, 2]], g[:, [0, 2]])
    torch.testing.assert_close(methods.xgradcam(A, g)[:, [0, 2]], kept)
    assert (methods.xgradcam(A, g)[:, 1] == 0).all()


def test_gradcampp_is_bounded_where_the_papers_fraction_has_a_pole():
    A = torch.full((1, 1, 2, 2), -0.5, dtype=torch.float64)  # ΣA = -2, so 2 + ΣA·g = 0 at g = 1, negative above
    g = torch.tensor([[[[0.5, 1.0], [3.0, -1.0]]]], dtype=torch.float64)
    torch.testing.assert_close(
        methods.collapse(methods.gradcampp(A, g), A), 0.5 * A[:, 0]
    )  # only g = 0.5 counts: 0.5 / (2 - 1)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
@pytest.mark.parametrize("method", ONE_PASS)
def test_the_unit_of_the_activations_does_not_matter(method, factor):
    """A·c with g/c describe the same network: class methods do not change at all, EigenCAM changes by c."""
    A, g = (t.float() for t in random_signed(2))
    before, after = by_engine(method, A, g), by_engine(method, A * factor, g / factor)
    assert_maps_close(after / (factor if method == "eigencam" else 1), before, 1e-4)


@pytest.mark.parametrize("factor", [1e-8, 1e8])
@pytest.mark.parametrize("method", [m for m in CLASS_METHODS if m != "gradcam++"])
def test_scaled_scores_scale_the_map(method, factor):
    A, g = (t.float() for t in random_signed(2))
    assert_maps_close(by_engine(method, A, g * factor) / factor, by_engine(method, A, g), 1e-4)


@pytest.mark.parametrize("method", ONE_PASS)
def test_one_image_does_not_see_the_others(method, cnn, photos):
    classes = torch.arange(8) % 5
    cam = CAM(cnn, method, ["stage1", "stage2"])
    together = cam(photos, classes)
    order = torch.tensor([5, 2, 7, 0, 1, 6, 4, 3])
    shuffled = cam(photos[order], classes[order])
    for layer in ("stage1", "stage2"):
        whole = together.raw[method, layer]
        alone = torch.cat([cam(photos[i : i + 1], classes[i : i + 1]).raw[method, layer] for i in range(8)])
        alive = whole.amax((1, 2)) > 0
        assert alive.sum() >= 4
        assert_maps_close(alone[alive], whole[alive], 1e-4)
        assert_maps_close(shuffled.raw[method, layer][alive[order]], whole[order][alive[order]], 1e-4)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", ONE_PASS)
def test_a_broken_image_stays_alone(method, broken):
    A, g = (t.float() for t in random_signed(9, (3, 6, 5, 5)))
    whole = by_engine(method, A, g)
    A[1, 2, 0, 0] = broken
    maps = by_engine(method, A, g)
    assert not torch.isfinite(maps[1]).all()
    torch.testing.assert_close(maps[[0, 2]], whole[[0, 2]], rtol=1e-4, atol=1e-5)


def test_half_precision_models_are_explained_in_float32(exact_net, photos):
    half = copy.deepcopy(exact_net).bfloat16()
    raw = CAM(half, ONE_PASS, "stage2")(photos, 1).raw
    exact = CAM(exact_net, ONE_PASS, "stage2")(photos, 1).raw
    for method in ONE_PASS:
        assert raw[method, "stage2"].dtype == torch.float32
        a, b = raw[method, "stage2"].flatten(1).double(), exact[method, "stage2"].flatten(1)
        alive = (b.amax(1) > 0) & (a.amax(1) > 0)
        assert torch.nn.functional.cosine_similarity(a[alive], b[alive]).mean() > 0.98, method


@pytest.mark.parametrize("total", [0.0, 1e-9, -1e-9, 1e-4, -1e-4])
def test_xgradcam_with_activations_that_nearly_cancel(total):
    A = torch.tensor([[[[1.0, -1.0], [2.0, total - 2.0]]]], dtype=torch.float64)
    g = torch.tensor([[[[0.5, 1.0], [-1.0, 2.0]]]], dtype=torch.float64)
    weight = float(methods.xgradcam(A, g))
    if abs(total) <= 1e-7 * 6:
        assert weight == 0
    else:
        assert weight == pytest.approx(float((A * g).sum() / A.sum()))


@pytest.mark.parametrize("function", [methods.gradcampp, methods.xgradcam, methods.hirescam, methods.gradcam])
def test_a_gradient_that_is_nan_is_not_hidden(function):
    A, g = torch.rand(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    g[1, 2, 0, 0] = float("nan")
    maps = methods.collapse(function(A, g), A)
    assert torch.isfinite(maps[0]).all() and not torch.isfinite(maps[1]).all()
