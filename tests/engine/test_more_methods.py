"""The twelve further methods and the options against their papers' formulas, written here with plain loops in float64."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cam_engine import CAM, available_methods, methods, register
from cam_engine.extras import NOISE, NOISY_REPEATS
from cam_engine.methods import registry
from cam_engine.targets import MaskTarget

TWELVE = (
    "gradcam_elementwise",
    "fullgrad",
    "scorecam",
    "ablationcam",
    "kpcacam",
    "fem",
    "shapleycam",
    "finercam",
    "segeigencam",
    "cam",
    "smoothgradcam++",
    "randomcam",
)
EIGEN = ("eigencam", "eigengradcam", "segeigencam", "kpcacam")
LAYERS = ("stage1", "residual.bn2", "stage2")  # positive, signed, positive with uniform gradients
CLASSES = torch.tensor([0, 3, 4])


# --- by PyTorch's own means ---


def activations_and_gradients(net, layer, images, score):
    """(B, C, h, w) twice as float64 arrays; ``score`` takes the outputs and returns (B,)."""
    net, kept = copy.deepcopy(net), []

    def keep(_module, _inputs, output):
        output.retain_grad()
        kept.append(output)

    net.get_submodule(layer).register_forward_hook(keep)
    score(net(images)).sum().backward()
    return kept[-1].detach().numpy(), kept[-1].grad.numpy()


def logit(classes):
    return lambda outputs: outputs[torch.arange(len(outputs)), classes]


def weighted(weights, A):
    """(C,) and (C, h, w) → (h, w), channel by channel."""
    out = np.zeros(A.shape[1:])
    for w, a in zip(weights, A, strict=True):
        out += w * a
    return out


def resized(channel, height, width, *, aligned):
    """Bilinear, by numpy's one-dimensional interpolation along each axis; edges are repeated."""

    def positions(new, old):
        if aligned:
            return np.arange(new) * (old - 1) / max(new - 1, 1)
        return (np.arange(new) + 0.5) * old / new - 0.5

    h, w = channel.shape
    columns = np.stack([np.interp(positions(width, w), np.arange(w), row) for row in channel])
    return np.stack([np.interp(positions(height, h), np.arange(h), column) for column in columns.T]).T


def scaled(values):
    span = values.max() - values.min()
    return (values - values.min()) / span if span > 0 else np.zeros_like(values)


def first_component(M, component=0, center=True):
    """Of (cells, channels), by a full SVD; the sign is that of the energy."""
    centred = M - M.mean(0) if center else M
    out = centred @ np.linalg.svd(centred, full_matrices=False)[2][component]
    return oriented(out, M)


def oriented(out, M):
    """Correlates positively with how far each of the (cells, channels) is from the mean cell, and from its own mean."""
    energy = ((M - M.mean(0)) ** 2).sum(1) + ((M - M.mean(1)[:, None]) ** 2).sum(1)
    return out * np.sign(((out - out.mean()) * (energy - energy.mean())).sum())


def cells(A):
    return A.reshape(len(A), -1).T


def principal(A, component=0, center=True):
    return first_component(cells(A), component, center).reshape(A.shape[1:])


