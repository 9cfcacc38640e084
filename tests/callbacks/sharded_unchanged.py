"""What a look leaves as it was: the training, bit for bit, and the most that is gathered at one time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import (
    BackwardPrefetch,
    CPUOffloadPolicy,
    FSDPModule,
    FullyShardedDataParallel,
    MixedPrecision,
    MixedPrecisionPolicy,
    ShardingStrategy,
    fully_shard,
)
from torch.utils.checkpoint import checkpoint

sys.path.insert(0, str(Path(__file__).parent))
import conftest
from sharded_cases import (
    BLOCKS,
    ENGINE,
    adam,
    each,
    flattened,
    inside,
    partitioned,
    probe,
    sharded,
    state_of,
    step,
    trained,
)

from cam_callbacks import CAMMonitor
from cam_callbacks.plan import network_of, plan_of
from cam_engine import CAM
from cam_engine.sharding import _groups_of

SHARD_GRAD_OP = ShardingStrategy.SHARD_GRAD_OP


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
        each(conftest.network(), BLOCKS, mp_policy=MixedPrecisionPolicy(torch.bfloat16, torch.float32, torch.float32))
    ),
    "offloaded": lambda: sharded(conftest.network(), offload_policy=CPUOffloadPolicy(pin_memory=False)),
    "checkpointed": lambda: fully_shard(each(checkpointed(conftest.network()), (0, 3, 4))),
    "compiled": lambda: fully_shard(each(_compiled(conftest.network()), (0, 3, 7))),
    "one group": lambda: fully_shard(conftest.network()),
}


FLATTENED: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: flattened(conftest.network()),
    "flat parameters": lambda: flattened(conftest.network(), use_orig_params=False),
    "gathered from forward to backward": lambda: flattened(conftest.network(), sharding_strategy=SHARD_GRAD_OP),
    "the same, flat": lambda: flattened(conftest.network(), sharding_strategy=SHARD_GRAD_OP, use_orig_params=False),
    "mixed precision": lambda: flattened(
        conftest.network(), mixed_precision=MixedPrecision(torch.bfloat16, torch.float32, torch.bfloat16)
    ),
    "checkpointed": lambda: flattened(checkpointed(conftest.network()), (0, 3, 4)),
    "one unit": lambda: flattened(conftest.network(), ()),
    "compiled": lambda: flattened(_compiled(conftest.network())),
    "whole everywhere": lambda: flattened(conftest.network(), sharding_strategy=ShardingStrategy.NO_SHARD),
    "ahead": lambda: flattened(
        conftest.network(), forward_prefetch=True, backward_prefetch=BackwardPrefetch.BACKWARD_PRE
    ),
}


PARTITIONED: dict[str, Callable[[], Any]] = {
    "plain": lambda: partitioned(conftest.network()),
    "small ones stay": lambda: partitioned(conftest.network(), stage3_param_persistence_threshold=50),
    "freed at once": lambda: partitioned(
        conftest.network(), stage3_max_reuse_distance=0, stage3_prefetch_bucket_size=0
    ),
    "accumulated": lambda: partitioned(conftest.network(), 2),
    "mixed precision": lambda: partitioned(conftest.network().bfloat16(), half=True),
    "offloaded": lambda: partitioned(conftest.network(), offload_optimizer={"device": "cpu"}),
    "checkpointed": lambda: partitioned(checkpointed(conftest.network())),
}
ALL = {"fsdp2": SETTINGS, "fsdp1": FLATTENED, "zero3": PARTITIONED}


def _compiled(net: nn.Sequential) -> nn.Sequential:
    net[3].compile(backend="eager")
    return net


def training(make: Callable[[], Any], looks: bool, accumulate: bool) -> list[Any]:
    """Two steps with validations, a look before each; one inside an accumulation, one where validation left parameters gathered."""
    torch.manual_seed(dist.get_rank())
    net = make()
    optimizer = adam(net)
    images, labels = (tensor.chunk(dist.get_world_size())[dist.get_rank()] for tensor in conftest.blobs().tensors)
    images = images.to(next(net.parameters()).dtype)
    watch, seen = CAMMonitor(probe(3), "gradcam", layers="5", batch_size=2, exchange=()), []

    def look() -> None:
        if looks:
            watch.look(net)
        seen.append(state_of(net, optimizer))

    for batch in (slice(0, 6), slice(6, 12)):
        if accumulate:
            with unreduced(net):
                step(net, None, images[batch], labels[batch])
                look()
            look()
        step(net, None, images[batch], labels[batch])  # its gradients are there at the look, as in Lightning
        look()
        if ENGINE["name"] == "zero3":
            net.step()
        else:
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            net.eval()
            net(images)
            net.train()
    look()
    return seen


@contextmanager
def unreduced(net: Any) -> Iterator[None]:
    """Gradients wait inside, each process with its own."""
    if ENGINE["name"] == "zero3":
        yield
        net.step()  # the first of two
        return
    if isinstance(net, FullyShardedDataParallel):
        with net.no_sync():
            yield
        return
    net.set_requires_gradient_sync(False)
    yield
    net.set_requires_gradient_sync(True)


def unchanged() -> Any:
    same: dict[str, Any] = {}
    for name, make in ALL[ENGINE["name"]].items():
        accumulate = name in ("plain", "flat parameters", "mixed precision", "gathered from forward to backward")
        accumulate = name == "accumulated" if ENGINE["name"] == "zero3" else accumulate
        without, watched = training(make, False, accumulate), training(make, True, accumulate)
        same[name] = [
            [(x, y) for x, y in zip(a, b, strict=True) if x != y] for a, b in zip(without, watched, strict=True)
        ]
        assert without[0] != without[-1]
    return same


def gathered(net: nn.Module) -> int:
    """How many parameters are there, whole, at this moment."""
    if ENGINE["name"] == "zero3":
        return sum(p.ds_numel for p in net.parameters() if p.ds_status.name == "AVAILABLE")
    if ENGINE["name"] == "fsdp1":
        flats = [unit._handle.flat_param for unit in net.modules() if isinstance(unit, FullyShardedDataParallel)]
        return sum(
            flat._unpadded_unsharded_size.numel() for flat in flats if flat._full_param_padded.untyped_storage().size()
        )
    groups = [
        group
        for module in net.modules()
        if isinstance(module, FSDPModule)
        for group in _groups_of(module._get_fsdp_state())
    ]
    return sum(p._orig_size.numel() for g in groups if g.is_unsharded for p in g.fsdp_params)


def gathered_at_once() -> Any:
    """The most parameters that are gathered at one time where a look explains a batch, in a training step, and all there are."""

    def most(run: Callable[[nn.Module], Any]) -> int:
        how: dict[str, Any] = {
            "fsdp1": {},
            "fsdp2": {"reshard_after_forward": True},
            "zero3": {"stage3_max_reuse_distance": 0, "stage3_prefetch_bucket_size": 0},
        }[ENGINE["name"]]
        net, largest = sharded(trained(), **how), [0]

        def count(*_: Any) -> None:
            largest[0] = max(largest[0], gathered(net))

        def count_in_backward(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
            count()
            if output.requires_grad:
                output.register_hook(count)

        for unit in (m for m in net.modules() if isinstance(m, FullyShardedDataParallel)):
            unit._handle.post_unshard = count  # which frees, under mixed precision alone
        for module in inside(net):
            module.register_forward_pre_hook(count)
            module.register_forward_hook(count_in_backward)
        run(net)
        return largest[0]

    def look(net: nn.Module) -> None:
        explained = network_of(net)
        plan_of(explained).together(lambda: CAM(explained, ("eigencam", "gradcam"), "2")(images, labels))

    images, labels = (tensor[:2] for tensor in conftest.blobs().tensors)
    whole = sum(p.numel() for p in trained().parameters())
    return [
        most(look),
        most(lambda net: step(net, None, images, labels)),
        whole,
    ]
