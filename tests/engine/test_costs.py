"""What a look costs, counted: forwards, gradient calls, images in a batch, waits for the device. Never wall-clock time."""

import contextlib
import io
import subprocess
import sys

import pytest
import torch
from methods_by_hand import ONE_PASS
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm import tqdm

from cam_engine import CAM, available_methods
from cam_engine.capture import Tap, capture
from cam_engine.methods import get_method
from cam_engine.methods.needs import NEEDS

WEIGHTED = ("gradcam", "gradcam++", "xgradcam", "hirescam", "layercam")
STAGES = ["stem", "stage1", "residual", "stage2", "pool", "head"]
RESCORING = {"scorecam", "ablationcam"}


@pytest.fixture
def ran():
    """``ran(net)``: a list that fills with (stage, images in its batch, recorded?) whenever a stage of net runs."""
    handles = []

    def watch(net, names=STAGES):
        calls = []
        for name in names:

            def note(_module, inputs, name=name):
                calls.append((name, len(inputs[0]), torch.is_grad_enabled()))

            handles.append(net.get_submodule(name).register_forward_pre_hook(note))
        return calls

    yield watch
    for handle in handles:
        handle.remove()


@pytest.fixture
def gradient_calls(monkeypatch):
    """One entry for every call of torch.autograd.grad; backward is forbidden."""
    calls, real = [], torch.autograd.grad

    def counted(*args, **kwargs):
        calls.append(1)
        return real(*args, **kwargs)

    def forbidden(*args, **kwargs):
        raise AssertionError("the engine never calls backward")

    monkeypatch.setattr(torch.autograd, "grad", counted)
    monkeypatch.setattr(torch.autograd, "backward", forbidden)
    monkeypatch.setattr(torch.Tensor, "backward", forbidden)
    return calls


# --- one forward, one gradient call ---


@pytest.mark.parametrize("layers", ["stage2", ["stem", "residual", "stage2"]])
@pytest.mark.parametrize("targets", [None, 1, [0, 1, 2, 3, 4, 0, 1, 2]])
def test_methods_of_gradients_take_one_forward_and_one_gradient_call(layers, targets, cnn, photos, ran, gradient_calls):
    calls = ran(cnn)
    result = CAM(cnn, ONE_PASS, layers)(photos, targets)
    for method in ONE_PASS:
        assert result[method].shape == (8, 48, 48)
    assert [name for name, _, _ in calls] == STAGES
    assert len(gradient_calls) == 1


def test_gradient_free_methods_take_no_gradient_call(cnn, photos, gradient_calls):
    CAM(cnn, ["eigencam", "fem", "kpcacam", "scorecam", "ablationcam"], "stage2", progress=False)(photos, 1)
    assert not gradient_calls


@pytest.mark.parametrize("repeats", [1, 3])
def test_every_call_costs_the_same(repeats, cnn, photos, ran, gradient_calls):
    calls, cam = ran(cnn), CAM(cnn, ONE_PASS, "stage2")
    for _ in range(repeats):
        cam(photos, 1)
    assert len(calls) == repeats * len(STAGES)
    assert len(gradient_calls) == repeats


@pytest.mark.parametrize("method", available_methods())
def test_a_method_costs_what_its_needs_say(method, cnn, photos, ran, gradient_calls):
    """Whole forwards over the batch, and gradient calls; from the second call on, when a layer's calls are known."""
    needs = [NEEDS[name] for name in get_method(method).needs]
    cam, calls = CAM(cnn, method, "stage2", progress=False), ran(cnn, ["head"])
    cam(photos, 1)
    calls.clear(), gradient_calls.clear()
    cam(photos, 1)
    variants = {"exchangecam": 197}.get(method, 24) * any(need.variants for need in needs)  # else one a channel
    whole = int(any(need.score for need in needs))
    assert sum(count for _, count, _ in calls) == (whole + sum(n.forwards for n in needs) + variants) * len(photos)
    assert len(gradient_calls) == sum(need.gradient_calls for need in needs)


