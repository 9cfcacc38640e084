"""Grad-CAM++ and Smooth Grad-CAM++: the papers' fractions, their poles, and derivatives by autograd."""

import numpy as np
import pytest
import torch
from methods_by_hand import CLASSES, LAYERS, activations_and_gradients, assert_maps_close, logit, weighted

from cam_engine import CAM, methods
from cam_engine.extras import NOISE, NOISY_REPEATS


def papers_weight(A, g):
    """GradCAM++ for one channel, the fraction as printed (Chattopadhyay et al. 2018, eq. 19), no eps."""
    weight = 0.0
    for value in g.ravel():
        if value > 0:
            weight += value**2 / (2 * value**2 + A.sum() * value**3) * value
    return weight


def test_gradcampp_is_the_papers_fraction_without_an_eps():
    generator = np.random.default_rng(0)
    for size in (1e-12, 1e-6, 1.0, 1e3):
        A, g = generator.random((4, 3, 3)), generator.normal(size=(4, 3, 3)) * size
        ours = methods.gradcampp(torch.from_numpy(A)[None], torch.from_numpy(g)[None])[0].numpy()
        np.testing.assert_allclose(ours, [papers_weight(a, b) for a, b in zip(A, g, strict=True)], rtol=1e-12)


def test_the_papers_fraction_is_that_of_the_derivatives():
    """α is Y″ / (2Y″ + ΣA·Y‴) for Y = exp(S); the derivatives here are autograd's."""
    torch.manual_seed(0)
    A = torch.rand(1, 1, 2, 3, dtype=torch.float64, requires_grad=True)
    g = torch.rand(1, 1, 2, 3, dtype=torch.float64)
    Y = (g * A).sum().exp()
    first = torch.autograd.grad(Y, A, create_graph=True)[0].flatten()
    weight = 0.0
    for n, d1 in enumerate(first):
        second = torch.autograd.grad(d1, A, create_graph=True)[0].flatten()[n]
        third = torch.autograd.grad(second, A, retain_graph=True)[0].flatten()[n]
        weight += second / (2 * second + A.sum() * third) * g.flatten()[n]
    torch.testing.assert_close(methods.gradcampp(A.detach(), g)[0, 0], weight.detach())


def third_seeds_weight(A, g):
    """As the third seed has it: g³ inside the sum over cells, and once more times g."""
    alpha = g**2 / (2 * g**2 + (A * g**3).sum() * g + 1e-7)
    return (alpha * np.maximum(g, 0)).sum()


@pytest.mark.parametrize("uneven", [False, True])
def test_the_third_seeds_gradcampp_is_not_the_papers(uneven):
    """Two channels, each bright in a cell of its own; the gradients are even over the cells, or large in one of them."""
    A = np.zeros((2, 2, 2))
    A[0, 0, 0], A[1, 1, 1] = 8.0, 8.0
    g = np.stack([np.full((2, 2), 4.0), np.full((2, 2), 0.25)])
    if uneven:
        g[:, 1, 0] = 12.0
    paper = np.array([papers_weight(a, b) for a, b in zip(A, g, strict=True)])
    seed = np.array([third_seeds_weight(a, b) for a, b in zip(A, g, strict=True)])
    ours = methods.gradcampp(torch.from_numpy(A)[None], torch.from_numpy(g)[None])[0].numpy()
    np.testing.assert_allclose(ours, paper, rtol=1e-12)
    ratios = paper[0] / paper[1], seed[0] / seed[1]
    assert max(ratios) / min(ratios) > 1.5, "the picture itself differs, not its scale alone"
    if not uneven:  # the channel with the larger gradient is the brighter one, and the seed turns that around
        assert paper[0] > paper[1] and seed[0] < seed[1]


@pytest.mark.parametrize("distance", [1e-3, 1e-6, 1e-9, 0.0, -1e-9, -1e-3, -5.0])
def test_gradcampp_near_and_below_a_zero_denominator(distance):
    """ΣA = −2 puts the pole at g = 1; beyond it the paper's α is negative, and such a cell gets no weight."""
    A = torch.full((1, 1, 2, 2), -0.5, dtype=torch.float64)
    g = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    g[..., 0, 0] = 1 - distance / 2
    weight = float(methods.gradcampp(A, g))
    if distance <= 0:
        assert weight == 0
    else:
        assert weight == pytest.approx(papers_weight(A.numpy(), g.numpy()), rel=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
def test_smoothgradcampp_with_the_same_noise(layer, exact_net, three_photos):
    generator = torch.Generator().manual_seed(3)
    A, _ = activations_and_gradients(exact_net, layer, three_photos, logit(CLASSES))
    repeats = []
    for _ in range(NOISY_REPEATS):
        noise = NOISE * torch.randn(three_photos.shape[1:], generator=generator)
        repeats.append(activations_and_gradients(exact_net, layer, three_photos + noise, logit(CLASSES))[1])
    expected = []
    for n, a in enumerate(A):
        weights = np.zeros(len(a))
        for k, i, j in np.ndindex(*a.shape):
            samples = [g[n, k, i, j] for g in repeats]
            d1, d2, d3 = (sum(s**p for s in samples) / len(samples) for p in (1, 2, 3))
            denominator = 2 * d2 + a[k].sum() * d3
            if denominator > 0:
                weights[k] += d2 / denominator * max(d1, 0)
        expected.append(np.maximum(weighted(weights, a), 0))
    raw = CAM(exact_net, "smoothgradcam++", layer, seed=3)(three_photos, CLASSES).raw["smoothgradcam++", layer]
    assert_maps_close(raw, expected, 1e-7)


def test_smoothgradcampp_without_noise_is_gradcampp(monkeypatch, exact_net, three_photos):
    monkeypatch.setattr("cam_engine.extras.NOISE", 0.0)
    for layer in LAYERS:
        raw = CAM(exact_net, ["gradcam++", "smoothgradcam++"], layer)(three_photos, CLASSES).raw
        torch.testing.assert_close(raw["smoothgradcam++", layer], raw["gradcam++", layer])


def test_smoothgradcampp_divides_second_moments_by_second_moments():
    """The paper prints D1 as the numerator of α: then the map would change its shape with the score's unit."""
    torch.manual_seed(1)
    A = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    g = torch.randn(5, 1, 3, 4, 4, dtype=torch.float64) * 1e-6  # small scores: α is 1/2, or grows without bound as 1/g
    moments = tuple((g**p).mean(0) for p in (1, 2, 3))
    ours = methods.smoothgradcampp(A, moments)
    printed = (moments[0] / (2 * moments[1] + A.sum((2, 3), keepdim=True) * moments[2]) * moments[0].relu()).sum((2, 3))
    torch.testing.assert_close(ours, (0.5 * moments[0].relu()).sum((2, 3)), rtol=1e-4, atol=0)
    assert (printed / ours).min() > 1e4


@pytest.mark.parametrize("order", range(3))
def test_a_moment_that_is_nan_is_not_hidden(order):
    A, moments = torch.rand(1, 3, 4, 4), [torch.rand(1, 3, 4, 4) for _ in range(3)]
    moments[order][0, 1, 2, 2] = float("nan")
    assert not torch.isfinite(methods.collapse(methods.smoothgradcampp(A, tuple(moments)), A)).any()
