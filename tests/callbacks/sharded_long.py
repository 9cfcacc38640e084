"""Longer trainings in Lightning under ModelParallelStrategy, for make soak; each rank writes down what it ends with.

Run as a script: ``sharded_long.py OUT long`` makes its four processes itself; ``sharded_long.py OUT nodes`` is one of two, each on
a node of its own, that torchrun's variables describe.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule

sys.path.insert(0, str(Path(__file__).parent))
import conftest
import pytorch_lightning as pl
from sharded_cases import local, probe
from sharded_training import OPTIONS, Note, callback, fit

from cam_callbacks import CAMCallback
from cam_callbacks.replaying import replay


class Averaged(pl.Callback):
    """A moving average of the shards, which stands in for them in every validation; Lightning's own does not shard."""

    def __init__(self) -> None:
        self.average: list[torch.Tensor] = []

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.average = [local(p.detach()).clone() for p in module.parameters()]

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        for mean, parameter in zip(self.average, module.parameters(), strict=True):
            mean.lerp_(local(parameter.detach()), 0.3)

    def on_validation_epoch_start(self, trainer: Any, module: Any) -> None:
        for part in module.modules():
            if isinstance(part, FSDPModule):
                part.reshard()  # else it goes on with the values that it had gathered
        for mean, parameter in zip(self.average, module.parameters(), strict=not trainer.sanity_checking):
            kept = mean.clone()
            mean.copy_(local(parameter.detach()))
            local(parameter.detach()).copy_(kept)

    on_validation_epoch_end = on_validation_epoch_start


class Whole(pl.Callback):
    """Keeps the whole weights of every validation, as they are in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0

    def on_validation_batch_start(self, trainer: Any, module: Any, batch: Any, index: int, *_: Any) -> None:
        if trainer.sanity_checking or index:
            return
        whole = get_model_state_dict(module.net, options=StateDictOptions(full_state_dict=True))
        if trainer.is_global_zero:
            self.folder.mkdir(exist_ok=True)
            torch.save(whole, self.folder / f"{self.count}.pt")
        self.count += 1


def long(out: Path) -> list[Any]:
    """Ten epochs with two looks each, in the middle of an accumulation too, at an average of the weights."""
    seen = []
    for looks in ([], [callback(out / "looks", on_error="raise")]):
        note = Note()
        fit(
            out, Averaged(), *looks, Whole(out.with_name("weights")), note, epochs=10, processes=4, batch=3, val_check_interval=2,
            limit_val_batches=1, accumulate_grad_batches=3,
        )  # fmt: skip
        seen.append(note.seen)
    rank = dist.get_rank()
    dist.barrier()
    dist.destroy_process_group()
    if rank == 0:
        replay(conftest.network(), out.with_name("weights"), probe(), folder=out / "replayed", **OPTIONS)
    return [rank, [a == b for a, b in zip(*seen, strict=True)]]


def nodes(out: Path) -> list[Any]:
    """Two epochs; the disk of this node is ``out``."""
    alone, watched = Note(), Note()
    fit(out, alone, epochs=2, nodes=2)
    watch = CAMCallback(
        probe(), on_error="raise", max_overhead=1.0, **OPTIONS
    )  # its records lie below default_root_dir
    trainer, _ = fit(out, watch, watched, epochs=2, nodes=2)
    same = [a == b for a, b in zip(alone.seen, watched.seen, strict=True)]
    return [dist.get_rank(), same, {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("cam/")}]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    target = Path(sys.argv[1])
    rank, *answer = {"long": long, "nodes": nodes}[sys.argv[2]](target)
    Path(f"{target}-{rank}.json").write_text(json.dumps(answer))
