"""What a look costs in time and memory, and what happens where there is too little of either."""

from __future__ import annotations

import gc
import time
import weakref

import numpy as np
import pytest
import torch
from watched import Notes

from cam_callbacks import CAMCallback, CAMMonitor, ProbeSet
from cam_callbacks.clock import Clock
from cam_callbacks.look.options import LookOptions
from cam_callbacks.watcher import Watcher, WatchOptions
from cam_engine import CAM


@pytest.fixture
def probe(data):
    return ProbeSet(data.tensors[0][:8], data.tensors[1][:8])


def test_out_of_memory_halves_the_batch_and_remembers(probe, net, caplog):
    """A device that holds three images; both of torch's errors."""
    noted = Notes()

    class Device(torch.nn.Module):
        def forward(self, x):
            noted.note(len(x))
            if len(x) > 3:
                raise (
                    torch.OutOfMemoryError("CUDA out of memory")
                    if len(noted.all()) % 2
                    else RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
                )
            return x

    small = CAMMonitor(probe, "gradcam", layers="1.8", batch_size=8)
    record = small.look(torch.nn.Sequential(Device(), net))
    sizes = noted.all()
    assert sizes[:4] == [2, 8, 4, 2] and max(sizes[4:]) == 2  # the first two tell the task and small.batches.size == 2
    assert caplog.text.count("out of memory") == 2
    plain = CAMMonitor(probe, "gradcam", layers="8").look(net)
    np.testing.assert_allclose(record.maps["gradcam", "1.8"], plain.maps["gradcam", "8"], atol=1e-6)


def test_an_image_too_large_by_itself_is_an_error(probe):
    class Device(torch.nn.Module):
        def forward(self, x):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(RuntimeError, match="CUDA out of memory"):
        CAMMonitor(probe, "gradcam").look(torch.nn.Sequential(Device(), torch.nn.Conv2d(3, 3, 1)))


def test_max_overhead_thins_looks_out(fit, monkeypatch):
    """On a clock where a look takes 1 s and an epoch 4 s: a tenth is a look in about ten seconds."""
    now = [0.0]
    monkeypatch.setattr("cam_callbacks.clock.time.perf_counter", lambda: now[0])

    class Timed(CAMCallback):
        def on_train_epoch_start(self, trainer, module):
            now[0] += 4

        def on_validation_batch_start(self, *arguments):
            looks = 0 if self.watcher.monitor is None else self.watcher.monitor.looks
            super().on_validation_batch_start(*arguments)
            now[0] += self.watcher.monitor.looks - looks

    monkeypatch.setattr(Clock, "spend", lambda clock, *_, spend=Clock.spend: spend(clock, 1.0))
    callback = Timed(methods="eigencam", max_overhead=0.1, on_error="raise")
    trainer = fit(callback, epochs=12)
    epochs = [r.epoch for r in callback.store]
    assert epochs[0] == 0 and 4 <= len(epochs) <= 6
    assert all((n + 1) / (4 * (e + 1) + n + 1) <= 0.12 for n, e in enumerate(epochs) if n)
    assert float(trainer.callback_metrics["cam/overhead"]) > 0
    with pytest.raises(ValueError, match="max_overhead=5 is a share"):
        CAMCallback(max_overhead=5)


def test_what_a_look_costs_is_logged(fit):
    trainer = fit(CAMCallback(methods="eigencam"), epochs=2)
    assert float(trainer.callback_metrics["cam/seconds"]) > 0
    assert 0 < float(trainer.callback_metrics["cam/overhead"]) <= 1


def test_delivery_and_the_wait_at_the_end_count_as_costs(probe, net, tmp_path):
    def work():
        until = time.thread_time() + 0.2
        while time.thread_time() < until:
            pass

    class Busy:
        name, address = "busy", None

        def deliver(self, record, drawing):
            work()

        def finish(self, store, drawing):
            work()

    watcher = Watcher("Costs", WatchOptions(LookOptions(methods="gradcam", exchange=[])), probe)
    watcher.begin("run", tmp_path)
    first = watcher.look(net)
    watcher.annotate(first, {}, lambda: [Busy()])
    deadline = time.monotonic() + 60
    while not watcher._delivery.seconds:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    second = watcher.look(net)
    looks = first.seconds + second.seconds
    assert watcher._clock.spent >= looks + 0.2
    assert second.metrics["cam/overhead"] > 0
    watcher.annotate(second, {})
    watcher.close()
    assert watcher._clock.spent >= looks + 0.5  # a second look's delivery, and the run's summary