def assert_maps_close(actual, expected, rtol, least=2):
    """Each map (h, w) that shows something within ``rtol`` of its own largest value; at least ``least`` of them do."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    scale = np.abs(expected).max((1, 2), keepdims=True)
    alive = scale[:, 0, 0] > 0
    assert alive.sum() >= least, "too few reference maps show anything"
    np.testing.assert_allclose(actual[alive] / scale[alive], expected[alive] / scale[alive], rtol=0, atol=rtol)
    assert (np.abs(actual[~alive]) <= rtol).all()


# --- the formulas, for one image ---


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


def segeigencam(A, g):
    return principal(np.abs(g) * A)


def kpcacam(A, g=None, component=0):
    from sklearn.decomposition import KernelPCA

    M = cells(A)
    out = KernelPCA(component + 1, kernel="sigmoid").fit_transform(M - M.mean(0))[:, component]
    return oriented(out, M).reshape(A.shape[1:])


@pytest.fixture(scope="module")
def exact_net(make_cnn):
    """float64, nothing in place."""
    net = make_cnn(inplace=False).double()
    with torch.no_grad():
        net.head.weight.mul_(5)
    return net


@pytest.fixture(scope="module")
def images(photos):
    return photos[[0, 3, 5]].double()


def both_precisions(net):
    return [(net, 1e-7), (copy.deepcopy(net).float(), 5e-4)]


def test_they_follow_the_seven_and_in_order():
    assert tuple(available_methods()[7:20]) == (*TWELVE[:-1], "exchangecam", TWELVE[-1])


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("formula", [gradcam_elementwise, fem, segeigencam, kpcacam], ids=lambda f: f.__name__)
def test_formulas_of_activations_and_gradients(formula, layer, exact_net, images):
    A, g = activations_and_gradients(exact_net, layer, images, logit(CLASSES))
    expected = np.maximum([formula(a, b) for a, b in zip(A, g, strict=True)], 0)
    for net, tolerance in both_precisions(exact_net):
        raw = CAM(net, formula.__name__, layer)(images, CLASSES).raw[formula.__name__, layer]
        assert_maps_close(raw, expected, max(tolerance, 1e-6 if formula is kpcacam else 0))  # its vectors are iterated


@pytest.mark.parametrize("layer", LAYERS)
def test_scorecam_is_a_loop_over_masked_images(layer, exact_net, images):
    A, _ = activations_and_gradients(exact_net, layer, images, logit(CLASSES))
    expected = []
    for image, a, c in zip(images, A, CLASSES, strict=True):
        scores = []
        for channel in a:
            mask = torch.from_numpy(scaled(resized(channel, 48, 48, aligned=True)))
            with torch.no_grad():
                scores.append(float(exact_net((image * mask)[None])[0, c]))
        weights = np.exp(scores) / np.exp(scores).sum()
        expected.append(np.maximum(weighted(weights, a), 0))
    for net, tolerance in both_precisions(exact_net):
        for size in (1, 7, 32):
            raw = CAM(net, "scorecam", layer, batch_size=size)(images, CLASSES).raw["scorecam", layer]
            assert_maps_close(raw, expected, tolerance)


def ablated(net, layer, images, classes):
    """Ablation-CAM by a loop with a hook that sets one channel to zero."""
    expected = []
    with torch.no_grad():
        for image, c in zip(images, classes, strict=True):
            kept = []
            handle = net.get_submodule(layer).register_forward_hook(lambda m, i, o, kept=kept: kept.append(o.clone()))
            whole = float(net(image[None])[0, c])
            handle.remove()
            weights = []
            for k in range(kept[-1].shape[1]):
                mask = torch.ones(kept[-1].shape[1], dtype=image.dtype)
                mask[k] = 0
                handle = net.get_submodule(layer).register_forward_hook(
                    lambda m, i, o, mask=mask: o * mask[:, None, None]
                )
                weights.append((whole - float(net(image[None])[0, c])) / abs(whole))
                handle.remove()
            expected.append(np.maximum(weighted(weights, kept[-1][0].double().numpy()), 0))
    return expected


@pytest.mark.parametrize("layer", LAYERS)
def test_ablationcam_is_a_loop_over_channels(layer, exact_net, images):
    expected = ablated(exact_net, layer, images, CLASSES)
    for net, tolerance in both_precisions(exact_net):
        for size in (1, 7, 32):
            raw = CAM(net, "ablationcam", layer, batch_size=size)(images, CLASSES).raw["ablationcam", layer]
            assert_maps_close(raw, expected, tolerance)


class SmoothTail(nn.Module):
    """A score that is not linear in the activations: their Hessian is not zero."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Softplus())
        self.conv = nn.Conv2d(4, 6, 3)
        self.head = nn.Linear(6, 3)

    def tail(self, a):
        return self.head(F.gelu(self.conv(a)).flatten(2).pow(2).mean(2))

    def forward(self, x):
        return self.tail(self.layer(x))


def test_shapleycam_uses_the_whole_hessian(images):
    net, classes = SmoothTail().double().eval(), [2, 0, 1]
    small = images[:, :, 10:20, 10:22]
    expected = []
    for image, c in zip(small, classes, strict=True):
        a = net.layer(image[None]).detach()

        def score(flat, c=c, shape=a.shape):
            return net.tail(flat.reshape(shape))[0, c]

        flat = a.flatten()
        H = torch.autograd.functional.hessian(score, flat)
        g = torch.autograd.functional.jacobian(score, flat)
        assert (H @ flat).abs().max() > 0.1 * g.abs().max(), "the second order has to matter here"
        weights = (g - 0.5 * H @ flat).reshape(a.shape[1:]).mean((1, 2)).numpy()
        expected.append(np.maximum(weighted(weights, a[0].numpy()), 0))
    for net_, tolerance in both_precisions(net):
        raw = CAM(net_, ["gradcam", "shapleycam"], "layer")(small, classes).raw["shapleycam", "layer"]
        assert_maps_close(raw, expected, tolerance)


def test_shapleycam_agrees_with_finite_differences(images):
    net, small = SmoothTail().double().eval(), images[:, :, 10:20, 10:22]
    a = net.layer(small).detach()

    def gradient(at):
        at = at.detach().requires_grad_()
        return torch.autograd.grad(net.tail(at)[:, 0].sum(), at)[0]

    step = 1e-5
    product = (gradient(a * (1 + step)) - gradient(a * (1 - step))) / (2 * step)  # H·A: the direction is A itself
    weights = (gradient(a) - 0.5 * product).mean((2, 3)).numpy()
    raw = CAM(net, "shapleycam", "layer")(small, 0).raw["shapleycam", "layer"]
    assert_maps_close(raw, np.maximum([weighted(w, b) for w, b in zip(weights, a.numpy(), strict=True)], 0), 1e-7)


