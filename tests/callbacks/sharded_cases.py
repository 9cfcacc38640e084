"""Models that are spread over processes, and the numbers of looks at them beside those at the whole model; each case returns, on
every rank, what its test asserts. sharded_main.py runs them."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy, fully_shard
from torch.distributed.pipelining import PipelineStage
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

sys.path.insert(0, str(Path(__file__).parent))
import conftest

from cam_callbacks import CAMMonitor, ProbeSet
from cam_callbacks.plan import plan_of
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


ENGINE = {"name": "fsdp2"}  # by which models are spread here; sharded_main.py chooses


def flattened(net: nn.Module, blocks: tuple[int, ...] = BLOCKS, **how: Any) -> nn.Module:
    """By FSDP1."""
    how = {"device_id": torch.device("cpu"), "use_orig_params": True} | how
    for index in blocks:
        net[index] = FullyShardedDataParallel(net[index], **how)
    return FullyShardedDataParallel(net, **how)


def config(half: bool = False, **zero: Any) -> dict[str, Any]:
    """Of DeepSpeed's ZeRO-3."""
    return {
        "train_micro_batch_size_per_gpu": 4,
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0} | zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": half},
    }


def partitioned(net: nn.Module, micro: int = 1, **how: Any) -> Any:
    """By ZeRO-3, with its own optimizer around Adam; ``micro`` backwards make a step."""
    os.environ |= {"LOCAL_RANK": str(dist.get_rank()), "DS_ACCELERATOR": "cpu"}
    with redirect_stdout(io.StringIO()):
        import deepspeed

        deepspeed.logger.setLevel(logging.ERROR)
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm_op"] = (
            False  # which would be compiled here, once a machine
        )
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        return deepspeed.initialize(
            model=net, optimizer=optimizer, config=config(**how) | {"gradient_accumulation_steps": micro}
        )[0]


def inside(net: Any) -> Any:
    """The network in what FSDP1 or DeepSpeed wrapped."""
    return getattr(net, "module", net)


def adam(net: Any) -> Any:
    """The optimizer of a model that is spread."""
    return net.optimizer if ENGINE["name"] == "zero3" else torch.optim.Adam(net.parameters(), 0.01)


def each(net: nn.Sequential, blocks: tuple[int, ...], **how: Any) -> nn.Sequential:
    for index in blocks:
        fully_shard(net[index], **how)
    return net


def sharded(net: nn.Sequential, **how: Any) -> nn.Sequential:
    if ENGINE["name"] == "fsdp1":
        return flattened(net, **how)
    if ENGINE["name"] == "zero3":
        return partitioned(net, **how)
    return fully_shard(each(net, BLOCKS, **how), **how)


def monitor(n: int = 7, **options: Any) -> CAMMonitor:
    return CAMMonitor(probe(n), **({"methods": ("eigencam", "gradcam"), "batch_size": 2} | options))


