"""One forward and one gradient call through a model that is left exactly as it was."""

import contextlib
import copy
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from methods_by_hand import ONE_PASS
from torch import nn

from cam_engine import CAM, available_layers, available_methods
from cam_engine.capture import Tap, capture, gradients

LINEAR = ("gradcam", "hirescam", "layercam")  # between them they pin activations and gradients, cell by cell
LAYERS = ["stem", "stage1", "residual", "stage2"]


def assert_same_maps(result, expected):
    assert list(result.raw) == list(expected.raw)
    for key, reference in expected.raw.items():
        assert reference.max() > 0, f"{key}: nothing to compare"
        torch.testing.assert_close(result.raw[key], reference, rtol=1e-4, atol=1e-5 * reference.max().item())


def by_backward(net, layers, images, classes):
    """{layer: (activation, gradient)} by PyTorch's own means: retain_grad and backward on a copy."""
    net, kept = copy.deepcopy(net), {}
    for layer in layers:

        def keep(_module, _inputs, output, layer=layer):
            output.retain_grad()
            kept[layer] = output

        net.get_submodule(layer).register_forward_hook(keep)
    net(images).gather(1, classes[:, None]).sum().backward()
    return {layer: (output.detach(), output.grad) for layer, output in kept.items()}


def captured_pairs(net, layers, images, classes):
    """{layer: (activation, gradient)} by the engine."""
    targets = [Tap(layer, net.get_submodule(layer), lambda _: ()) for layer in layers]
    captured = capture(net, images, targets, record="from_layer")
    with torch.enable_grad():
        grads = gradients(captured.outputs.gather(1, classes[:, None]).squeeze(1), captured.activations)
    return {layer: (captured.activations[layer].detach(), grads[layer]) for layer in layers}


def assert_same_pairs(found, expected):
    assert list(found) == list(expected)
    for layer in expected:
        for ours, theirs, what in zip(found[layer], expected[layer], ("activation", "gradient"), strict=True):
            scale = theirs.abs().max().item()
            assert scale > 0
            torch.testing.assert_close(
                ours, theirs, rtol=1e-4, atol=1e-5 * scale, msg=lambda m, at=f"{layer}, {what}": f"{at}: {m}"
            )