@pytest.mark.parametrize("layer", LAYERS)
def test_shapleycam_is_gradcam_where_the_score_is_piecewise_linear(layer, exact_net, images):
    raw = CAM(exact_net, ["shapleycam", "gradcam"], layer)(images, CLASSES).raw
    torch.testing.assert_close(raw["shapleycam", layer], raw["gradcam", layer])


def test_shapleycam_of_several_layers_is_that_of_each(images):
    net = nn.Sequential(SmoothTail().layer, nn.Conv2d(4, 5, 3), nn.GELU(), nn.Flatten(), nn.Linear(5 * 22 * 22, 3))
    net = net.double().eval()
    together = CAM(net, "shapleycam", ["0", "2"])(images, CLASSES % 3).raw
    for layer in ("0", "2"):
        alone = CAM(net, "shapleycam", layer)(images, CLASSES % 3).raw["shapleycam", layer]
        torch.testing.assert_close(together["shapleycam", layer], alone)


def test_shapleycam_differentiates_attention_twice(images):
    """torch's fused attention has no second derivative."""

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, 16, 8, 8)
            self.encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
            self.head = nn.Linear(16, 4)

        def forward(self, x):
            return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))

    result = CAM(Attention().eval(), ["shapleycam", "gradcam"], "patches")(images.float(), 1)
    assert result.valid["shapleycam"].any()
    assert not torch.allclose(result.raw["shapleycam", "patches"], result.raw["gradcam", "patches"], rtol=1e-3)


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
def test_finercam_is_gradcam_of_the_weighted_lead(targets, layer, exact_net, images):
    with torch.no_grad():
        classes = exact_net(images).argmax(1).tolist() if targets is None else targets
    A, g = activations_and_gradients(exact_net, layer, images, lambda outputs: finer_score(outputs, classes))
    expected = np.maximum([weighted(b.mean((1, 2)), a) for a, b in zip(A, g, strict=True)], 0)
    for net, tolerance in both_precisions(exact_net):
        result = CAM(net, ["finercam", "gradcam"], layer)(images, targets)
        assert_maps_close(result.raw["finercam", layer], expected, tolerance)
        torch.testing.assert_close(result.scores, logit(classes)(result.outputs))


@pytest.mark.parametrize("classes", [2, 3])
def test_finercam_with_few_classes_compares_with_those_there_are(classes, make_cnn, images):
    net = make_cnn(inplace=False, classes=classes).double()
    A, g = activations_and_gradients(net, "stage1", images, lambda outputs: finer_score(outputs, [0, 1, 0]))
    expected = np.maximum([weighted(b.mean((1, 2)), a) for a, b in zip(A, g, strict=True)], 0)
    raw = CAM(net, "finercam", "stage1")(images, [0, 1, 0]).raw["finercam", "stage1"]
    assert_maps_close(raw, expected, 1e-7)


def test_finercam_of_a_confident_model_does_not_lose_its_rivals(exact_net, images):
    """float32 has no exp(-200); the papers' fraction is the same whatever the size of both its parts."""
    sure = copy.deepcopy(exact_net)
    with torch.no_grad():
        sure.head.bias[0] += 200
    A, g = activations_and_gradients(sure, "stage1", images, lambda outputs: finer_score(outputs, [0, 0, 0]))
    expected = np.maximum([weighted(b.mean((1, 2)), a) for a, b in zip(A, g, strict=True)], 0)
    raw = CAM(copy.deepcopy(sure).float(), "finercam", "stage1")(images, 0).raw["finercam", "stage1"]
    assert_maps_close(raw, expected, 1e-3)


@pytest.mark.parametrize("targets", [lambda outputs: outputs[:, 0], 1])
def test_finercam_says_that_it_compares_classes(targets, make_cnn, photos):
    net = make_cnn(classes=5 if callable(targets) else 1)
    with pytest.raises(ValueError, match="finercam compares classes"):
        CAM(net, "finercam", "stage1")(photos, targets)


@pytest.mark.parametrize("layer", LAYERS)
def test_smoothgradcampp_with_the_same_noise(layer, exact_net, images):
    generator = torch.Generator().manual_seed(3)
    A, _ = activations_and_gradients(exact_net, layer, images, logit(CLASSES))
    repeats = []
    for _ in range(NOISY_REPEATS):
        noise = NOISE * torch.randn(images.shape[1:], generator=generator)
        repeats.append(activations_and_gradients(exact_net, layer, images + noise, logit(CLASSES))[1])
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
    raw = CAM(exact_net, "smoothgradcam++", layer, seed=3)(images, CLASSES).raw["smoothgradcam++", layer]
    assert_maps_close(raw, expected, 1e-7)


def test_smoothgradcampp_without_noise_is_gradcampp(monkeypatch, exact_net, images):
    monkeypatch.setattr("cam_engine.extras.NOISE", 0.0)
    for layer in LAYERS:
        raw = CAM(exact_net, ["gradcam++", "smoothgradcam++"], layer)(images, CLASSES).raw
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


