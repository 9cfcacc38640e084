"""What several processes do with a model that is spread over them; each case returns, on every rank, what its test asserts.

Run as a script: ``sharded_cases.py PROCESSES OUT CASE …`` writes to OUT, for each case, the answers of all ranks.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.utils.checkpoint import checkpoint

sys.path.insert(0, str(Path(__file__).parent))
import conftest

from cam_callbacks import CAMMonitor, ProbeSet, agreement
from cam_callbacks.look.options import LookOptions
from cam_callbacks.plan import plan_of
from cam_callbacks.watcher import Watcher, WatchOptions
from cam_engine import CAM
from cam_engine.sharding import Runtime

BLOCKS = (0, 3, 7)


@cache
def weights() -> dict[str, torch.Tensor]:
    """Of a network that tells the quadrants apart, so that images exchange something."""
    net, (images, labels) = conftest.network(), conftest.blobs().tensors
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(20):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()
    return net.state_dict()


def trained() -> nn.Sequential:
    net = conftest.network()
    net.load_state_dict(weights())
    return net


def probe(n: int = 7) -> ProbeSet:
    data = conftest.blobs()
    images, labels = (tensor[:n] for tensor in data.tensors)
    return ProbeSet(images, labels, masks=conftest.blob_masks(data)[:n], counterfactual=images.flip(3))


def sharded(net: nn.Sequential, **how: Any) -> nn.Sequential:
    return fully_shard(_each(net, BLOCKS, **how), **how)


def monitor(**options: Any) -> CAMMonitor:
    return CAMMonitor(probe(), ("eigencam", "gradcam"), **({"batch_size": 2} | options))


def step(net: nn.Module, optimizer: torch.optim.Optimizer | None, images: torch.Tensor, labels: torch.Tensor) -> None:
    nn.functional.cross_entropy(net(images), labels).backward()
    if optimizer is not None:
        optimizer.step()
        optimizer.zero_grad()


def local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def state_of(net: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Everything that a training has, bit for bit, and where torch's sharding stands."""
    tensors = [*net.parameters(), *net.buffers(), *(p.grad for p in net.parameters() if p.grad is not None)]
    tensors += [v for of in optimizer.state.values() for v in of.values() if isinstance(v, torch.Tensor)]
    found = [f"{tuple(t.shape)} {local(t).double().sum().item().hex()}" for t in tensors]
    return [*found, *modes(net), str(torch.get_rng_state().sum().item()), str(resharding(net))]


def modes(net: nn.Module) -> list[str]:
    return [f"{m.training} {len(m._forward_hooks)} {len(m._forward_pre_hooks)}" for m in net.modules()]


def resharding(net: nn.Module) -> list[Any]:
    """Which parameters are gathered, and what the next backward gathers ahead."""
    runtime = Runtime(net)
    states = [(was.name, indices) for _, was, indices in runtime._sharded]
    accumulated = [group.reduce_grads for group, _ in runtime._accumulating]
    runtime.put_back()
    return [states, [len(order) for _, order in runtime._orders], len(accumulated)]


# -- the same as unsharded
# ----------------------------------------------------------------------------------------------------------------------


def compared(
    model: nn.Module, whole: Callable[[], nn.Module] = trained, looks: int = 2, **options: Any
) -> dict[str, Any]:
    """Differences between looks at this model and at the whole one."""
    net, plain, spread = whole(), monitor(**options), monitor(**options)
    pairs = [(plain.look(net), spread.look(model)) for _ in range(looks)]
    untimed = [key for key in pairs[0][0].metrics if "seconds" not in key]

    def differs(a: float, b: float) -> bool:
        return not (abs(a - b) <= 1e-6 or (a != a and b != b))

    return {
        "maps": max(float(abs(a.maps[k] - b.maps[k]).max() / abs(a.maps[k]).max()) for a, b in pairs for k in a.maps),
        "metrics": [
            (k, a.metrics[k], b.metrics[k]) for a, b in pairs for k in untimed if differs(a.metrics[k], b.metrics[k])
        ],
        "follows": [v for k, v in pairs[0][1].metrics.items() if "follows" in k and v == v],
        "keys": sorted(pairs[0][1].metrics),
    }


def same() -> Any:
    return compared(sharded(trained()), metrics=["deletion"])