def test_a_strategy_that_is_not_looked_at_is_left_alone(fit, pl, monkeypatch):
    """Its place is taken by one of the same name on one process: the real one needs a TPU."""
    from pytorch_lightning.strategies import SingleDeviceStrategy

    class XLAStrategy(SingleDeviceStrategy):
        pass

    stop = pl("pytorch_lightning").callbacks.EarlyStopping("cam/entropy/gradcam", patience=50)
    callback = CAMCallback()
    with pytest.warns(UserWarning, match="does not look in this training: under XLAStrategy") as caught:
        trainer = fit(stop, callback, epochs=2, strategy=XLAStrategy(torch.device("cpu")))
    assert trainer.current_epoch == 2 and callback.store is None and callback.failed_looks == 0
    assert sum("does not look" in str(w.message) for w in caught) == 1


def test_images_stream_through(net):
    """At no time is there a tensor, beside the probe's own, of all images: neither for the noise floor nor for exchange tests."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = [0]

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            answer = func(*args, **kwargs or {})
            made = [t for t in torch.utils._pytree.tree_leaves(answer) if isinstance(t, torch.Tensor)]
            largest[0] = max([largest[0], *(t.numel() for t in made)])
            return answer

    count, shape = 400, (3, 24, 24)
    monitor = CAMMonitor(ProbeSet(torch.rand(count, *shape), torch.arange(count) % 4), ("eigencam", "gradcam"), "8")
    with Sizes():
        monitor.look(net)
    assert 0 < largest[0] < count * np.prod(shape) / 2


def test_no_tensor_of_a_look_survives_it(probe, net):
    """Neither activations, gradients nor outputs; only the maps of tracks, which are numpy arrays."""
    noted = Notes()
    for module in net:
        module.register_forward_hook(lambda module, inputs, output: noted.note(weakref.ref(output)))
    monitor = CAMMonitor(probe, ("eigencam", "gradcam"))
    gc.collect()
    before = {id(o) for o in gc.get_objects() if isinstance(o, torch.Tensor)}
    monitor.look(net)
    gc.collect()
    left = [o for o in gc.get_objects() if isinstance(o, torch.Tensor) and id(o) not in before]
    born = noted.all()
    assert len(born) > 20 and not [ref for ref in born if ref() is not None] and not left


def test_what_is_looked_at_is_made_once_a_run(probe, net, monkeypatch):
    """The model with its layers and its call, noise floor, faithfulness and counterfactual included."""
    made = []
    make = CAM.__init__
    monkeypatch.setattr(CAM, "__init__", lambda cam, *a, **k: (made.append(cam), make(cam, *a, **k))[1])
    whole = ProbeSet(probe.images, probe.labels, counterfactual=probe.images.flip(3))
    monitor = CAMMonitor(whole, ("eigencam", "gradcam"), metrics="average_drop")
    for _ in range(3):
        monitor.look(net)
    assert len(made) == 1
    net[8] = torch.nn.Sigmoid()  # another layer under the name that is watched: its maps are what counts
    record = monitor.look(net)
    assert len(made) == 2
    fresh = CAMMonitor(whole, "gradcam", "8").look(net)
    np.testing.assert_array_equal(record.maps["gradcam", "8"], fresh.maps["gradcam", "8"])


def test_a_monitor_lets_go_of_a_model(probe, net):
    monitor = CAMMonitor(probe, "gradcam")
    monitor.look(net)
    monitor.release()
    layer = weakref.ref(net[8])
    net[8] = torch.nn.ReLU()
    gc.collect()
    assert layer() is None and monitor.look(net).look == 1


@pytest.mark.soak
def test_200_looks_leave_memory_flat(probe, net, tmp_path):
    import os

    def resident() -> float:
        with open(f"/proc/{os.getpid()}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    monitor = CAMMonitor(probe, ("eigencam", "gradcam", "layercam"), folder=tmp_path / "r")
    sizes, counts = [], []
    for _ in range(200):
        monitor.look(net)
        gc.collect()
        sizes.append(resident())
        counts.append(sum(isinstance(o, (torch.Tensor, np.ndarray)) for o in gc.get_objects()))
    assert len(monitor.store) == 200
    assert np.mean(sizes[-20:]) - np.mean(sizes[40:60]) < 8, "MiB"
    assert max(counts[-20:]) <= max(counts[20:60])
