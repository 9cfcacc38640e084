"""State outside of parameters and buffers, or changed behind torch's back: it ends as without the callback."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from watched import Module, Watcher, convolutions, watching

from cam_callbacks import CAMMonitor, ProbeSet

GRADIENTS: list[float] = []
CALLS = 0


class Behind(nn.Module):
    """Buffers changed in ways that no version counter tells."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("through_data", torch.zeros(2))
        self.register_buffer("through_numpy", torch.zeros(2))
        self.register_buffer("grown", torch.zeros(0))
        self.register_buffer("replaced", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.through_data.data += x.detach().mean()
        self.through_numpy.numpy()[0] += 1
        self.grown.data.resize_(len(self.grown) + 1).fill_(float(len(self.grown)))
        self.replaced.data = self.replaced.data + 1
        shift = self.through_data[0] + self.through_numpy[0] + self.grown.sum() + self.replaced[0]
        return x * (1 + 0.01 * torch.sin(shift))


class Attributes(nn.Module):
    """Plain attributes that each call moves, and that its output depends on."""

    of_the_class = 0

    def __init__(self) -> None:
        super().__init__()
        self.count, self.log, self.seen, self.kinds = 0, [0.0], {}, set()
        self.average, self.in_place, self.array = torch.zeros(()), torch.zeros(3), np.zeros(3)
        self.nested = {"steps": [0]}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        global CALLS
        CALLS += 1
        Attributes.of_the_class += 1
        self.count += 1
        self.log.append(float(x.detach().mean()))
        self.seen[len(x)] = self.count
        self.kinds.add(self.count % 7)
        self.average = 0.9 * self.average + 0.1 * x.detach().mean()
        self.in_place += 0.1
        self.array += 0.1
        self.nested["steps"][0] += 1
        self.late = self.count
        return x * (1 + 0.01 * np.sin(self.count + len(self.log)) + 0.1 * self.average + 0.001 * self.in_place[0])

    def elsewhere(self) -> Any:
        return (self.count, self.log, self.seen, self.kinds, self.average.item(), self.in_place.tolist(),
                self.array.tolist(), self.nested, self.late)  # fmt: skip


class Generators(nn.Module):
    """Random numbers of the module's own."""

    def __init__(self) -> None:
        super().__init__()
        self.torch, self.numpy, self.python = (
            torch.Generator().manual_seed(1),
            np.random.default_rng(1),
            random.Random(1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        drawn = torch.rand((), generator=self.torch) + float(self.numpy.random()) + self.python.random()
        return x * (1 + 0.01 * drawn)


class Recorder:
    """A hook with a state, which changes what passes."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return output * (1 + 0.01 * np.sin(self.calls))


def with_hooks() -> Module:
    module = Module(convolutions())
    before = [0]

    def hook(_: nn.Module, inputs: Any) -> Any:
        before[0] += 1
        return (inputs[0] * (1 + 0.01 * np.cos(before[0])),)

    recorder = Recorder()
    module.net[0].register_forward_hook(recorder)
    module.net[4].register_forward_pre_hook(hook)
    module.elsewhere = lambda: (recorder.calls, list(before))
    return module


class TensorHooks(nn.Module):
    """Gradients that pass are noted by hooks of tensors."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.requires_grad:
            x.register_hook(lambda gradient: GRADIENTS.append(float(gradient.norm())))
        return x * (1 + 0.01 * len(GRADIENTS))


class Constrained(nn.Conv2d):
    """Parameters changed in forward: norms held below a most, each in another way."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.weight.data = torch.renorm(self.weight.data, 2, 0, 0.5)
        self.bias.data.clamp_(-0.01, 0.01)
        with torch.no_grad():
            self.weight.mul_(0.999)
        return super().forward(x)


class Momentum(nn.Module):
    """A slow copy of a layer, moved at each call, as in MoCo."""

    def __init__(self) -> None:
        super().__init__()
        self.fast, self.slow = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for slow, fast in zip(self.slow.parameters(), self.fast.parameters(), strict=True):
            slow.data = slow.data * 0.9 + fast.data * 0.1
        self.slow.bias = nn.Parameter(self.slow.bias.detach() + 0.01, requires_grad=False)
        return self.fast(x) + self.slow(x)


def observed() -> Module:
    """Quantization-aware training: fused observers run in eval mode too."""
    from torch.ao.quantization import get_default_qat_qconfig, prepare_qat

    net = convolutions().train()
    net.qconfig = get_default_qat_qconfig("fbgemm")
    return Module(prepare_qat(net, inplace=True))


def told(layer: nn.Module) -> Module:
    module = Module(convolutions(layer))
    module.elsewhere = layer.elsewhere
    return module


MODELS: dict[str, Callable[[], Module]] = {
    "observers of quantization-aware training": observed,
    "buffers through data and numpy": lambda: Module(convolutions(Behind())),
    "plain attributes": lambda: told(Attributes()),
    "generators of its own": lambda: Module(convolutions(Generators())),
    "forward hooks with a state": with_hooks,
    "hooks of tensors": lambda: Module(convolutions(TensorHooks())),
    "parameters held in forward": lambda: Module(convolutions(last=Constrained(6, 8, 3, 1, 1))),
    "a slow copy moved in forward": lambda: Module(convolutions(Momentum())),
}


def reset() -> None:
    global CALLS
    GRADIENTS.clear()
    CALLS = Attributes.of_the_class = 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", MODELS)
def test_state_elsewhere_ends_as_without(name, tmp_path):
    ends = []
    callback = watching(tmp_path)
    for callbacks in ([callback], []):
        reset()
        ends.append((Watcher(MODELS[name], callbacks), list(GRADIENTS), CALLS, Attributes.of_the_class))
    ends[0][0].assert_equals(ends[1][0])
    assert ends[0][1:] == ends[1][1:] and len(callback.store) == 3


def test_a_hook_of_all_modules_ends_as_without(tmp_path):
    ends = []
    for callbacks in ([watching(tmp_path)], []):
        recorder = Recorder()
        handle = register_module_forward_hook(recorder)
        try:
            ends.append((Watcher(Module, callbacks), recorder.calls))
        finally:
            handle.remove()
    ends[0][0].assert_equals(ends[1][0])
    assert ends[0][1] == ends[1][1]


class SkipByHook(nn.Module):
    """A network whose second half reads what a hook kept of its first, as fastai's U-Net does."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up, self.kept = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 1), []
        self.down.register_forward_hook(lambda module, inputs, output: self.kept.append(output))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.up(self.down(x).relu()) + self.kept.pop())


def probe_of(n: int = 4) -> ProbeSet:
    return ProbeSet(torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(2)), [0, 1, 2, 0])


def test_hooks_that_a_model_needs_run_in_a_look():
    net, probe = SkipByHook().eval(), probe_of()
    record = CAMMonitor(probe, "gradcam").look(net)
    expected = net(probe.images).gather(1, probe.labels[:, None])[:, 0]
    np.testing.assert_allclose(record.scores, expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert net.kept == []


def test_hooks_rest_if_told_to_and_those_that_make_weights_run():
    net, probe, sent = convolutions(), probe_of(), []
    nn.utils.spectral_norm(net[3])
    nn.utils.prune.l1_unstructured(net[0], "weight", 0.5)
    net(probe.images)
    net.eval()
    net[0].register_forward_hook(lambda *_: sent.append(1))
    net[3].register_forward_pre_hook(lambda *_: sent.append(2))
    with torch.no_grad():  # a step of an optimizer: weights are made anew from these
        net[0].weight_orig.mul_(2)
        net[3].weight_orig.mul_(2)
    record = CAMMonitor(probe, "gradcam", hooks="rest").look(net)
    assert sent == []
    expected = net(probe.images).gather(1, probe.labels[:, None])[:, 0].detach()
    np.testing.assert_allclose(record.scores, expected.numpy(), rtol=1e-5, atol=1e-6)
    assert sent == [1, 2]


def test_hooks_run_or_rest():
    with pytest.raises(ValueError, match=r'hooks=\'no\' must be "run" or "rest"'):
        CAMMonitor(probe_of(), hooks="no")