# --- nothing upstream is recorded ---


@pytest.mark.parametrize("layer", ["stem", "stage1", "stage2"])
def test_nothing_before_the_layer_is_recorded(layer, cnn, photos, ran):
    calls = ran(cnn)
    CAM(cnn, ONE_PASS, layer)(photos, 1)
    recorded = {name: on for name, _, on in calls}
    until = STAGES.index(layer)
    assert recorded == {name: i > until for i, name in enumerate(STAGES)}


def test_the_graph_keeps_no_tensor_from_before_the_layer(cnn, photos):
    """The layer's output is a leaf, and what autograd saves is no larger than what comes behind it."""
    saved = []

    def pack(tensor):
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        captured = capture(cnn, photos, [Tap("stage2", cnn.stage2, lambda _: ())], record="from_layer")
    activation = captured.activations["stage2"]
    assert activation.is_leaf and activation.requires_grad
    head = {cnn.head.weight.numel(), cnn.head.weight.shape[1] * len(photos)}
    assert saved and all(size in head or size <= activation.numel() for size in saved)
    assert sum(saved) < 3 * activation.numel()


# --- a gradient-free call ends at its last layer ---


@pytest.mark.parametrize(("layers", "last"), [("stage1", "stage1"), (["residual", "stem"], "residual")])
def test_a_gradient_free_call_stops_at_its_last_layer(layers, last, cnn, photos, ran):
    cam, calls = CAM(cnn, ["eigencam", "fem"], layers), ran(cnn)
    first = cam(photos)
    assert [name for name, _, _ in calls] == STAGES, "whether a layer runs again later takes one whole forward to know"
    for _ in range(2):
        calls.clear()
        later = cam(photos)
        assert [name for name, _, _ in calls] == STAGES[: STAGES.index(last) + 1]
        assert later.outputs is None and later.scores is None
    for key, expected in first.raw.items():
        torch.testing.assert_close(later.raw[key], expected)


def test_a_gradient_free_call_runs_on_where_outputs_are_asked_for(cnn, photos, ran):
    cam, calls = CAM(cnn, "eigencam", "stage1"), ran(cnn)
    cam(photos)
    calls.clear()
    assert cam(photos, outputs=True).outputs.shape == (8, 5)
    assert [name for name, _, _ in calls] == STAGES


def test_a_stop_waits_for_the_last_call_of_a_layer(photos, make_cnn, ran):
    """The residual block's ReLU runs twice: the second call counts, and is waited for."""
    net = make_cnn(inplace=False)
    cam, calls = CAM(net, "eigencam", "residual.relu"), ran(net)
    first = cam(photos)
    calls.clear()
    torch.testing.assert_close(cam(photos).raw["eigencam", "residual.relu"], first.raw["eigencam", "residual.relu"])
    assert [name for name, _, _ in calls] == ["stem", "stage1", "residual"]