def same_with_more_processes_than_images() -> Any:
    few = ProbeSet(*(tensor[:1] for tensor in conftest.blobs().tensors))
    plain = CAMMonitor(few, "gradcam").look(trained())
    spread = CAMMonitor(few, "gradcam").look(sharded(trained()))
    return float(abs(plain.maps["gradcam", "8"] - spread.maps["gradcam", "8"]).max())


class Tokens(nn.Module):
    """A residual block on patches, whose two linear layers can be split over processes."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 16, 4, 4), nn.LayerNorm(16)
        self.wide, self.act, self.narrow = nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)
        self.end, self.head = nn.Identity(), nn.Linear(16, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = self.end(x + self.narrow(self.act(self.wide(self.norm(x)))))
        return self.head(x.mean(1))


def tokens() -> Tokens:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tokens()


def tensor_parallel(net: Tokens, mesh: Any, local: bool = True) -> Tokens:
    plan = {"wide": ColwiseParallel(use_local_output=local), "narrow": RowwiseParallel()}
    return parallelize_module(net, mesh, plan)


def tensor_parallel_layers() -> Any:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    answer = {
        "end": compared(tensor_parallel(tokens(), mesh), tokens, layers="end"),
        "put together": compared(tensor_parallel(tokens(), mesh, False), tokens, layers=["act", "end"]),
    }
    try:
        monitor(layers="act").look(tensor_parallel(tokens(), mesh))
    except RuntimeError as error:
        answer["a part"] = str(error)
    return answer


def two_dimensions() -> Any:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    net = tensor_parallel(tokens(), mesh["tensor"])
    fully_shard(net.wide, mesh=mesh["data"])
    fully_shard(net, mesh=mesh["data"])
    hybrid = _each(trained(), BLOCKS, mesh=mesh)
    return {
        "shares": plan_of(net).shares,
        "end": compared(net, tokens, layers="end"),
        "hybrid": compared(fully_shard(hybrid, mesh=mesh), looks=1),
    }


def refused() -> Any:
    """What is not looked at, in one line each; on all processes, and without a collective call."""
    said = []
    part = nn.Sequential(_each(trained(), (3,)), nn.Identity())
    fully_shard(part)(conftest.blobs().tensors[0][:2])
    for model in (FullyShardedDataParallel(trained(), device_id=torch.device("cpu")), part[0]):
        try:
            monitor().look(model)
        except (RuntimeError, ValueError) as error:
            said.append(str(error))
    return said


# -- the training is never changed
# ----------------------------------------------------------------------------------------------------------------------


class Checkpointed(nn.Sequential):
    """Its forward is done again in the backward."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(super().forward, x, use_reentrant=False)


def checkpointed(net: nn.Sequential) -> nn.Sequential:
    return nn.Sequential(*net[:3], Checkpointed(*net[3:7]), *net[7:])


SETTINGS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: sharded(conftest.network()),
    "freed at once": lambda: sharded(conftest.network(), reshard_after_forward=True),
    "never freed": lambda: sharded(conftest.network(), reshard_after_forward=False),
    "mixed precision": lambda: fully_shard(
        _each(conftest.network(), BLOCKS, mp_policy=MixedPrecisionPolicy(torch.bfloat16, torch.float32, torch.float32))
    ),
    "offloaded": lambda: sharded(conftest.network(), offload_policy=CPUOffloadPolicy(pin_memory=False)),
    "checkpointed": lambda: fully_shard(_each(checkpointed(conftest.network()), (0, 3, 4))),
    "compiled": lambda: fully_shard(_each(_compiled(conftest.network()), (0, 3, 7))),
    "one group": lambda: fully_shard(conftest.network()),
}


def _each(net: nn.Sequential, blocks: tuple[int, ...], **how: Any) -> nn.Sequential:
    for index in blocks:
        fully_shard(net[index], **how)
    return net


def _compiled(net: nn.Sequential) -> nn.Sequential:
    net[3].compile(backend="eager")
    return net


def training(make: Callable[[], Any], looks: bool, accumulate: bool) -> list[Any]:
    """Two steps with validations, a look before each; one inside an accumulation, one where validation left parameters gathered."""
    torch.manual_seed(dist.get_rank())
    net = make()
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    images, labels = (tensor.chunk(dist.get_world_size())[dist.get_rank()] for tensor in conftest.blobs().tensors)
    watch, seen = CAMMonitor(probe(3), "gradcam", layers="5", batch_size=2, exchange=()), []

    def look() -> None:
        if looks:
            watch.look(net)
        seen.append(state_of(net, optimizer))

    for batch in (slice(0, 6), slice(6, 12)):
        if accumulate:
            net.set_requires_gradient_sync(False)
            step(net, None, images[batch], labels[batch])
            look()
            net.set_requires_gradient_sync(True)
        step(net, None, images[batch], labels[batch])  # its gradients are there at the look, as in Lightning
        look()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            net.eval()(images)
            net.train()
    look()
    return seen


