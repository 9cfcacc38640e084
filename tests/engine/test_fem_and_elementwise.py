"""FEM and element-wise Grad-CAM against their formulas, written here with plain loops in float64."""

import numpy as np
import pytest
import torch
from methods_by_hand import (
    CLASSES,
    LAYERS,
    activations_and_gradients,
    assert_maps_close,
    both_precisions,
    logit,
    weighted,
)

from cam_engine import CAM, methods


def gradcam_elementwise(A, g):
    out = np.zeros(A.shape[1:])
    for k, i, j in np.ndindex(*A.shape):
        out[i, j] += max(A[k, i, j] * g[k, i, j], 0.0)
    return out


def fem(A, g=None):
    weights = []
    for a in A:
        threshold = a.sum() / a.size + 2 * np.sqrt(((a - a.mean()) ** 2).sum() / a.size)
        weights.append(sum(value > threshold for value in a.ravel()) / a.size)
    return weighted(weights, A)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("formula", [gradcam_elementwise, fem], ids=lambda f: f.__name__)
def test_cam_on_a_real_model_equals_the_formula(formula, layer, exact_net, three_photos):
    A, g = activations_and_gradients(exact_net, layer, three_photos, logit(CLASSES))
    expected = np.maximum([formula(a, b) for a, b in zip(A, g, strict=True)], 0)
    for net, tolerance in both_precisions(exact_net):
        raw = CAM(net, formula.__name__, layer)(three_photos, CLASSES).raw[formula.__name__, layer]
        assert_maps_close(raw, expected, tolerance)


def test_fem_gives_a_constant_channel_no_weight_beside_others(three_photos):
    """Rounding puts a constant above its own mean, in every cell."""
    A = torch.rand(1, 3, 7, 7)
    A[0, 1] = 0.1
    np.testing.assert_allclose(methods.collapse(methods.fem(A), A)[0], fem(A[0, [0, 2]].double().numpy()), rtol=1e-4)
