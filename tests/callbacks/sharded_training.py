"""A training in Lightning on several CPU processes, its model sharded in configure_model, or by FSDPStrategy; each rank writes down
what it ends with.

Run as a script: ``sharded_training.py OUT fsdp2``, or ``fsdp1`` or ``zero3``.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parent))
import conftest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.strategies import FSDPStrategy, ModelParallelStrategy
from sharded_cases import BLOCKS, ENGINE, config, probe, state_of

from cam_callbacks import CAMCallback
from cam_callbacks.replaying import replay

OPTIONS: dict[str, Any] = {"methods": ("eigencam", "gradcam"), "batch_size": 2, "exchange_pairs": 2}


class OnCPU(FSDPStrategy):
    """Lightning refuses a CPU to FSDPStrategy itself, and leaves it to classes that are made from it; all that is said here
    otherwise is the device, which torch would take to be an accelerator's."""

    def _setup_model(self, model: nn.Module) -> nn.Module:
        return FullyShardedDataParallel(model, device_id=self.root_device, **self.kwargs)


def zero3() -> Any:
    """DeepSpeedStrategy, without its refusal of a CPU and of devices that have no number."""
    import deepspeed
    from pytorch_lightning.strategies import DeepSpeedStrategy

    class ZeroOnCPU(DeepSpeedStrategy):
        root_device = torch.device("cpu", 0)

        def setup_environment(self) -> None:
            super(DeepSpeedStrategy, self).setup_environment()

        def setup_distributed(self) -> None:
            self.set_world_ranks()
            self._init_deepspeed_distributed()

    os.environ["DS_ACCELERATOR"] = "cpu"
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm_op"] = False
    return ZeroOnCPU(config=config(stage3_param_persistence_threshold=50))


class Gathered(pl.Callback):
    """Keeps the whole weights of every validation, as they are in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(module.parameters())):
            whole = {name: tensor.detach().clone() for name, tensor in module.net.state_dict().items()}
        if trainer.is_global_zero and not trainer.sanity_checking:
            self.folder.mkdir(parents=True, exist_ok=True)
            torch.save(whole, self.folder / f"{trainer.current_epoch}.pt")


class Whole(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = conftest.network()
        for module in self.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.0  # else each process has its own running statistics, and with them another model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]), sync_dist=True)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 0.01)


class Sharded(Whole):
    def configure_model(self) -> None:
        from torch.distributed.fsdp import fully_shard

        for index in BLOCKS:
            fully_shard(self.net[index], mesh=self.device_mesh["data_parallel"])
        fully_shard(self.net, mesh=self.device_mesh["data_parallel"])


class Note(pl.Callback):
    """Everything that the training has, at every step and at the end of every validation."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
        self.seen.append(state_of(trainer.strategy.model, trainer.optimizers[0]))

    def on_validation_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        if not trainer.sanity_checking:
            self.seen.append(state_of(trainer.strategy.model, trainer.optimizers[0]))


def strategy(processes: int) -> Any:
    if ENGINE["name"] == "fsdp1":
        return OnCPU(auto_wrap_policy={nn.Conv2d}, state_dict_type="sharded")
    if ENGINE["name"] == "zero3":
        return zero3()
    return ModelParallelStrategy(data_parallel_size=processes, tensor_parallel_size=1)


def fit(
    folder: Path, *callbacks: Any, epochs: int = 3, ckpt_path: Path | None = None, processes: int = 2, nodes: int = 1,
    batch: int = 8, **options: Any,
) -> tuple[Any, Any]:  # fmt: skip
    pl.seed_everything(1, verbose=False)
    module = Sharded() if ENGINE["name"] == "fsdp2" else Whole()
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=processes // nodes, num_nodes=nodes, logger=False,
        strategy=strategy(processes), num_sanity_val_steps=1,
        callbacks=list(callbacks), default_root_dir=folder, enable_model_summary=False, enable_progress_bar=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks), **options,
    )  # fmt: skip
    data = conftest.blobs()
    trainer.fit(module, DataLoader(data, batch, shuffle=True), DataLoader(data, 8), ckpt_path=ckpt_path)
    return trainer, module


def saving(folder: Path) -> pl.Callback:
    """At every validation."""
    if ENGINE["name"] == "zero3":  # its own folders of shards are not read by replay
        return Gathered(folder)
    return ModelCheckpoint(folder, save_top_k=-1, filename="{epoch}")


def callback(folder: Path, **options: Any) -> CAMCallback:
    return CAMCallback(probe(), folder=folder, max_overhead=1.0, **OPTIONS, **options)


def main(out: Path) -> None:
    warnings.simplefilter("ignore")
    alone, watched = Note(), Note()
    fit(out, saving(out / "alone"), alone)  # saving frees what was gathered
    stop = EarlyStopping("cam/entropy/gradcam", patience=50)
    trainer, _ = fit(out, stop, callback(out / "looks", on_error="raise"), saving(out / "saved"), watched)
    answer: dict[str, Any] = {
        "same": [a == b for a, b in zip(alone.seen, watched.seen, strict=True)],
        "moments": len(alone.seen),
        "values": {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("cam/")},
    }
    # One process that was stopped after two epochs, and goes on from its shards.
    part: dict[str, Any] = {"model": "net", "forward": lambda net, images: net(images), "on_error": "raise"}
    fit(out, callback(out / "resumed", **part), ModelCheckpoint(out / "first", filename="{epoch}"), epochs=2)
    fit(out, again := callback(out / "resumed", **part), epochs=3, ckpt_path=out / "first" / "epoch=1.ckpt")
    answer["resumed"] = again.store is not None and [record.epoch for record in again.store]
    # The same weights, whole, in one process: by replay of the shards.
    dist.barrier()
    rank = dist.get_rank()
    dist.destroy_process_group()
    if rank == 0:
        replay(conftest.network(), out / "saved", probe(), folder=out / "replayed", **OPTIONS)
    Path(f"{out}-{rank}.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    ENGINE["name"] = next(iter(sys.argv[2:]), "fsdp2")
    main(Path(sys.argv[1]))
