"""A loop in Lightning Fabric on two CPU processes, its model under ``fully_shard`` or FSDP1, looked at by a CAMLoop twice an epoch;
each rank writes down what it ends with.

Run as a script: ``sharded_fabric.py OUT``, or ``sharded_fabric.py OUT fsdp1``.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parent))
import conftest
from lightning.fabric import Fabric
from lightning.fabric.strategies import FSDPStrategy, ModelParallelStrategy
from sharded_cases import ENGINE, probe, sharded, state_of

from cam_callbacks import CAMMonitor
from cam_callbacks.loop import CAMLoop

OPTIONS: dict[str, Any] = {"methods": ("eigencam", "gradcam"), "batch_size": 2, "exchange_pairs": 2}


class OnCPU(FSDPStrategy):
    """Fabric refuses a CPU to FSDPStrategy itself; all that is said here otherwise is the device, which torch would take to be an
    accelerator's."""

    def setup_module(self, module: nn.Module) -> nn.Module:
        return FullyShardedDataParallel(module, device_id=self.root_device, **self._fsdp_kwargs)


def parallelize(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    assert isinstance(model, nn.Sequential)
    return sharded(model, mesh=mesh["data_parallel"])


def network() -> nn.Sequential:
    net = conftest.network()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0  # else each process has its own running statistics, and with them another model
    return net


def training(
    fabric: Fabric, folder: Path | None, wrapped: bool = False
) -> tuple[list[list[str]], list[dict[str, Any]]]:
    """Everything that the training has after every look that was due, and the whole weights then. ``wrapped``: what
    ``fabric.setup`` returned is looked at, and not the network in it."""
    fabric.seed_everything(1, verbose=False)
    model, optimizer = fabric.setup(network()), None
    net, whole = model.module, model._forward_module
    optimizer = fabric.setup_optimizers(torch.optim.Adam(model.parameters(), 0.01))
    loader = fabric.setup_dataloaders(DataLoader(conftest.blobs(), 4, shuffle=True))
    watch = None if folder is None else CAMLoop(probe(), folder, on_error="raise", max_overhead=1.0, **OPTIONS)
    seen, weights = [], []

    def look(epoch: int, step: int) -> None:
        if watch is not None:
            watch.look(model if wrapped else net, epoch, step)
        seen.append(state_of(whole, optimizer.optimizer))
        weights.append(get_model_state_dict(whole, options=StateDictOptions(full_state_dict=True)))

    step = 0
    for epoch in range(2):
        for images, labels in loader:
            step += 1
            with fabric.no_backward_sync(model, enabled=step % 3 == 0):
                fabric.backward(nn.functional.cross_entropy(model(images), labels))
            if step % 3 == 2:
                look(epoch, step)  # between backward and step, the gradients are there
            if step % 3:
                optimizer.step()
                optimizer.zero_grad()
    if watch is not None:
        watch.close()
    return seen, weights


def main(out: Path) -> None:
    warnings.simplefilter("ignore")
    flat = OnCPU(auto_wrap_policy={nn.Conv2d})
    strategy = flat if ENGINE["name"] == "fsdp1" else ModelParallelStrategy(parallelize, 2, 1)
    fabric = Fabric(accelerator="cpu", devices=2, strategy=strategy)
    fabric.launch()
    alone, _ = training(fabric, None)
    looked_at = {"looks": "8", "wrapped": "_forward_module.8"} if ENGINE["name"] == "fsdp2" else {"wrapped": "8"}
    runs = [training(fabric, out / name, wrapped=name == "wrapped") for name in looked_at]
    answer = {"same": [all(a == b[i] for b, _ in runs) for i, a in enumerate(alone)], "looked_at": looked_at}
    weights = runs[0][1]
    rank = fabric.global_rank
    dist.barrier()
    dist.destroy_process_group()
    if rank == 0:  # the same weights, whole, in one process
        net, monitor = network(), CAMMonitor(probe(), folder=out / "one", **OPTIONS)
        for whole in weights:
            net.load_state_dict(whole)
            monitor.look(net)
    Path(f"{out}-{rank}.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    ENGINE["name"] = next(iter(sys.argv[2:]), "fsdp2")
    main(Path(sys.argv[1]))