@pytest.mark.parametrize("targets", [CLASSES.tolist(), None])
def test_cam_is_the_class_weights_and_so_gradcam_times_the_cells(targets, exact_net, images):
    result = CAM(exact_net, ["cam", "gradcam"], "stage2")(images, targets)
    A, _ = activations_and_gradients(exact_net, "stage2", images, logit(CLASSES))
    classes = result.outputs.argmax(1) if targets is None else CLASSES
    weights = exact_net.head.weight.detach().numpy()
    expected = np.maximum([weighted(weights[c], a) for c, a in zip(classes, A, strict=True)], 0)
    assert_maps_close(result.raw["cam", "stage2"], expected, 1e-12)
    torch.testing.assert_close(result.raw["cam", "stage2"], 36 * result.raw["gradcam", "stage2"])


@pytest.mark.parametrize("target", [0, 1, None])
def test_cam_of_a_single_logit_is_for_or_against_it(target, make_cnn, images):
    net = make_cnn(classes=1, inplace=False).double()
    raw = CAM(net, ["cam", "gradcam"], "stage2")(images, target).raw
    torch.testing.assert_close(raw["cam", "stage2"], 36 * raw["gradcam", "stage2"])


@pytest.mark.parametrize(
    ("layer", "targets"), [("stage1", 1), ("stage2", lambda outputs: outputs[:, 0])], ids=["layer", "callable"]
)
def test_cam_says_what_it_needs(layer, targets, cnn, photos):
    with pytest.raises(ValueError, match="'cam' needs a class as its target and a model that ends in one linear layer"):
        CAM(cnn, "cam", layer)(photos, targets)


def test_cam_does_not_take_another_linear_layer_for_the_head(photos):
    """A gate (squeeze and excitation) has as many inputs as the layer has channels."""

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(3, 8, 8, 8)
            self.head = nn.Linear(8, 4)
            self.gate = nn.Linear(8, 8)

        def forward(self, x):
            a = self.body(x)
            return self.head((a * self.gate(a.mean((2, 3))).sigmoid()[:, :, None, None]).mean((2, 3)))

    net = Gated().eval()
    A = net.body(photos).detach()
    expected = (net.head.weight[2].detach()[None, :, None, None] * A).sum(1).relu()
    torch.testing.assert_close(CAM(net, "cam", "body")(photos, 2).raw["cam", "body"], expected)


def test_randomcam_is_seeded_and_leaves_the_streams_alone(cnn, photos):
    before = torch.get_rng_state()
    first = CAM(cnn, "randomcam", "stage2")(photos)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    again = CAM(cnn, "randomcam", "stage2")(photos)
    other = CAM(cnn, "randomcam", "stage2", seed=1)(photos)
    assert torch.equal(first.raw["randomcam", "stage2"], again.raw["randomcam", "stage2"])
    assert not torch.allclose(first.raw["randomcam", "stage2"], other.raw["randomcam", "stage2"])
    weights = (torch.rand(24, generator=torch.Generator().manual_seed(0)) * 2 - 1)[None, :, None, None]
    cnn(photos[:1])
    kept = []
    cnn.stage2.register_forward_hook(lambda m, i, o: kept.append(o.detach().clone()))
    cnn(photos)
    torch.testing.assert_close(first.raw["randomcam", "stage2"], (weights * kept[0]).sum(1).relu())


# --- FullGrad ---


class Shared(nn.Module):
    """One convolution and one batch norm that run twice, as a detector's head does on every level of its pyramid."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.shared = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.head = nn.Linear(6, 5)
        self.only_in_training = nn.Conv2d(6, 2, 1)  # an auxiliary head, as GoogLeNet's

    def forward(self, x):
        x = self.shared(self.stem(x))
        return self.head(self.shared(F.max_pool2d(x, 2)).mean((2, 3)))


def shared_net():
    torch.manual_seed(2)
    net = Shared().double()
    with torch.no_grad():
        norm = net.shared[1]
        (
            norm.weight.uniform_(0.5, 1.5),
            norm.bias.normal_(),
            norm.running_mean.normal_(),
            norm.running_var.uniform_(0.5, 2),
        )
    return net.eval()


def fullgrad_terms(net, images, classes):
    """Input × gradient, and bias × gradient at every call of a convolution or batch norm, by hooks on a copy."""
    net, kept = copy.deepcopy(net), []

    def keep(module, _inputs, output):
        output.retain_grad()
        if isinstance(module, nn.BatchNorm2d):
            scale = module.weight / torch.sqrt(module.running_var + module.eps)
            kept.append((output, module.bias - module.running_mean * scale))
        elif module.bias is not None:
            kept.append((output, module.bias))
        return output.clone()  # an in-place layer comes next

    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            module.register_forward_hook(keep)
    images = images.clone().requires_grad_()
    logit(classes)(net(images)).sum().backward()
    terms = [images * images.grad] + [bias[:, None, None] * output.grad for output, bias in kept]
    return [t.detach().numpy() for t in terms]


def fullgrad(terms, size):
    out = np.zeros((len(terms[0]), *size))
    for term in terms:
        for n, c in np.ndindex(*term.shape[:2]):
            out[n] += resized(scaled(np.abs(term[n, c])), *size, aligned=False)
    return out


@pytest.fixture
def terms_method():
    """A method of one's own that only keeps what it was given."""
    seen = {}

    @register("terms", needs=["bias_terms"])
    def terms(activations, bias_terms):
        seen["terms"] = bias_terms
        return activations

    yield seen
    del registry._METHODS["terms"]