def unchanged() -> Any:
    same: dict[str, Any] = {}
    for name, make in SETTINGS.items():
        accumulate = name in ("plain", "mixed precision")
        without, watched = training(make, False, accumulate), training(make, True, accumulate)
        same[name] = [
            [(x, y) for x, y in zip(a, b, strict=True) if x != y] for a, b in zip(without, watched, strict=True)
        ]
        assert without[0] != without[-1]
    return same


# -- what goes wrong
# ----------------------------------------------------------------------------------------------------------------------


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

    layer = net[7] if how == "forward" else net[11]
    hook = layer.register_forward_hook(fail if how == "forward" else fail_in_backward)
    try:
        yield
    finally:
        hook.remove()


def failing() -> Any:
    """One rank fails, in every way; afterwards the training goes on as if nothing had been, and the next look succeeds."""
    answers = {}
    images, labels = (tensor[:8] for tensor in conftest.blobs().tensors)
    for rank in range(dist.get_world_size()):
        for how, after in (("forward", 0), ("forward", 3), ("backward", 0), ("score", 0), ("writing", 0)):
            if how == "writing" and rank:  # rank 0 writes
                continue
            ends = []
            for looks in (False, True):
                torch.manual_seed(0)
                net = sharded(trained())
                optimizer = torch.optim.Adam(net.parameters(), 0.01)
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
    """Memory suffices for two images at once, on one rank; both take two from then on."""
    net, watch = sharded(trained()), monitor(batch_size=4)

    def fail(_module: Any, inputs: Any) -> None:
        if dist.get_rank() == 1 and len(inputs[0]) > 2:
            raise torch.OutOfMemoryError("none left")

    hook = net[7].register_forward_pre_hook(fail)
    record = watch.look(net)
    hook.remove()
    plain = monitor(batch_size=4).look(trained())
    return [watch.batches.size, max(float(abs(plain.maps[k] - record.maps[k]).max()) for k in record.maps)]


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
        before = net.eval()(images)
    hook = net[7].register_forward_hook(lambda *_: time.sleep(10 if dist.get_rank() == 0 else 0))
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
    step(net.train(), None, images, labels)  # the training goes on
    return answer


# -- memory
# ----------------------------------------------------------------------------------------------------------------------


def gathered_at_once() -> Any:
    """The most parameters that are gathered at one time where a look explains a batch, in a training step, and all there are."""

    def most(run: Callable[[nn.Module], Any]) -> int:
        net, largest = sharded(trained(), reshard_after_forward=True), [0]

        def count(*_: Any) -> None:
            groups = [group for group, _, _ in Runtime(net)._sharded]
            there = sum(p._orig_size.numel() for g in groups if g.is_unsharded for p in g.fsdp_params)
            largest[0] = max(largest[0], there)

        def count_in_backward(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
            count()
            if output.requires_grad:
                output.register_hook(count)

        for module in net:
            module.register_forward_pre_hook(count)
            module.register_forward_hook(count_in_backward)
        run(net)
        return largest[0]

    images, labels = (tensor[:2] for tensor in conftest.blobs().tensors)
    whole = sum(p.numel() for p in trained().parameters())
    return [
        most(lambda net: CAM(net, ("eigencam", "gradcam"), "2")(images, labels)),
        most(lambda net: step(net, None, images, labels)),
        whole,
    ]


CASES = {case.__name__: case for case in (
    same, same_with_more_processes_than_images, tensor_parallel_layers, two_dimensions, refused, unchanged, failing, out_of_memory,
    out_of_step, silent, gathered_at_once,
)}  # fmt: skip


def run(rank: int, count: int, out: str, names: list[str]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}.store", rank=rank, world_size=count)
    answers = {}
    for name in names:
        everyone: list[Any] = [None] * count
        dist.all_gather_object(everyone, CASES[name]())
        answers[name] = everyone
        if rank == 0:
            Path(out).write_text(json.dumps(answers))
    dist.destroy_process_group()


if __name__ == "__main__":
    processes, target, *chosen = sys.argv[1:]
    mp.spawn(run, (int(processes), target, chosen), int(processes))
