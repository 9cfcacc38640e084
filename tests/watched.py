"""A training whose end is compared bit for bit: with the callback and without."""

from __future__ import annotations

import random
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cam_callbacks import CAMCallback, ProbeSet


class Notes:
    """What a forward notes for a test; a list of its own would be as before after a look."""

    def __init__(self) -> None:
        self._noted = SimpleQueue[Any]()
        self.note = self._noted.put

    def all(self) -> list[Any]:
        noted = [self._noted.get() for _ in range(self._noted.qsize())]
        for one in noted:
            self.note(one)
        return noted


def images() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(12, 3, 16, 16, generator=generator), torch.arange(12) % 3)


def convolutions(*after: nn.Module, **layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        layers.get("first", nn.Conv2d(3, 6, 3, 2, 1)), nn.BatchNorm2d(6), nn.ReLU(), *after,
        layers.get("last", nn.Conv2d(6, 8, 3, 1, 1)), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


class Module(pl.LightningModule):
    """A classifier whose training draws from all three random streams."""

    def __init__(self, net: nn.Module | None = None) -> None:
        super().__init__()
        self.net = convolutions() if net is None else net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def loss(self, batch: Any) -> torch.Tensor:
        scale = 1 + 0.1 * random.random() + 0.1 * float(np.random.rand()) + 0.1 * torch.rand(())
        return nn.functional.cross_entropy(self(batch[0] * scale), batch[1])

    def training_step(self, batch: Any, index: int) -> Any:
        return self.loss(batch)

    def validation_step(self, batch: Any, index: int, dataloader_idx: int = 0) -> None:
        if dataloader_idx == 0:
            self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]), add_dataloader_idx=False)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), 0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


class Watcher:
    """What a training leaves behind, to be compared bit for bit."""

    def __init__(self, make: Callable[[], Any], callbacks: list[Any], loaders: int = 1, **options: Any) -> None:
        random.seed(5)
        np.random.seed(5)
        torch.manual_seed(5)
        model = make()
        options = {"max_epochs": 3, "num_sanity_val_steps": 1, **options}
        trainer = pl.Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=callbacks, **options,
        )  # fmt: skip
        validation = [DataLoader(images(), 6) for _ in range(loaders)]
        trainer.fit(model, DataLoader(images(), 3, shuffle=True), validation)
        module = trainer.lightning_module
        self.tensors = dict(module.state_dict())
        for number, optimizer in enumerate(trainer.optimizers):
            for place, values in optimizer.state_dict()["state"].items():
                self.tensors |= {f"optimizer {number} {place} {k}": torch.as_tensor(v) for k, v in values.items()}
        self.tensors |= {f"gradient {n}": p.grad for n, p in module.named_parameters() if p.grad is not None}
        self.tensors["torch"] = torch.get_rng_state()
        self.tensors["val_loss"] = trainer.callback_metrics["val_loss"]
        self.schedulers = [c.scheduler.state_dict() for c in trainer.lr_scheduler_configs]
        self.streams = random.getstate(), np.random.get_state()[1].tolist()
        self.found = [
            (
                name,
                type(m).__name__,
                m.training,
                len(m._forward_hooks),
                len(m._forward_pre_hooks),
                len(m._backward_hooks),
            )
            for name, m in module.named_modules()
        ]
        self.elsewhere = getattr(module, "elsewhere", list)()
        self.gradients = [(name, p.requires_grad) for name, p in module.named_parameters()]

    def assert_equals(self, other: Watcher) -> None:
        assert self.tensors.keys() == other.tensors.keys()
        different = [name for name, t in self.tensors.items() if not torch.equal(t, other.tensors[name])]
        assert not different
        for name in ("schedulers", "streams", "found", "gradients", "elsewhere"):
            assert getattr(self, name) == getattr(other, name), name


def watching(tmp_path: Any, **options: Any) -> CAMCallback:
    data = images().tensors
    return CAMCallback(
        ProbeSet(data[0][:4], data[1][:4]), folder=tmp_path / "records", **{"on_error": "raise", **options}
    )