@pytest.mark.parametrize("build", ["cnn", "in place", "shared"])
def test_fullgrad_terms_are_complete_and_its_map_is_their_sum(build, make_cnn, terms_method, images):
    """For a network of ReLUs, input × gradient plus all biases × gradients is the score (Srinivas & Fleuret 2019, prop. 1)."""
    net = shared_net() if build == "shared" else make_cnn(inplace=build == "in place").double()
    result = CAM(net, ["fullgrad", "terms"])(images, CLASSES)
    total = sum(t.flatten(1).sum(1) for t in terms_method["terms"]) + net.head.bias.detach()[CLASSES]
    torch.testing.assert_close(total, result.scores, rtol=0, atol=1e-4 * float(result.scores.abs().max()))
    terms = fullgrad_terms(net, images, CLASSES)
    assert len(terms) == len(terms_method["terms"])
    expected = fullgrad(terms, (48, 48))
    for net_, tolerance in both_precisions(net):
        result = CAM(net_, "fullgrad")(images, CLASSES)
        (raw,) = result.raw.values()
        assert_maps_close(raw, expected, tolerance, least=3)


def test_fullgrad_is_the_same_whatever_the_layer(cnn, photos):
    raw = CAM(cnn, "fullgrad", ["stem", "stage2"])(photos, 1).raw
    assert raw["fullgrad", "stem"].shape == (8, 48, 48)
    torch.testing.assert_close(raw["fullgrad", "stem"], raw["fullgrad", "stage2"])


def test_fullgrad_of_a_frozen_model(cnn, photos):
    before = CAM(cnn, "fullgrad")(photos, 1)["fullgrad"]
    torch.testing.assert_close(CAM(cnn.requires_grad_(False), "fullgrad")(photos, 1)["fullgrad"], before)