def step(net: Any, optimizer: torch.optim.Optimizer | None, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Forward and backward; and of the optimizer where there is one."""
    if ENGINE["name"] == "zero3":
        net.backward(nn.functional.cross_entropy(net(images), labels))
        if optimizer is not None:
            net.step()
        return
    nn.functional.cross_entropy(net(images), labels).backward()
    if optimizer is not None:
        optimizer.step()
        optimizer.zero_grad()


def local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def state_of(net: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Everything that a training has, bit for bit, and where torch's sharding stands."""
    tensors = [*net.parameters(), *net.buffers(), *(p.grad for p in net.parameters() if p.grad is not None)]
    if ENGINE["name"] == "zero3":
        tensors += [p.ds_tensor for p in net.parameters()] + list(tensors_of(vars(optimizer)))
        optimizer = optimizer.optimizer  # which is wrapped
    tensors += [v for of in optimizer.state.values() for v in of.values() if isinstance(v, torch.Tensor)]
    return [*map(digest, tensors), *modes(net), digest(torch.get_rng_state()), str(resharding(net))]


def digest(tensor: torch.Tensor) -> str:
    """Shape, and a hash of the bytes of the part that lies here."""
    part = (
        local(tensor).detach().clone(memory_format=torch.contiguous_format)
    )  # numpy() fixes the size of a memory for good
    return f"{tuple(tensor.shape)} {hashlib.blake2b(part.reshape(-1).view(torch.uint8).numpy(), digest_size=8).hexdigest()}"


def modes(net: nn.Module) -> list[str]:
    return [f"{m.training} {len(m._forward_hooks)} {len(m._forward_pre_hooks)}" for m in net.modules()]


def resharding(net: nn.Module) -> list[Any]:
    """Which parameters are gathered, and what the next backward gathers ahead."""
    if ENGINE["name"] == "zero3":
        return [zero_standing(net)]
    if any(isinstance(module, FullyShardedDataParallel) for module in net.modules()):
        return [standing(unit) for unit in net.modules() if isinstance(unit, FullyShardedDataParallel)]
    runtime = Runtime(net)
    states = [(was.name, indices) for _, was, indices in runtime._sharded]
    accumulated = [group.reduce_grads for group, _ in runtime._accumulating]
    runtime.put_back()
    return [states, [len(order) for _, order in runtime._orders], len(accumulated)]


def standing(unit: FullyShardedDataParallel) -> list[Any]:
    """Where a unit of FSDP1 stands: what is gathered, what its next backward will do, and which gradients wait for it."""
    unit.check_is_root()  # what the first forward does once
    handle, order = unit._handle, unit._exec_order_data
    found = [str(unit.training_state), unit._is_root, order._iter, len(order.handles_post_forward_order)]
    if handle is None:
        return found
    flat = handle.flat_param
    there = {
        name: len(tensor.untyped_storage()) for name, tensor in vars(flat).items() if isinstance(tensor, torch.Tensor)
    }
    kept = {name: str(value) for name, value in vars(handle).items() if isinstance(value, (bool, int, Enum))}
    waits = [None if p.grad is None else tuple(p.grad.shape) for p in (flat, *(flat._params or ()))]
    hooks = hasattr(flat, "_post_backward_hook_state")
    return [*found, there, kept, waits, hooks, flat.requires_grad, tuple(flat.shape), flat._post_backward_called]


def zero_standing(engine: Any) -> list[Any]:
    """Where ZeRO-3 stands: which parameters are gathered, in which order it gathers, and how far it is in that."""
    coordinator, running = engine.optimizer.parameter_offload.param_coordinator, []
    parameters = [
        (str(p.ds_status), sorted(p.ds_active_sub_modules), tuple(p.shape)) for p in engine.module.parameters()
    ]
    for name, value in sorted(vars(coordinator).items()):
        if isinstance(value, (bool, int, Enum)):
            running.append((name, str(value)))
        elif hasattr(value, "__len__"):
            running.append((name, len(value)))
    counts = [
        (getattr(m, "applied_pre_backward_ref_cnt", 0), m.ds_grads_remaining, len(m.ds_recompute_parameters))
        for m in engine.module.modules()
        if hasattr(m, "ds_grads_remaining")
    ]
    return [parameters, running, counts, engine.micro_steps, engine.global_steps]


def tensors_of(value: Any, depth: int = 3) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (dict, list, tuple)) and depth:
        for one in value.values() if isinstance(value, dict) else value:
            yield from tensors_of(one, depth - 1)


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


def same_of_methods_that_read_parameters() -> Any:
    return compared(sharded(trained()), looks=1, methods=("cam", "fullgrad"), exchange=())


def same_of_a_unit_inside() -> Any:
    """A unit of FSDP1 that is called by itself, once a forward of the whole has told which one is outermost."""
    images, labels = (tensor[:8] for tensor in conftest.blobs().tensors)
    whole = flattened(nn.Sequential(flattened(trained()), nn.Identity()), ())
    with torch.no_grad():
        whole.eval()(images)
    answer = compared(whole.module[0], looks=1)
    whole.train()
    alone = flattened(nn.Sequential(flattened(trained()), nn.Identity()), ()).train()
    for net in (whole, alone):  # the training goes on, as one without a look
        torch.manual_seed(0)
        step(net, None, images, labels)
    pairs = zip(whole.parameters(), alone.parameters(), strict=True)
    return answer | {"gradients": all(torch.equal(a.grad, b.grad) for a, b in pairs if b.grad is not None)}


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
    hybrid = each(trained(), BLOCKS, mesh=mesh)
    return {
        "shares": plan_of(net).shares,
        "end": compared(net, tokens, layers="end"),
        "hybrid": compared(fully_shard(hybrid, mesh=mesh), looks=1),
        "flat hybrid": compared(
            flattened(trained(), sharding_strategy=ShardingStrategy.HYBRID_SHARD, device_mesh=mesh), looks=1
        ),
    }


def refused() -> Any:
    """What is not looked at, in one line each; on all processes, and without a collective call."""
    said = []
    part = nn.Sequential(each(trained(), (3,)), nn.Identity())
    fully_shard(part)(conftest.blobs().tensors[0][:2])
    pieces = [flattened(nn.Sequential(trained()), (), use_orig_params=original)[0] for original in (True, False)]
    stage = PipelineStage(trained(), dist.get_rank(), dist.get_world_size(), torch.device("cpu"))
    for model in (*pieces, part[0], stage):
        try:
            monitor().look(model)
        except (RuntimeError, TypeError, ValueError) as error:
            said.append(str(error))
    return said
