"""The eigen methods: other components, no centring, signs that last; against a full SVD and scikit-learn's KernelPCA."""

import numpy as np
import pytest
import torch
from methods_by_hand import (
    CLASSES,
    EIGEN,
    LAYERS,
    activations_and_gradients,
    assert_maps_close,
    both_precisions,
    cells,
    logit,
    principal,
)

from cam_engine import CAM, methods
from cam_engine.methods.eigen import principal_map


def segeigencam(A, g):
    return principal(np.abs(g) * A)


def kpcacam(A, g=None, component=0):
    from sklearn.decomposition import KernelPCA

    M = cells(A)
    M = M - M.mean(0)
    out = KernelPCA(component + 1, kernel="sigmoid").fit_transform(M)[:, component]
    mean = M.mean(1)
    return (out * np.sign(((out - out.mean()) * (mean - mean.mean())).sum())).reshape(A.shape[1:])


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("formula", [segeigencam, kpcacam], ids=lambda f: f.__name__)
def test_cam_on_a_real_model_equals_the_formula(formula, layer, exact_net, three_photos):
    A, g = activations_and_gradients(exact_net, layer, three_photos, logit(CLASSES))
    expected = np.maximum([formula(a, b) for a, b in zip(A, g, strict=True)], 0)
    for net, tolerance in both_precisions(exact_net):
        raw = CAM(net, formula.__name__, layer)(three_photos, CLASSES).raw[formula.__name__, layer]
        assert_maps_close(raw, expected, max(tolerance, 1e-6 if formula is kpcacam else 0))  # its vectors are iterated


@pytest.mark.parametrize("component", range(4))
@pytest.mark.parametrize("layer", LAYERS)
def test_components_of_every_eigen_method(layer, component, exact_net, three_photos):
    A, g = activations_and_gradients(exact_net, layer, three_photos, logit(CLASSES))
    matrices = {"eigencam": A, "eigengradcam": A * g, "segeigencam": np.abs(g) * A}
    raw = CAM(exact_net, EIGEN, layer, component=component)(three_photos, CLASSES).raw
    for method, products in matrices.items():
        expected = np.maximum([principal(p, component) for p in products], 0)
        assert_maps_close(raw[method, layer], expected, 1e-6)
    assert_maps_close(raw["kpcacam", layer], np.maximum([kpcacam(a, None, component) for a in A], 0), 1e-6)


@pytest.mark.parametrize("component", [0, 1])
def test_without_centring(component, exact_net, three_photos):
    A, g = activations_and_gradients(exact_net, "stage1", three_photos, logit(CLASSES))
    raw = CAM(exact_net, EIGEN, "stage1", component=component, center=False)(three_photos, CLASSES).raw
    for method, products in {"eigencam": A, "eigengradcam": A * g, "segeigencam": np.abs(g) * A}.items():
        expected = np.maximum([principal(p, component, center=False) for p in products], 0)
        assert_maps_close(raw[method, "stage1"], expected, 1e-6)


@pytest.mark.parametrize("method", EIGEN)
def test_a_component_that_is_not_there_is_refused(method, cnn, photos):
    with pytest.raises(ValueError, match=r"component=36 asked of .*6x6 grid"):
        CAM(cnn, method, "stage2", component=36)(photos, 1)


@pytest.mark.parametrize("size", [1e-4, 1e-2, 1.0, 30.0])
def test_kpcacam_of_small_and_large_activations(size):
    """tanh(x + 1) in float32 loses what lies below 1e-7; the reference is scikit-learn in float64."""
    A = torch.from_numpy(np.random.default_rng(1).gamma(1.0, size=(3, 8, 5, 6))) * size
    expected = [kpcacam(a) for a in A.numpy()]
    assert_maps_close(methods.kpcacam(A), expected, 1e-6)
    assert_maps_close(methods.kpcacam(A.float()), expected, 1e-3)


@pytest.mark.parametrize("value", [1.0, 0.1, 7.3, 1e4])
def test_constant_channels_are_zero_and_no_rounding_noise(value):
    A = (torch.arange(1.0, 65.0) * value)[None, :, None, None].expand(1, 64, 7, 7) / 3
    assert methods.kpcacam(A).abs().max() == 0
    assert methods.fem(A).max() == 0


@pytest.mark.parametrize("layer", ["stage1", "residual", "stage2"])
@pytest.mark.parametrize("method", EIGEN)
def test_eigen_signs_survive_noise_on_the_image(method, layer, exact_net, photos):
    """The sign is that of a correlation; where this is not itself close to zero, the map stays what it was."""
    noisy = photos + 1e-3 * torch.randn(photos.shape, generator=torch.Generator().manual_seed(5))
    pairs = [activations_and_gradients(exact_net, layer, x.double(), lambda o: o[:, 1]) for x in (photos, noisy)]
    matrices = {"eigengradcam": [A * g for A, g in pairs], "segeigencam": [np.abs(g) * A for A, g in pairs]}
    before, after = matrices.get(method, [A for A, _ in pairs])
    function = methods.kpcacam if method == "kpcacam" else methods.eigencam
    decided = 0
    for component in range(4):
        maps = [function(torch.from_numpy(m), component=component).numpy() for m in (before, after)]
        for a, b, matrix in zip(*maps, before, strict=True):
            mean = (matrix - matrix.mean((1, 2), keepdims=True)).mean(0)
            correlation = np.corrcoef(a.ravel(), mean.ravel())[0, 1]
            assert correlation > 0
            if correlation > 0.05:
                decided += 1
                assert (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b) > 0.9
    assert decided > 24, "of 32"


def test_a_decomposition_that_does_not_converge_is_made_in_float64(monkeypatch):
    """Eigenvalues that lie too close together for float32 are no reason to lose a look."""
    plain, features = torch.linalg.eigh, torch.rand(2, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    expected = principal_map(features)

    def fails_in_float32(matrices):
        if matrices.dtype == torch.float32:
            raise torch.linalg.LinAlgError("failed to converge")
        return plain(matrices)

    monkeypatch.setattr(torch.linalg, "eigh", fails_in_float32)
    torch.testing.assert_close(principal_map(features), expected, rtol=1e-4, atol=1e-5)
