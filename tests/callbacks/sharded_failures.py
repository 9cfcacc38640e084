"""What goes wrong on one process, and what becomes of the others and of the training."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
import conftest
from sharded_cases import adam, inside, monitor, probe, sharded, state_of, step, trained

from cam_callbacks import agreement
from cam_callbacks.look.options import LookOptions
from cam_callbacks.watcher import Watcher, WatchOptions


@contextmanager
def broken(net: nn.Sequential, rank: int, how: str, error: type[Exception], after: int = 0) -> Iterator[None]:
    """One rank fails in a layer's forward or backward, after so many that go well."""
    count = 0

    def fail(*_: Any) -> None:
        nonlocal count
        count += 1
        if dist.get_rank() == rank and count > after:
            raise error("broken here")

    def fail_in_backward(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(fail)

    layer = inside(net)[7] if how == "forward" else inside(net)[11]
    hook = layer.register_forward_hook(fail if how == "forward" else fail_in_backward)
    try:
        yield
    finally:
        hook.remove()


def failing() -> Any:
    """One rank fails, in every way; afterwards the training goes on as if nothing had been, and the next look succeeds."""
    answers, alone = {}, []
    images, labels = (tensor[:8] for tensor in conftest.blobs().tensors)
    for rank in range(dist.get_world_size()):
        for how, after in (("forward", 0), ("forward", 3), ("backward", 0), ("score", 0), ("writing", 0)):
            if how == "writing" and rank:  # rank 0 writes
                continue
            ends = list(alone)
            for looks in (True,) if alone else (False, True):
                torch.manual_seed(0)
                net = sharded(trained())
                optimizer = adam(net)
                watch = monitor(target=_failing_score(rank) if how == "score" else "label", layers="5")
                message = ""
                if looks:
                    fails = (
                        broken(net, rank, how, ZeroDivisionError, after)
                        if how in ("forward", "backward")
                        else nullcontext()
                    )
                    if how == "writing" and dist.get_rank() == rank:
                        watch.write = lambda *_: 1 / 0  # type: ignore[method-assign]
                        watch.store = object()  # type: ignore[assignment]
                    try:
                        with fails:
                            watch.look(net)
                    except RuntimeError as error:
                        message = f"{type(error).__name__}: {error}"
                between = state_of(net, optimizer)
                step(net, optimizer, images, labels)
                ends.append([between, state_of(net, optimizer)])
            alone = ends[:1]
            different = [
                pair for a, b in zip(*ends, strict=True) for pair in zip(a, b, strict=True) if pair[0] != pair[1]
            ]
            answers[f"{rank} {how} {after}"] = [message, different, monitor(exchange=()).look(net).look]
    return answers


def _failing_score(rank: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def score(outputs: torch.Tensor) -> torch.Tensor:
        if dist.get_rank() == rank:
            raise ZeroDivisionError("broken here")
        return outputs[:, 0]

    return score


def out_of_memory() -> Any:
    """Memory suffices for two images at once, on one rank; all take two from then on. Of the larger probe it runs out where maps
    are made; of the smaller one, of which each process has two images, in the exchange tests, which make many forwards a step."""
    answers = []
    for n in (4 * dist.get_world_size() - 1, 4):
        net, watch = sharded(trained()), monitor(n, batch_size=4)

        def fail(_module: Any, inputs: Any) -> None:
            if dist.get_rank() == 1 and len(inputs[0]) > 2:
                raise torch.OutOfMemoryError("none left")

        hook = inside(net)[7].register_forward_pre_hook(fail)
        record = watch.look(net)
        hook.remove()
        plain = monitor(n, batch_size=4).look(trained())
        difference = max(float(abs(of - record.maps[k]).max() / abs(of).max()) for k, of in plain.maps.items())
        answers.append([watch.batches.size, difference, "cam/follows_object" in record.metrics])
    return answers


def out_of_memory_of_variants() -> Any:
    """The images themselves fit on all; of their variants, which Score-CAM makes many of, too many on one rank, the first time."""
    net, watch, failed = sharded(trained()), monitor(4, methods="scorecam", exchange=()), []

    def fail(_module: Any, inputs: Any) -> None:
        if dist.get_rank() == 1 and len(inputs[0]) > 2 and not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("none left")

    hook = inside(net)[7].register_forward_pre_hook(fail)
    record = watch.look(net)
    hook.remove()
    plain = monitor(4, methods="scorecam", exchange=()).look(trained())
    difference = max(float(abs(of - record.maps[k]).max() / abs(of).max()) for k, of in plain.maps.items())
    return [watch.batches.most, difference, monitor(exchange=()).look(net).look]


def out_of_step() -> Any:
    """A model that is run once more on one rank: the look fails on all, and none waits."""

    def forward(model: nn.Module, images: torch.Tensor) -> Any:
        return model(images) if dist.get_rank() == 1 else model(images) + 0 * model(images)

    net = sharded(trained())
    try:
        monitor(forward=forward).look(net)
    except RuntimeError as error:
        return [str(error), monitor().look(net).look]


def silent() -> Any:
    """Rank 0 says nothing for longer than the others wait."""
    agreement.PATIENCE, agreement._connections = timedelta(seconds=4), None
    net, watcher = sharded(trained()), Watcher("test", WatchOptions(LookOptions("gradcam", layers="5")), probe(2))
    watcher.begin("run", None)
    images, labels = (tensor[:8] for tensor in conftest.blobs().tensors)
    with torch.no_grad():  # leaves parameters gathered, which the look then cannot gather again
        net.eval()
        before = net(images)
    hook = inside(net)[7].register_forward_hook(lambda *_: time.sleep(10 if dist.get_rank() == 0 else 0))
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        watcher.look(net)
    hook.remove()
    agreement.PATIENCE, agreement._connections = timedelta(minutes=5), None
    said = " ".join(str(one.message) for one in caught)
    answer = {"seconds": time.perf_counter() - started, "resting": watcher.resting, "said": said}
    with torch.no_grad():
        answer["same"] = torch.equal(before, net(images))
    net.train()
    step(net, None, images, labels)  # the training goes on
    return answer
