"""A training in Lightning on several CPU processes, its model sharded in configure_model; each rank writes down what it ends with.

Run as a script: ``sharded_training.py OUT``.
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
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parent))
import conftest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.strategies import ModelParallelStrategy
from sharded_cases import BLOCKS, probe, state_of

from cam_callbacks import CAMCallback
from cam_callbacks.replaying import replay

OPTIONS: dict[str, Any] = {"methods": ("eigencam", "gradcam"), "batch_size": 2, "exchange_pairs": 2}


class Sharded(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = conftest.network()
        for module in self.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.0  # else each process has its own running statistics, and with them another model

    def configure_model(self) -> None:
        from torch.distributed.fsdp import fully_shard

        for index in BLOCKS:
            fully_shard(self.net[index], mesh=self.device_mesh["data_parallel"])
        fully_shard(self.net, mesh=self.device_mesh["data_parallel"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]), sync_dist=True)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 0.01)


class Note(pl.Callback):
    """Everything that the training has, at every step and at the end of every validation."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
        self.seen.append(state_of(module, trainer.optimizers[0]))

    def on_validation_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        if not trainer.sanity_checking:
            self.seen.append(state_of(module, trainer.optimizers[0]))


def fit(
    folder: Path, *callbacks: Any, epochs: int = 3, ckpt_path: Path | None = None, processes: int = 2, nodes: int = 1,
    batch: int = 8, **options: Any,
) -> tuple[Any, Any]:  # fmt: skip
    pl.seed_everything(1, verbose=False)
    module = Sharded()
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=processes // nodes, num_nodes=nodes, logger=False,
        strategy=ModelParallelStrategy(data_parallel_size=processes, tensor_parallel_size=1), num_sanity_val_steps=1,
        callbacks=list(callbacks), default_root_dir=folder, enable_model_summary=False, enable_progress_bar=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks), **options,
    )  # fmt: skip
    data = conftest.blobs()
    trainer.fit(module, DataLoader(data, batch, shuffle=True), DataLoader(data, 8), ckpt_path=ckpt_path)
    return trainer, module


def callback(folder: Path, **options: Any) -> CAMCallback:
    return CAMCallback(probe(), folder=folder, max_overhead=1.0, **OPTIONS, **options)


def main(out: Path) -> None:
    warnings.simplefilter("ignore")
    alone, watched = Note(), Note()
    fit(out, ModelCheckpoint(out / "alone", save_top_k=-1), alone)  # saving frees what was gathered
    saved = ModelCheckpoint(out / "saved", save_top_k=-1, filename="{epoch}")
    stop = EarlyStopping("cam/entropy/gradcam", patience=50)
    trainer, _ = fit(out, stop, callback(out / "looks", on_error="raise"), saved, watched)
    answer: dict[str, Any] = {
        "same": [a == b for a, b in zip(alone.seen, watched.seen, strict=True)],
        "moments": len(alone.seen),
        "values": {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("cam/")},
    }
    # One process that was stopped after two epochs, and goes on from its shards.
    fit(out, callback(out / "resumed", on_error="raise"), ModelCheckpoint(out / "first", filename="{epoch}"), epochs=2)
    fit(out, again := callback(out / "resumed", on_error="raise"), epochs=3, ckpt_path=out / "first" / "epoch=1.ckpt")
    answer["resumed"] = again.store is not None and [record.epoch for record in again.store]
    # The same weights, whole, in one process: by replay of the shards.
    dist.barrier()
    rank = dist.get_rank()
    dist.destroy_process_group()
    if rank == 0:
        replay(conftest.network(), out / "saved", probe(), folder=out / "replayed", **OPTIONS)
    Path(f"{out}-{rank}.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
