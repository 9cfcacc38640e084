"""Finer-CAM against the paper's fraction, with probabilities of all classes."""

import copy

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

from cam_engine import CAM


def finer_score(outputs, classes):
    """The papers' fraction, with probabilities of all classes."""
    scores = []
    for z, c in zip(outputs, classes, strict=True):
        distance = (z - z[c]).detach().abs().tolist()
        rivals = sorted((d for d in range(len(z)) if d != c), key=distance.__getitem__)[:3]
        p = torch.exp(z - z.max()) / torch.exp(z - z.max()).sum()
        scores.append(sum(p[d] * (z[c] - z[d]) for d in rivals) / sum(p[d] for d in rivals))
    return torch.stack(scores)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("targets", [CLASSES.tolist(), None])
def test_finercam_is_gradcam_of_the_weighted_lead(targets, layer, exact_net, three_photos):
    with torch.no_grad():
        classes = exact_net(three_photos).argmax(1).tolist() if targets is None else targets
    A, g = activations_and_gradients(exact_net, layer, three_photos, lambda outputs: finer_score(outputs, classes))
    expected = np.maximum([weighted(b.mean((1, 2)), a) for a, b in zip(A, g, strict=True)], 0)
    for net, tolerance in both_precisions(exact_net):
        result = CAM(net, ["finercam", "gradcam"], layer)(three_photos, targets)
        assert_maps_close(result.raw["finercam", layer], expected, tolerance)
        torch.testing.assert_close(result.scores, logit(classes)(result.outputs))


@pytest.mark.parametrize("classes", [2, 3])
def test_finercam_with_few_classes_compares_with_those_there_are(classes, make_cnn, three_photos):
    net = make_cnn(inplace=False, classes=classes).double()
    A, g = activations_and_gradients(net, "stage1", three_photos, lambda outputs: finer_score(outputs, [0, 1, 0]))
    expected = np.maximum([weighted(b.mean((1, 2)), a) for a, b in zip(A, g, strict=True)], 0)
    raw = CAM(net, "finercam", "stage1")(three_photos, [0, 1, 0]).raw["finercam", "stage1"]
    assert_maps_close(raw, expected, 1e-7)


def test_finercam_of_a_confident_model_does_not_lose_its_rivals(exact_net, three_photos):
    """float32 has no exp(-200); the papers' fraction is the same whatever the size of both its parts."""
    sure = copy.deepcopy(exact_net)
    with torch.no_grad():
        sure.head.bias[0] += 200
    A, g = activations_and_gradients(sure, "stage1", three_photos, lambda outputs: finer_score(outputs, [0, 0, 0]))
    expected = np.maximum([weighted(b.mean((1, 2)), a) for a, b in zip(A, g, strict=True)], 0)
    raw = CAM(copy.deepcopy(sure).float(), "finercam", "stage1")(three_photos, 0).raw["finercam", "stage1"]
    assert_maps_close(raw, expected, 1e-3)


@pytest.mark.parametrize("targets", [lambda outputs: outputs[:, 0], 1])
def test_finercam_says_that_it_compares_classes(targets, make_cnn, photos):
    net = make_cnn(classes=5 if callable(targets) else 1)
    with pytest.raises(ValueError, match="finercam compares classes"):
        CAM(net, "finercam", "stage1")(photos, targets)