# --- where a model can be looked at ---


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_surrounding_grad_mode_makes_no_difference(context, cnn, photos):
    expected = CAM(cnn, ONE_PASS, LAYERS)(photos, 1)
    with context():
        images = photos * 1.0  # in inference mode an inference tensor
        modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        result = CAM(cnn, ONE_PASS, LAYERS)(images, 1)
        assert modes == (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
    assert_same_maps(result, expected)
    for tensor in [*result.raw.values(), result.outputs, result.scores]:
        assert not tensor.is_inference()
        assert not tensor.requires_grad


@pytest.mark.parametrize("context", [contextlib.nullcontext, torch.inference_mode])
def test_a_frozen_model_is_explained(context, cnn, photos):
    expected = CAM(cnn, ONE_PASS, LAYERS)(photos, 1)
    cnn.requires_grad_(False)
    with context():
        assert_same_maps(CAM(cnn, ONE_PASS, LAYERS)(photos, 1), expected)
    assert not any(p.requires_grad for p in cnn.parameters())


@pytest.mark.parametrize("frozen", [("stem", "stage1"), ("residual",), ("stage2", "head")])
def test_a_partly_frozen_model_is_explained(frozen, cnn, photos):
    expected = CAM(cnn, ONE_PASS, LAYERS)(photos, 1)
    for name in frozen:
        cnn.get_submodule(name).requires_grad_(False)
    assert_same_maps(CAM(cnn, ONE_PASS, LAYERS)(photos, 1), expected)


class WithoutGradients(nn.Module):
    """A CNN whose first ``stages`` run in a block that switches gradients off, as for a frozen backbone."""

    def __init__(self, net, stages=4, block=torch.no_grad):
        super().__init__()
        self.net, self.stages, self.block = net, stages, block

    def forward(self, x):
        parts = [self.net.stem, self.net.stage1, self.net.residual, self.net.stage2]
        with self.block():
            for part in parts[: self.stages]:
                x = part(x)
        for part in parts[self.stages :]:
            x = part(x)
        return self.net.head(self.net.pool(x).flatten(1))


@pytest.mark.parametrize("layer", LAYERS)
def test_a_no_grad_block_around_the_backbone_does_not_hide_it(layer, cnn, photos):
    expected = CAM(cnn, ONE_PASS, layer)(photos, 1)
    cam = CAM(WithoutGradients(cnn), ONE_PASS, f"net.{layer}")
    for _ in range(2):  # the first call finds out, the second knows
        result = cam(photos, 1)
        for method in ONE_PASS:
            reference = expected.raw[method, layer]
            torch.testing.assert_close(result.raw[method, f"net.{layer}"], reference, rtol=1e-4, atol=1e-5)


def test_a_no_grad_block_that_ends_between_two_layers_hides_neither(cnn, photos):
    """Only the later layer has a gradient at first; the earlier one must not be shown as if it had no part."""
    net = WithoutGradients(cnn, stages=1)
    together = CAM(net, LINEAR, ["net.stem", "net.stage2"])(photos, 1)
    for layer in ("net.stem", "net.stage2"):
        alone = CAM(net, LINEAR, layer)(photos, 1)
        for method in LINEAR:
            assert alone.raw[method, layer].max() > 0
            torch.testing.assert_close(together.raw[method, layer], alone.raw[method, layer], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("methods", [ONE_PASS, "smoothgradcam++"], ids=["one forward", "noisy repeats"])
def test_a_no_grad_block_costs_one_forward_more_and_only_once(methods, cnn, photos):
    net, forwards = WithoutGradients(cnn), []
    net.register_forward_pre_hook(lambda *_: forwards.append(1))
    cam, plain = CAM(net, methods, "net.stage1"), 1 if methods is ONE_PASS else 5
    cam(photos, 1)
    assert len(forwards) == plain + 1
    if methods is ONE_PASS:
        cam(photos, 1)
        assert len(forwards) == 2 * plain + 1


def test_a_capture_says_what_it_recorded(cnn, photos):
    taps = [Tap("net.stage1", cnn.stage1, lambda _: ())]
    first = capture(WithoutGradients(cnn), photos, taps, record="from_layer")
    assert first.recording == "from_start"
    assert first.activations["net.stage1"].requires_grad and first.outputs.requires_grad
    assert capture(cnn, photos, taps, record="from_layer").recording == "from_layer"
    assert capture(WithoutGradients(cnn), photos, taps, record="nothing").recording == "nothing"


# --- what is captured ---


@pytest.mark.parametrize(
    "layer", ["stem.0", "stem.1", "stem.2", "residual.bn1", "residual.bn2", "residual", "stage2.1"]
)
def test_in_place_layers_behind_the_target_change_nothing(layer, make_cnn, photos):
    classes = torch.arange(8) % 5
    found = captured_pairs(make_cnn(inplace=True), [layer], photos, classes)
    assert_same_pairs(found, by_backward(make_cnn(inplace=False), [layer], photos, classes))


@pytest.mark.parametrize("method", ONE_PASS)
def test_gradient_free_and_gradient_methods_agree_in_place_or_not(method, make_cnn, photos):
    layers = ["stem.1", "residual.bn1", "stage2.1"]  # each followed by an in-place ReLU
    expected = CAM(make_cnn(inplace=False), method, layers)(photos, 1)
    cam = CAM(make_cnn(inplace=True), method, layers)
    for _ in range(2):
        assert_same_maps(cam(photos, 1), expected)


def test_a_layer_that_runs_twice_is_explained_at_its_last_call(make_cnn, photos):
    classes = torch.arange(8) % 5
    found = captured_pairs(make_cnn(inplace=True), ["residual.relu"], photos, classes)
    expected = by_backward(make_cnn(inplace=False), ["residual.relu", "residual"], photos, classes)
    torch.testing.assert_close(expected["residual.relu"], expected["residual"])  # the block ends with that call
    assert_same_pairs(found, {"residual.relu": expected["residual"]})


def test_a_layer_that_runs_twice_is_explained_at_its_last_call_without_gradients(cnn, photos):
    cam = CAM(cnn, "eigencam", "residual.relu")
    expected = CAM(cnn, "eigencam", "residual")(photos).raw["eigencam", "residual"]
    first_call = CAM(cnn, "eigencam", "residual.bn1")(photos).raw["eigencam", "residual.bn1"]
    assert not torch.allclose(first_call, expected, atol=1e-2 * expected.max())
    for _ in range(3):  # from the second call on the forward stops early, but not at the layer's first call
        torch.testing.assert_close(cam(photos).raw["eigencam", "residual.relu"], expected, rtol=1e-4, atol=1e-5)


CHAINS = [
    LAYERS,
    LAYERS[::-1],
    ["stage2", "stage2.2", "stage2.1"],
    ["residual", "residual.relu", "residual.conv2", "stem"],
]


@pytest.mark.parametrize("layers", CHAINS, ids=["chain", "reversed", "nested", "shared"])
def test_layers_that_feed_each_other_are_as_if_alone(layers, cnn, make_cnn, photos):
    classes = torch.arange(8) % 5
    together = captured_pairs(cnn, layers, photos, classes)
    alone = {}
    for layer in layers:
        alone.update(captured_pairs(cnn, [layer], photos, classes))
    assert_same_pairs(together, alone)
    assert_same_pairs(alone, {x: by_backward(make_cnn(inplace=False), [x], photos, classes)[x] for x in layers})


class Branches(nn.Module):
    """Two parallel branches over one stem; their maps are added, concatenated and skipped past each other."""

    def __init__(self, net):
        super().__init__()
        self.stem = net.stem
        self.left, self.right = copy.deepcopy(net.stage1), copy.deepcopy(net.stage1)
        with torch.no_grad():
            self.right[0].weight.mul_(-0.5)
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        x = self.stem(x)
        left = self.left(x)
        right = self.right(x)
        return self.head(torch.cat([(left + right).mean((2, 3)), (left * right).mean((2, 3))], 1))


@pytest.mark.parametrize("frozen", [(), ("left",), ("right",), ("stem", "right"), ("stem", "left", "right")], ids=str)
@pytest.mark.parametrize("layers", [["left", "right"], ["right", "left"], ["left", "stem", "right"]], ids=str)
def test_parallel_branches(layers, frozen, cnn, photos):
    net, classes = Branches(cnn).eval(), torch.arange(8) % 5
    expected = {}
    for layer in layers:
        plain = copy.deepcopy(net)
        for module in plain.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
        expected.update(by_backward(plain, [layer], photos, classes))
    for name in frozen:
        net.get_submodule(name).requires_grad_(False)
    assert_same_pairs(captured_pairs(net, layers, photos, classes), expected)


def test_a_layer_without_part_in_the_score_gets_zeros_beside_one_that_has(cnn, photos):
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.other = cnn, copy.deepcopy(cnn.stage1)

        def forward(self, x):
            return self.net(x), self.other(self.net.stem(x)).mean((2, 3))

    raw = CAM(TwoHeads(), "hirescam", ["net.stage2", "other"], output=0)(photos, 1).raw
    assert raw["hirescam", "net.stage2"].max() > 0
    assert raw["hirescam", "other"].abs().max() == 0


def test_a_score_that_no_layer_has_a_part_in_is_an_error_that_says_so(cnn, photos):
    with pytest.raises(RuntimeError, match=r"no gradient with respect to 'stage2'.* such as eigencam"):
        CAM(cnn, "gradcam", "stage2")(photos, lambda outputs: outputs.detach().sum(1))


def test_images_are_not_changed_by_a_model_that_normalises_in_place(cnn, photos):
    class Normalising(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = cnn

        def forward(self, x):
            return self.net(x.sub_(0.5))

    expected = CAM(cnn, LINEAR, "stage2")(photos - 0.5, 1)
    for methods in (LINEAR, "eigencam"):
        images = photos.clone()
        result = CAM(Normalising(), methods, "net.stage2")(images, 1)
        torch.testing.assert_close(images, photos, rtol=0, atol=0)
        if methods == LINEAR:
            for method in LINEAR:
                ours, theirs = result.raw[method, "net.stage2"], expected.raw[method, "stage2"]
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("methods", [LINEAR, "eigencam"], ids=["gradients", "gradient-free"])
def test_a_layer_that_returns_its_own_input_is_captured_as_it_was_then(methods, cnn, photos):
    class Skipping(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.mark = cnn, nn.Identity()

        def forward(self, x):
            x = self.net.stem(x)
            y = self.net.stage2(self.net.residual(self.net.stage1(self.mark(x))))
            x.mul_(-1)  # the skip connection, changed in place long after the layer ran
            return self.net.head(y.mean((2, 3))) + x.mean()

    raw = CAM(Skipping(), methods, "mark")(photos, 1, outputs=True).raw
    expected = CAM(cnn, methods, "stem")(photos, 1, outputs=True).raw
    for method, layer in expected:
        torch.testing.assert_close(raw[method, "mark"], expected[method, layer], rtol=1e-4, atol=1e-5)


def test_images_that_require_grad_get_none(cnn, photos):
    images = photos.clone().requires_grad_()
    CAM(cnn, ONE_PASS, LAYERS)(images, 1)
    assert images.grad is None
    assert images.requires_grad


def test_tuples_and_dictionaries_are_captured_inside(cnn, photos):
    class Wrapped(nn.Module):
        def __init__(self, layer, wrap):
            super().__init__()
            self.layer, self.wrap = layer, wrap

        def forward(self, x):
            return self.wrap(self.layer(x))

    expected = CAM(cnn, LINEAR, "stage1")(photos, 1)
    for wrap, unwrap in [
        (lambda y: ("name", y, None), lambda out: out[1]),
        (lambda y: {"scale": 2, "maps": [y]}, lambda out: out["maps"][0]),
    ]:
        net = copy.deepcopy(cnn)
        net.stage1 = Wrapped(net.stage1, wrap)
        stage1 = net.stage1
        net.residual = nn.Sequential(Wrapped(nn.Identity(), unwrap), net.residual)
        result = CAM(net, LINEAR, stage1)(photos, 1)
        assert_same_maps(result, expected)


# --- no trace ---


def hook_tables(model):
    return {
        (name, table): list(getattr(module, table).items())
        for name, module in model.named_modules()
        for table in vars(module)
        if "hooks" in table and hasattr(getattr(module, table), "items")
    }


def snapshot(model):
    """Everything a look could leave behind, in a form that compares exactly."""
    return {
        "training": {name: module.training for name, module in model.named_modules()},
        "hooks": hook_tables(model),
        "attributes": {name: sorted(vars(module)) for name, module in model.named_modules()},
        "values": {k: v.detach().clone() for k, v in [*model.named_parameters(), *model.named_buffers()]},
        "identity": {k: id(v) for k, v in [*model.named_parameters(), *model.named_buffers()]},
        "grad": {k: None if p.grad is None else p.grad.clone() for k, p in model.named_parameters()},
        "requires_grad": {k: p.requires_grad for k, p in model.named_parameters()},
        "parameter versions": {k: p._version for k, p in model.named_parameters()},
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),
        "python": random.getstate(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
    }


def assert_unchanged(before, after):
    for part in before:
        if part in ("values", "grad"):
            assert before[part].keys() == after[part].keys(), part
            for name, old in before[part].items():
                new = after[part][name]
                same = new is None if old is None else new is not None and torch.equal(old, new)
                assert same, f"{part} of {name} changed"
        elif part == "torch":
            assert torch.equal(before[part], after[part]), "torch's random state moved"
        elif part == "numpy":
            assert all(np.array_equal(a, b) for a, b in zip(before[part], after[part], strict=True)), "numpy's moved"
        else:
            assert before[part] == after[part], f"{part} changed"


class Restless(nn.Module):
    """A layer that draws from every random stream and counts its calls in a buffer, in eval mode too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(16))

    def forward(self, x):
        self.calls += 1
        self.mean.mul_(0.9).add_(x.detach().mean((0, 2, 3)))
        noise = torch.rand(()).item() + np.random.rand() + random.random()
        return x * (1 + 1e-3 * noise)


@pytest.fixture
def busy_net(make_cnn, photos):
    """In the middle of a training: mixed modes, gradients, frozen parts, hooks, spectral norms, buffers that move."""
    net = make_cnn(dropout=0.5)
    net.residual = nn.Sequential(net.residual, Restless())
    net.head = nn.utils.parametrizations.spectral_norm(net.head)
    net.stage2[0] = nn.utils.spectral_norm(net.stage2[0])
    net.train()
    net.stage1.eval()
    net.residual[0].bn2.eval()
    net.stem.requires_grad_(False)
    net.register_forward_hook(lambda *_: None)
    net.stage2[1].register_forward_pre_hook(lambda *_: None)
    net.head.weight.register_hook(lambda gradient: gradient)
    net.stage2.register_state_dict_pre_hook(lambda *_: None)
    net(photos).sum().backward()
    return net


CALLS = {
    "gradients": lambda net, x: CAM(net, ONE_PASS, ["stage1", "residual", "stage2"])(x, 1),
    "gradient-free": lambda net, x: CAM(net, "eigencam", ["stage1", "stage2"])(x),
    "stopped early": lambda net, x: [cam(x) for cam in [CAM(net, "eigencam", "stage1")] for _ in range(2)],
    "whole forward": lambda net, x: CAM(net, "eigencam", "stage1")(x, outputs=True),
    "auto": lambda net, x: CAM(net, ONE_PASS)(x),
    "available_layers": available_layers,
}


@pytest.mark.parametrize("context", [contextlib.nullcontext, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("call", CALLS)
def test_no_trace(call, context, busy_net, photos):
    with context():
        before = snapshot(busy_net)
        CALLS[call](busy_net, photos)
        assert_unchanged(before, snapshot(busy_net))


class Anchored(nn.Module):
    """A head that keeps what it computed for the last size of image, as detectors keep their anchors."""

    def __init__(self, net):
        super().__init__()
        self.net, self.scale, self.size = net, None, None
        self.register_buffer("shift", None)

    def forward(self, x):
        scores = self.net(x)
        if self.size != x.shape[2:]:
            self.size = x.shape[2:]
            self.scale, self.shift = torch.arange(1.0, 1 + scores.shape[1]), scores.new_ones(scores.shape[1])
        return scores * self.scale * self.shift


def test_what_a_forward_in_inference_mode_left_in_the_model_is_no_obstacle(make_cnn, photos):
    net = Anchored(make_cnn())
    with torch.inference_mode():
        net(photos)
    scale, shift = net.scale, net.shift
    assert scale.is_inference() and shift.is_inference()
    expected = CAM(make_cnn(), "gradcam", "stage1")(photos, 2).raw["gradcam", "stage1"] * 3
    torch.testing.assert_close(CAM(net, "gradcam", "net.stage1")(photos, 2).raw["gradcam", "net.stage1"], expected)
    assert list(CAM(net).resolve(photos)) == ["net.stage2"]
    assert net.scale is scale and net.shift is shift
    CAM(net, "gradcam", "net.stage1")(photos[:, :, :40], 2)
    assert net.scale is not scale and not net.scale.is_inference()  # what the model made for another size stays


class Breaks(nn.Module):
    def forward(self, x):
        raise ArithmeticError("in the middle")


@pytest.mark.parametrize("call", CALLS)
def test_no_trace_when_the_forward_raises(call, busy_net, photos):
    busy_net.pool = Breaks()
    before = snapshot(busy_net)
    with pytest.raises(ArithmeticError, match="in the middle"):
        CALLS[call](busy_net, photos)
    assert_unchanged(before, snapshot(busy_net))


def raising_target(outputs):
    raise ArithmeticError("in the target")


@pytest.mark.parametrize(
    ("targets", "error"),
    [(raising_target, ArithmeticError), ([1, 2], ValueError), (99, ValueError), (lambda out: out, ValueError)],
    ids=["raises", "batch", "class", "shape"],
)
def test_no_trace_when_the_target_fails(targets, error, busy_net, photos):
    before = snapshot(busy_net)
    for _ in range(2):
        with pytest.raises(error):
            CAM(busy_net, ONE_PASS, ["stage1", "stage2"])(photos, targets)
    assert_unchanged(before, snapshot(busy_net))


def test_no_trace_when_a_layer_has_no_grid(busy_net, photos):
    before = snapshot(busy_net)
    with pytest.raises(ValueError, match="head"):
        CAM(busy_net, ONE_PASS, ["stage1", "head"])(photos, 1)
    assert_unchanged(before, snapshot(busy_net))


@pytest.mark.parametrize(
    "buffer", [torch.arange(6.0)[::2], torch.arange(5.0)[1:], torch.ones(3, dtype=torch.bool), torch.tensor(2.0)]
)
def test_a_buffer_that_the_forward_writes_to_is_put_back_however_it_lies(cnn, photos, buffer):
    before = buffer.clone()
    cnn.register_buffer("kept", buffer)

    def write(*_):
        buffer.zero_()

    handle = cnn.register_forward_pre_hook(write)
    CAM(cnn, "gradcam", progress=False)(photos, 1)
    handle.remove()
    assert cnn.kept is buffer and torch.equal(buffer, before)


def test_a_buffer_that_the_forward_assigns_anew_is_put_back(cnn, photos):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = cnn
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x):
            self.seen = self.seen + len(x)
            return self.net(x)

    net = Counting()
    before = snapshot(net)
    CAM(net, ONE_PASS, "net.stage2")(photos, 1)
    assert_unchanged(before, snapshot(net))


def test_a_target_that_draws_random_numbers_leaves_the_streams_alone(cnn, photos):
    before = snapshot(cnn)
    CAM(cnn, "gradcam", "stage2")(photos, lambda outputs: outputs[:, 0] * (1 + torch.rand(len(outputs))))
    assert_unchanged(before, snapshot(cnn))


def test_gradient_hooks_of_parameters_do_not_fire(cnn, photos):
    fired = []
    for p in cnn.parameters():
        p.register_hook(lambda g: fired.append("gradient"))
        p.register_post_accumulate_grad_hook(lambda p: fired.append("accumulated"))
    CAM(cnn, ONE_PASS, LAYERS)(photos, 1)
    assert not fired
    cnn(photos).sum().backward()
    assert set(fired) == {"gradient", "accumulated"}


def test_gradient_hooks_of_modules_do_not_fire(make_cnn, photos):
    """A user's full backward hook would take the explanation's gradient for the training's."""
    net, fired = make_cnn(inplace=False), []
    net.head.register_full_backward_hook(lambda *_: fired.append("full"))
    net.stage2.register_full_backward_pre_hook(lambda *_: fired.append("pre"))
    CAM(net, ONE_PASS, "stage1")(photos, 1)
    assert not fired


@pytest.mark.parametrize("methods", ["eigencam", ONE_PASS], ids=["gradient-free", "gradients"])
def test_training_with_looks_in_between_gives_the_same_bits(methods, make_cnn, digits):
    images, labels = digits

    def train(look):
        torch.manual_seed(3)
        net = make_cnn(seed=1, channels=1, classes=10, dropout=0.3).train()
        net.head = nn.utils.parametrizations.spectral_norm(net.head)
        net.stem.eval()
        cam = CAM(net, methods, ["stage1", "stage2"])
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        loader = torch.utils.data.DataLoader(list(zip(images, labels, strict=True)), batch_size=50, shuffle=True)
        for batch, target in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(batch), target)
            if look:  # between a forward and its backward: the graph must survive too
                cam(images[:8], labels[:8])
            loss.backward()
            if look:
                cam(images[8:12])
            optimizer.step()
        return net.state_dict(), torch.rand(3)

    (plain, plain_next), (looked_at, looked_at_next) = train(look=False), train(look=True)
    assert not torch.equal(plain["stage1.0.weight"], make_cnn(seed=1, channels=1, classes=10).stage1[0].weight)
    assert plain.keys() == looked_at.keys()
    for name, value in plain.items():
        assert torch.equal(value, looked_at[name]), name
    assert torch.equal(plain_next, looked_at_next)


def test_training_under_autocast_keeps_its_gradients(cnn, photos):
    """Weights cast under no_grad must not stay in autocast's cache, or the training's next forward finds no graph."""

    def grads(look):
        net = copy.deepcopy(cnn)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if look:
                CAM(net, ONE_PASS, "stage2")(photos, 1)
            net(photos).float().logsumexp(1).sum().backward()
        return {name: p.grad for name, p in net.named_parameters()}

    plain, looked_at = grads(look=False), grads(look=True)
    for name, gradient in plain.items():
        assert gradient is not None
        assert looked_at[name] is not None, name
        assert torch.equal(gradient, looked_at[name]), name


# --- what it costs ---


class CountBackward(torch.autograd.Function):
    fired = 0

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        CountBackward.fired += 1
        return gradient


class Counter(nn.Module):
    """Passes on what it gets, and counts forwards and backwards."""

    def __init__(self):
        super().__init__()
        self.forwards = 0

    def forward(self, x):
        self.forwards += 1
        return CountBackward.apply(x)


@pytest.fixture
def counted(make_cnn):
    net = make_cnn()
    net.stage1.append(Counter())
    net.pool = nn.Sequential(net.pool, Counter())
    CountBackward.fired = 0
    return net


def test_all_methods_and_layers_take_one_forward_and_one_gradient_call(counted, photos):
    forwards = []
    counted.register_forward_pre_hook(lambda *_: forwards.append(1))
    CAM(counted, available_methods()[:7], ["stem", "stage1", "residual", "stage2"])(photos, torch.arange(8) % 5)
    assert len(forwards) == 1
    assert counted.pool[1].forwards == 1
    assert counted.stage1[3].forwards == 1
    assert CountBackward.fired == 2  # once for each of the two counters on the path


def test_gradient_free_stops_at_the_last_layer_from_the_second_call_on(counted, photos):
    cam = CAM(counted, "eigencam", ["stem", "residual"])
    results = [cam(photos)]
    assert counted.pool[1].forwards == 1  # the first call learns which call of a layer is its last
    results += [cam(photos[:n]) for n in (8, 3)]
    assert counted.pool[1].forwards == 1
    assert counted.stage1[3].forwards == 3
    assert CountBackward.fired == 0
    for result in results:
        assert result.outputs is None
        assert result.scores is None
    for layer in ("stem", "residual"):
        first, second, third = (r.raw["eigencam", layer] for r in results)
        torch.testing.assert_close(first, second)
        torch.testing.assert_close(first[:3], third, rtol=1e-4, atol=1e-4)


def test_gradient_free_runs_to_the_end_when_outputs_are_wanted(counted, photos):
    cam = CAM(counted, "eigencam", "residual")
    cam(photos)
    result = cam(photos, 2, outputs=True)
    assert counted.pool[1].forwards == 2
    expected = counted(photos)
    torch.testing.assert_close(result.outputs, expected)
    torch.testing.assert_close(result.scores, expected[:, 2])


def saved_storages(call):
    """Storages of all tensors that autograd kept for a backward during ``call``."""
    seen = set()

    def pack(tensor):
        seen.add(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    return seen


def test_nothing_upstream_of_the_first_layer_is_recorded(cnn, photos):
    def weights(*names):
        return {p.untyped_storage().data_ptr() for n in names for p in cnn.get_submodule(n).parameters()}

    seen = saved_storages(lambda: CAM(cnn, ONE_PASS, ["residual", "stage2"])(photos, 1))
    assert not seen & weights("stem", "stage1", "residual")
    assert cnn.stage2[0].weight.untyped_storage().data_ptr() in seen
    everything = saved_storages(lambda: cnn(photos))
    assert cnn.stage1[0].weight.untyped_storage().data_ptr() in everything  # or the check above would be empty


def test_the_first_layer_is_a_leaf_and_the_next_stays_in_its_graph(cnn, photos):
    targets = [Tap(name, cnn.get_submodule(name), lambda _: ()) for name in ("residual", "stage2")]
    captured = capture(cnn, photos, targets, record="from_layer")
    assert captured.activations["residual"].grad_fn is None
    assert captured.activations["residual"].requires_grad
    assert captured.activations["stage2"].grad_fn is not None


def test_a_gradient_free_call_records_nothing(cnn, photos):
    assert not saved_storages(lambda: CAM(cnn, "eigencam", LAYERS)(photos, outputs=True))


# --- torch.compile ---


class Inner(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


def compiled_in_place(net):
    net.compile(backend="eager")
    return net


COMPILED = {
    "whole": (lambda net: torch.compile(net, backend="eager"), ""),
    "inner": (lambda net: Inner(torch.compile(net, backend="eager")), "net."),
    "inside": (lambda net: torch.compile(Inner(net), backend="eager"), "net."),
    "in place": (compiled_in_place, ""),
    "in place inside": (lambda net: Inner(compiled_in_place(net)), "net."),
}


@pytest.mark.parametrize("warm", [True, False], ids=["after a forward", "never run"])
@pytest.mark.parametrize("how", COMPILED)
def test_compiled_models(how, warm, make_cnn, photos):
    plain = make_cnn()
    wrap, prefix = COMPILED[how]
    net = wrap(make_cnn())
    if warm:
        net(photos)
    expected = CAM(plain, ONE_PASS, ["stage1", "stage2"])(photos, 1)
    cam = CAM(net, ONE_PASS, [f"{prefix}stage1", f"{prefix}stage2"])
    for result in (cam(photos, 1), cam(photos, 1)):
        assert list(result.layers) == [f"{prefix}stage1", f"{prefix}stage2"]
        for (method, layer), reference in expected.raw.items():
            torch.testing.assert_close(result.raw[method, prefix + layer], reference, rtol=1e-4, atol=1e-4)
    stopping = CAM(net, "eigencam", f"{prefix}stage1")
    for _ in range(2):
        ours, theirs = stopping(photos).raw["eigencam", f"{prefix}stage1"], expected.raw["eigencam", "stage1"]
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert CAM(net, "gradcam", "auto")(photos).layers == (f"{prefix}stage2",)


@pytest.mark.parametrize("how", COMPILED)
def test_names_hide_the_compiled_wrapper(how, make_cnn, photos):
    wrap, prefix = COMPILED[how]
    net = wrap(make_cnn())
    expected = {prefix + info.name for info in available_layers(make_cnn(), photos)}
    assert expected <= {info.name for info in available_layers(net, photos)} <= expected | {"net"}
    with pytest.raises(KeyError) as error:
        CAM(net, "gradcam", f"{prefix}stage11")(photos)
    assert f"{prefix}stage1" in str(error.value)
    assert "_orig_mod" not in str(error.value)


def test_a_look_at_a_compiled_model_does_not_make_it_compile_again(make_cnn, photos):
    graphs = []

    def backend(module, _example_inputs):
        graphs.append(module)
        return module.forward

    net = torch.compile(make_cnn().train(), backend=backend)
    net(photos)
    compiled = len(graphs)
    assert compiled > 0
    CAM(net, ONE_PASS, ["stage1", "stage2"])(photos, 1)
    net(photos)
    assert len(graphs) == compiled


def test_one_call_may_have_a_forward_of_its_own():
    """Variants of images come side by side, so that what belongs to an image can be repeated with it."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    images, beside = torch.rand(3, 1, 8, 8), torch.tensor([1.0, -2.0, 3.0])
    counts = []

    def forward(model, given):
        counts.append(len(given))
        rows = torch.arange(3).repeat_interleave(len(given) // 3) if len(given) % 3 == 0 else torch.arange(len(given))
        close = [(given[i] - images[r]).abs().max() <= 1 for i, r in enumerate(rows.tolist())]
        assert all(close)
        return model(given) * beside[rows][:, None]

    cam = CAM(net, ["gradcam", "scorecam", "ablationcam"], "1", batch_size=6)
    plain = cam(images, 1)
    scaled = cam(images, 1, forward=forward)
    assert max(counts) > 3
    torch.testing.assert_close(scaled.scores, plain.scores * beside)
    assert torch.equal(cam(images, 1).scores, plain.scores)