# --- bounded batches ---


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 7, 32])
@pytest.mark.parametrize("method", sorted(RESCORING))
def test_scoring_variants_keeps_to_the_batch_size(method, batch_size, images, cnn, photos, ran):
    calls = ran(cnn)
    result = CAM(cnn, method, "stage1", batch_size=batch_size, progress=False)(photos[:images], 1)
    assert max(count for _, count, _ in calls) <= max(batch_size, images, 3), "3: see Rescorer._replay"
    scored = sum(count for name, count, _ in calls[len(STAGES) :] if name == "head")
    assert scored == images * 16, "one score for each image and channel"
    expected = CAM(cnn, method, "stage1", batch_size=16 * images, progress=False)(photos[:images], 1)
    torch.testing.assert_close(result.raw[method, "stage1"], expected.raw[method, "stage1"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("progress", "terminal"), [(True, True), (True, False), (False, True)])
def test_scoring_variants_shows_a_bar_on_a_terminal(progress, terminal, cnn, photos, monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(written, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr("sys.stderr", written)
    monkeypatch.setattr("cam_engine.rescoring.tqdm", lambda *args, **kwargs: tqdm(*args, **kwargs | {"delay": 0}))
    CAM(cnn, "scorecam", "stage1", progress=progress)(photos[:2], 1)
    assert ("batch/s" in written.getvalue()) == (progress and terminal)


def test_scoring_variants_records_nothing(cnn, photos, ran):
    calls = ran(cnn)
    CAM(cnn, sorted(RESCORING), "stage1", progress=False)(photos[:2], 1)
    assert not any(recorded for _, _, recorded in calls)


class Views(nn.Module):
    """Takes a view of its activations, which fails unless they lie contiguously, or copies them."""

    def __init__(self, copies):
        super().__init__()
        self.copies, self.layouts = copies, []
        self.layer, self.head = nn.Conv2d(3, 6, 3, stride=4, padding=1), nn.Linear(6 * 144, 4)

    def forward(self, x):
        self.layouts.append(x.is_contiguous())
        x = self.layer(x).tanh()
        return self.head(x.flatten(1) if self.copies else x.view(len(x), -1))


@pytest.mark.parametrize("method", ["scorecam", "smoothgradcam++"])
def test_variants_have_channels_last_on_a_cpu_unless_the_model_needs_them_contiguous(method, photos):
    copying, viewing = Views(copies=True), Views(copies=False)
    viewing.load_state_dict(copying.state_dict())
    expected, found = (
        CAM(net, method, "layer", progress=False)(photos[:2].contiguous(), 1) for net in (copying, viewing)
    )
    torch.testing.assert_close(found[method], expected[method], atol=1e-5, rtol=1e-5)
    # the image as it is, then its variants; the viewing model is asked once more for the one that failed
    assert copying.layouts[0] and not any(copying.layouts[1:])
    assert viewing.layouts[1] is False and all(viewing.layouts[2:])
    assert len(viewing.layouts) == len(copying.layouts) + 1


# --- running on from the layer ---


def test_ablation_runs_the_layers_before_its_own_on_a_few_images_only(cnn, photos, ran):
    calls = ran(cnn)
    CAM(cnn, "ablationcam", "residual", batch_size=32, progress=False)(photos, 1)
    replayed = calls[len(STAGES) :]
    assert {count for name, count, _ in replayed if name in ("stem", "stage1", "residual")} <= {2, 3}
    assert {count for name, count, _ in replayed if name in ("stage2", "pool", "head")} == {32}


def test_ablation_of_a_model_that_views_contiguous_tensors_still_skips_the_layers_before(photos):
    copying, viewing = Views(copies=True), Views(copies=False)
    viewing.load_state_dict(copying.state_dict())
    images, before = photos[:2].contiguous(), []
    viewing.layer.register_forward_pre_hook(lambda _, given: before.append(len(given[0])))
    expected, found = (
        CAM(net, "ablationcam", "layer", batch_size=8, progress=False)(images, 1) for net in (copying, viewing)
    )
    torch.testing.assert_close(found["ablationcam"], expected["ablationcam"], atol=1e-5, rtol=1e-5)
    assert before[0] == 2 and len(before) == 4  # the images; two chunks of variants, the first of them once more
    assert set(before[1:]) <= {2, 3}


class Skips(nn.Module):
    """Something passes by the layer, as in a U-Net: joined behind it by concatenation or by addition."""

    def __init__(self, join):
        super().__init__()
        self.join = join
        self.stem, self.layer = nn.Conv2d(3, 6, 3, stride=4, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.act, self.head = nn.Tanh(), nn.Linear(12 if join == "cat" else 6, 4)

    def forward(self, x):
        low = self.act(self.stem(x))
        high = self.act(self.layer(low))
        both = torch.cat([high, low], 1) if self.join == "cat" else high * (1 + low)
        return self.head(both.square().mean((2, 3)))


@pytest.mark.parametrize("batch_size", [2, 5, 32])
@pytest.mark.parametrize("images", [1, 2, 3, 4])
@pytest.mark.parametrize("join", ["cat", "add"])
def test_a_skip_around_the_layer_is_given_its_own_images(join, images, batch_size, photos):
    """A replaced activation may not be joined with another image's: against one plain forward for each channel."""
    net, batch = Skips(join).eval(), photos[:images]
    result = CAM(net, "ablationcam", "layer", batch_size=batch_size, progress=False)(batch, 2)
    weights = []
    with torch.no_grad():
        score, kept = net(batch)[:, 2], []
        net.layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
        net(batch)
        for channel in range(6):

            def without(_module, _inputs, output, channel=channel):
                output = output.clone()
                output[:, channel] = 0
                return output

            handle = net.layer.register_forward_hook(without)
            weights.append((score - net(batch)[:, 2]) / score.abs())
            handle.remove()
        expected = (torch.stack(weights, 1)[:, :, None, None] * kept[0]).sum(1).relu()
    assert expected.max() > 0
    torch.testing.assert_close(result.raw["ablationcam", "layer"], expected, rtol=1e-3, atol=1e-5)


# --- no copy to the host, no wait for the device ---


@pytest.fixture
def meta(monkeypatch):
    """The device whose tensors hold no values: whatever asks for one, by .item(), bool(), .cpu() or .numpy(), raises.

    Autocast does not know it, and is taken out.
    """
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    return torch.device("meta")


@pytest.mark.parametrize("read", ["item", "cpu", "numpy", "tolist", "__bool__", "__float__", "__int__"])
def test_the_meta_device_is_not_blind(read, make_cnn, meta):
    score = make_cnn().to(meta)(torch.empty(4, 3, 64, 64, device=meta)).detach().sum()
    with pytest.raises((RuntimeError, TypeError)):
        getattr(score, read)()


@pytest.mark.parametrize("targets", [None, 1, [0, 1, 2, 3]], ids=str)
@pytest.mark.parametrize("method", available_methods())
def test_nothing_is_copied_to_the_host(method, targets, make_cnn, meta):
    net = make_cnn().to(meta)
    images = torch.empty(4, 3, 64, 64, device=meta)
    result = CAM(net, method, ["stage1", "stage2"] if method != "cam" else "stage2")(images, targets)
    assert result[method].device.type == "meta"
    assert result.valid[method].device.type == "meta"


@pytest.mark.parametrize("component", [0, 2])
def test_a_large_decomposition_is_not_waited_for_either(component, meta):
    """A matrix too large for a direct decomposition is iterated a fixed number of rounds away from the CPU."""
    net = nn.Sequential(nn.Conv2d(3, 128, 3), nn.ReLU()).to(meta)
    images = torch.empty(2, 3, 64, 64, device=meta)
    cam = CAM(net, "eigencam", "0", component=component)
    assert cam(images)["eigencam"].shape == (2, 64, 64)


class Waits(TorchDispatchMode):
    """Counts the operations that read a floating-point tensor's value into Python; targets are the caller's own integers."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        reads = function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default)
        if reads and args[0].dtype != torch.int64:
            self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("targets", [None, 1], ids=str)
@pytest.mark.parametrize("method", WEIGHTED)
def test_no_value_is_read_on_the_cpu_either(method, targets, cnn, photos):
    with Waits() as waits:
        CAM(cnn, method, "stage2")(photos, targets)[method]
    assert not waits.seen


def test_the_count_of_waits_is_not_blind(cnn, photos):
    with Waits() as waits:
        float(cnn(photos).detach().sum())
    assert waits.seen


def test_a_look_never_imports_the_compiler():
    """torch.compiler.set_stance takes seconds the first time; only where something can be compiled is it called."""
    code = (
        "import sys, torch; from cam_engine import CAM;"
        "net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.LazyLinear(2));"
        "x = torch.rand(2, 3, 8, 8); net(x); CAM(net, 'gradcam', '0')(x)['gradcam'];"
        "print([m for m in ('torch._dynamo', 'cv2', 'matplotlib', 'torchvision', 'lightning', 'mlflow') if m in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