def test_fullgrad_without_biases_says_so(photos):
    net = nn.Sequential(nn.Conv2d(3, 4, 8, 8, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    with pytest.raises(ValueError, match="fullgrad needs a model with biases"):
        CAM(net, "fullgrad", "0")(photos)


# --- options ---


@pytest.mark.parametrize("component", range(4))
@pytest.mark.parametrize("layer", LAYERS)
def test_components_of_every_eigen_method(layer, component, exact_net, images):
    A, g = activations_and_gradients(exact_net, layer, images, logit(CLASSES))
    matrices = {"eigencam": A, "eigengradcam": A * g, "segeigencam": np.abs(g) * A}
    raw = CAM(exact_net, EIGEN, layer, component=component)(images, CLASSES).raw
    for method, products in matrices.items():
        expected = np.maximum([principal(p, component) for p in products], 0)
        assert_maps_close(raw[method, layer], expected, 1e-6)
    assert_maps_close(raw["kpcacam", layer], np.maximum([kpcacam(a, None, component) for a in A], 0), 1e-6)


@pytest.mark.parametrize("component", [0, 1])
def test_without_centring(component, exact_net, images):
    A, g = activations_and_gradients(exact_net, "stage1", images, logit(CLASSES))
    raw = CAM(exact_net, EIGEN, "stage1", component=component, center=False)(images, CLASSES).raw
    for method, products in {"eigencam": A, "eigengradcam": A * g, "segeigencam": np.abs(g) * A}.items():
        expected = np.maximum([principal(p, component, center=False) for p in products], 0)
        assert_maps_close(raw[method, "stage1"], expected, 1e-6)


@pytest.mark.parametrize("method", EIGEN)
def test_a_component_that_is_not_there_is_refused(method, cnn, photos):
    with pytest.raises(ValueError, match=r"component=36 asked of .*6x6 grid"):
        CAM(cnn, method, "stage2", component=36)(photos, 1)


def test_eigen_smooth_is_the_first_component_of_the_weighted_activations(exact_net, images):
    A, g = activations_and_gradients(exact_net, "stage1", images, logit(CLASSES))
    by_channel = g.mean((2, 3))[:, :, None, None]
    products = {
        "gradcam": by_channel * A,
        "hirescam": g * A,
        "layercam": np.maximum(g, 0) * A,
        "gradcam_elementwise": np.maximum(g * A, 0),
    }
    for net, tolerance in both_precisions(exact_net):
        raw = CAM(net, list(products), "stage1", eigen_smooth=True)(images, CLASSES).raw
        for method, weighted_activations in products.items():
            expected = np.maximum([principal(p) for p in weighted_activations], 0)
            assert_maps_close(raw[method, "stage1"], expected, tolerance)


@pytest.mark.parametrize("method", [*EIGEN, "fullgrad"])
def test_eigen_smooth_leaves_a_map_as_it_is(method, cnn, photos):
    plain, smooth = (CAM(cnn, method, "stage1", eigen_smooth=s)(photos, 1) for s in (False, True))
    assert torch.equal(plain.raw[method, "stage1"], smooth.raw[method, "stage1"])


def test_every_method_can_be_smoothed_both_ways(cnn, photos):
    result = CAM(cnn, available_methods(), "stage2", eigen_smooth=True, aug_smooth=True)(photos[:2], 1)
    for method in available_methods():
        assert result[method].shape == (2, 48, 48) and result[method].min() >= 0 and result[method].max() <= 1
        assert result.valid[method].any(), method


@pytest.mark.parametrize("layers", [["stage2"], ["stem", "stage2"]], ids=len)
@pytest.mark.parametrize("targets", [[0, 3, 4], None])
def test_aug_smooth_averages_six_variants_mirrored_back(targets, layers, exact_net, images):
    names = ["gradcam", "eigencam", "scorecam", "fem", "fullgrad"]
    with torch.no_grad():
        classes = exact_net(images).argmax(1).tolist() if targets is None else targets
    cam = CAM(exact_net, names, layers)
    smoothed = CAM(exact_net, names, layers, aug_smooth=True)(images, targets)
    variants = [cam(images * factor, classes) for factor in (0.9, 1.0, 1.1)]
    mirrored = [cam(images.flip(3) * factor, classes) for factor in (0.9, 1.0, 1.1)]
    for method in names:
        pictures = sum(v[method].numpy() for v in variants) + sum(m[method].numpy()[:, :, ::-1] for m in mirrored)
        np.testing.assert_allclose(smoothed[method], [scaled(p) for p in pictures], atol=1e-6)
        assert np.allclose(smoothed[method].amax((1, 2)), 1)
        for layer in layers:
            raw = sum(v.raw[method, layer].numpy() for v in variants)
            raw = raw + sum(m.raw[method, layer].numpy()[:, :, ::-1] for m in mirrored)
            np.testing.assert_allclose(smoothed.raw[method, layer], raw / 6, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(smoothed.outputs, exact_net(images).detach())
    torch.testing.assert_close(smoothed.scores, logit(classes)(smoothed.outputs))


def test_aug_smooth_explains_the_same_class_in_every_variant(exact_net, images):
    """Where brightness flips the prediction, six variants of two classes would be averaged otherwise."""
    net = copy.deepcopy(exact_net)
    with torch.no_grad():  # two classes of equal score on the first image, told apart by the brightness alone
        out = [net(images[:1] * f)[0] for f in (0.9, 1.0)]
        net.head.bias[1] += out[1][0] - out[1][1] - 1e-6
        predicted = {int(net(images[:1] * f).argmax()) for f in (0.9, 1.1)}
    smoothed = CAM(net, "gradcam", "stage1", aug_smooth=True)(images[:1])
    fixed = CAM(net, "gradcam", "stage1", aug_smooth=True)(images[:1], smoothed.outputs.argmax(1))
    torch.testing.assert_close(smoothed["gradcam"], fixed["gradcam"])
    assert len(predicted) <= 2


def test_aug_smooth_mirrors_the_masks_of_a_target_too(photos):
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, stride=2, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(6, 3, 1)
    ).eval()
    masks = torch.zeros(2, 24, 24)
    masks[0, 3:9, 2:8], masks[1, 12:20, 15:22] = 1, 1
    smoothed = CAM(net, "hirescam", "0", aug_smooth=True)(photos[:2], MaskTarget(1, masks))
    plain = [CAM(net, "hirescam", "0")(photos[:2] * f, MaskTarget(1, masks)) for f in (0.9, 1.0, 1.1)]
    sides = [CAM(net, "hirescam", "0")(photos[:2].flip(3) * f, MaskTarget(1, masks.flip(2))) for f in (0.9, 1.0, 1.1)]
    raw = sum(r.raw["hirescam", "0"] for r in plain) + sum(r.raw["hirescam", "0"].flip(2) for r in sides)
    torch.testing.assert_close(smoothed.raw["hirescam", "0"], raw / 6)


# --- what every method has to stand ---


@pytest.mark.parametrize("method", TWELVE)
def test_one_image_does_not_see_the_others(method, cnn, photos):
    layer, classes = "stage2", torch.arange(8) % 5
    cam = CAM(cnn, method, layer, batch_size=5)
    whole = cam(photos, classes).raw[method, layer]
    order = torch.tensor([5, 2, 7, 0, 1, 6, 4, 3])
    assert_maps_close(cam(photos[order], classes[order]).raw[method, layer], whole[order], 2e-4, least=4)
    alone = torch.cat([cam(photos[i : i + 1], classes[i : i + 1]).raw[method, layer] for i in (0, 3, 6)])
    assert_maps_close(alone, whole[[0, 3, 6]], 2e-4)


@pytest.mark.parametrize("method", TWELVE)
def test_half_precision_models_are_explained_in_float32(method, exact_net, photos):
    half = copy.deepcopy(exact_net).bfloat16()
    raw = CAM(half, method, "stage2")(photos, 1).raw[method, "stage2"]
    assert raw.dtype == torch.float32
    exact = CAM(exact_net, method, "stage2")(photos, 1).raw[method, "stage2"]
    a, b = raw.flatten(1).double(), exact.flatten(1)
    alive = (a.amax(1) > 0) & (b.amax(1) > 0)
    assert F.cosine_similarity(a[alive], b[alive]).mean() > 0.95


@pytest.mark.parametrize("method", TWELVE)
def test_under_autocast_variants_are_scored_as_the_model_runs_there(method, exact_net, photos):
    net, seen = copy.deepcopy(exact_net).float(), set()
    exact = CAM(net, method, "stage2")(photos, 1).raw[method, "stage2"]
    net.stage2[0].register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        raw = CAM(net, method, "stage2")(photos, 1).raw[method, "stage2"]
    assert seen == {torch.bfloat16} and raw.dtype == torch.float32
    a, b = raw.flatten(1), exact.flatten(1)
    alive = (a.amax(1) > 0) & (b.amax(1) > 0)
    assert alive.any() and F.cosine_similarity(a[alive], b[alive]).mean() > 0.95


@pytest.mark.parametrize("method", available_methods())
def test_a_dead_layer_is_invalid_and_never_bright(method, cnn, photos):
    if method in ("fullgrad", "exchangecam"):
        pytest.skip("does not read the layer")
    with torch.no_grad():
        cnn.stage2[1].weight.zero_()
        cnn.stage2[1].bias.fill_(-1)
        cnn.head.bias.fill_(0.1)  # Ablation-CAM divides by the score
    result = CAM(cnn, method, "stage2")(photos, 1)
    assert not result.valid[method].any()
    assert result[method].abs().max() == 0


@pytest.mark.parametrize("layer", ["stem", "stage1", "residual", "stage2", "stage2.1"])
def test_in_place_consumers_change_nothing(layer, make_cnn, photos):
    names = [m for m in TWELVE if m != "cam"]
    results = [CAM(make_cnn(inplace=p), names, layer)(photos[:3], 1).raw for p in (False, True)]
    for method in names:
        torch.testing.assert_close(results[1][method, layer], results[0][method, layer], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_layer_that_runs_twice_is_explained_at_its_last_call(inplace, make_cnn, photos):
    names = [m for m in TWELVE if m != "cam"]
    net = make_cnn(inplace=inplace)
    twice = CAM(net, names, "residual.relu")(photos[:3], 1).raw
    block = CAM(net, names, "residual")(photos[:3], 1).raw
    for method in names:
        reference = block[method, "residual"]
        assert reference.max() > 0, method
        torch.testing.assert_close(twice[method, "residual.relu"], reference, rtol=1e-3, atol=1e-5)


class Packed(nn.Module):
    """A stage whose output lies inside of something, as a feature pyramid's does."""

    def __init__(self, stage, pack):
        super().__init__()
        self.stage, self.pack = stage, pack

    def forward(self, x):
        return self.pack(self.stage(x))


@pytest.mark.parametrize(
    ("pack", "unpack"),
    [
        (lambda t: (t, "more"), lambda o: o[0]),
        (lambda t: [t], lambda o: o[0]),
        (lambda t: {"count": 3, "0": t}, lambda o: o["0"]),
        (lambda t: {"levels": [(t,)]}, lambda o: o["levels"][0][0]),
    ],
    ids=["tuple", "list", "dict", "nested"],
)
def test_layers_that_return_tuples_lists_and_dictionaries(pack, unpack, cnn, photos):
    names = [m for m in available_methods() if m != "cam"]
    plain = CAM(cnn, names, "stage1")(photos[:3], 1).raw

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = copy.deepcopy(cnn)
            self.packed = Packed(self.net.stage1, pack)

        def forward(self, x):
            x = unpack(self.packed(self.net.stem(x)))
            return self.net.head(self.net.pool(self.net.stage2(self.net.residual(x))).flatten(1))

    found = CAM(Net().eval(), names, "packed")(photos[:3], 1).raw
    for method in names:
        torch.testing.assert_close(found[method, "packed"], plain[method, "stage1"], rtol=1e-3, atol=1e-5)


class SkipPast(nn.Module):
    """What passes by the layer is added, or concatenated, after a layer that changes its input and is not idempotent."""

    def __init__(self, how, inplace):
        super().__init__()
        self.how = how
        self.first = nn.Conv2d(3, 8, 4, 4)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.Hardswish(inplace=inplace)
        self.head = nn.Linear(16 if how == "concatenated" else 8, 4)

    def forward(self, x):
        x = self.first(x)
        y = self.act(self.norm(x))
        y = torch.cat([x, y], 1) if self.how == "concatenated" else x + y
        return self.head((y * y).mean((2, 3)))


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("how", ["added", "concatenated"])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_ablationcam_where_something_passes_by_the_layer(batch, how, inplace, images):
    """The layers before it cannot be given fewer images then, and what was given to the attempt must not be used again."""
    net = SkipPast(how, inplace).double().eval()
    reference = copy.deepcopy(net)
    reference.act.inplace = False
    images, classes = images[:batch], [1, 0, 2][:batch]
    expected = ablated(reference, "norm", images, classes)
    for size in (1, 2, 3, 32):
        raw = CAM(net, "ablationcam", "norm", batch_size=size)(images, classes).raw["ablationcam", "norm"]
        assert_maps_close(raw, expected, 1e-9, least=1)


def test_ablationcam_divides_by_the_scores_magnitude(exact_net, images):
    """Desai & Ramaswamy divide by the score, which turns the map upside down where it is negative."""
    down = copy.deepcopy(exact_net)
    with torch.no_grad():
        down.head.bias[1] -= 100
    up, below = (CAM(net, ["ablationcam"], "stage2")(images, 1) for net in (exact_net, down))
    assert (below.scores < 0).all()
    a, b = up.raw["ablationcam", "stage2"], below.raw["ablationcam", "stage2"]
    torch.testing.assert_close(a * up.scores.abs()[:, None, None], b * below.scores.abs()[:, None, None])


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_unit_of_the_activations_does_not_matter(factor, images):
    """The layer's output times c, and what follows divided by it."""

    def build(c):
        torch.manual_seed(4)
        net = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 144, 3))
        with torch.no_grad():
            net[0].weight.mul_(c), net[0].bias.mul_(c), net[3].weight.div_(c)
        return net.eval()

    names = [m for m in TWELVE if m not in ("cam", "kpcacam", "fullgrad")]  # kpcacam's tanh knows a unit
    before, after = (CAM(build(c), names, "1")(images.float(), 1) for c in (1.0, factor))
    for method in names:
        assert_maps_close(after[method], before[method], 5e-4)


# --- the known traps ---


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


@pytest.mark.parametrize("order", range(3))
def test_a_moment_that_is_nan_is_not_hidden(order):
    A, moments = torch.rand(1, 3, 4, 4), [torch.rand(1, 3, 4, 4) for _ in range(3)]
    moments[order][0, 1, 2, 2] = float("nan")
    assert not torch.isfinite(methods.collapse(methods.smoothgradcampp(A, tuple(moments)), A)).any()


@pytest.mark.parametrize("value", [1.0, 0.1, 7.3, 1e4])
def test_constant_channels_are_zero_and_no_rounding_noise(value):
    A = (torch.arange(1.0, 65.0) * value)[None, :, None, None].expand(1, 64, 7, 7) / 3
    assert methods.kpcacam(A).abs().max() == 0
    assert methods.fem(A).max() == 0


def test_fem_gives_a_constant_channel_no_weight_beside_others(images):
    """Rounding puts a constant above its own mean, in every cell."""
    A = torch.rand(1, 3, 7, 7)
    A[0, 1] = 0.1
    np.testing.assert_allclose(methods.collapse(methods.fem(A), A)[0], fem(A[0, [0, 2]].double().numpy()), rtol=1e-4)


@pytest.mark.parametrize("size", [1e-4, 1e-2, 1.0, 30.0])
def test_kpcacam_of_small_and_large_activations(size):
    """tanh(x + 1) in float32 loses what lies below 1e-7; the reference is scikit-learn in float64."""
    A = torch.from_numpy(np.random.default_rng(1).gamma(1.0, size=(3, 8, 5, 6))) * size
    expected = [kpcacam(a) for a in A.numpy()]
    assert_maps_close(methods.kpcacam(A), expected, 1e-6)
    assert_maps_close(methods.kpcacam(A.float()), expected, 1e-3)


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
            M = cells(matrix)
            energy = ((M - M.mean(0)) ** 2).sum(1) + ((M - M.mean(1)[:, None]) ** 2).sum(1)
            correlation = np.corrcoef(a.ravel(), energy)[0, 1]
            assert correlation > 0
            if correlation > 0.05:
                decided += 1
                assert (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b) > 0.9
    assert decided > 24, "of 32"


def test_signs_of_eigen_smooth_survive_noise_on_the_image(cnn, photos):
    names = ["gradcam", "gradcam++", "xgradcam", "hirescam", "layercam", "gradcam_elementwise", "scorecam", "fem"]
    cam = CAM(cnn, names, "stage1", eigen_smooth=True)
    noisy = photos + 1e-3 * torch.randn(photos.shape, generator=torch.Generator().manual_seed(5))
    before, after = (cam(x, 1).raw for x in (photos, noisy))
    for method in names:
        similarity = F.cosine_similarity(before[method, "stage1"].flatten(1), after[method, "stage1"].flatten(1))
        assert similarity.min() > 0.9, (method, similarity)
