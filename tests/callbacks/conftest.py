"""A small real training, in either of Lightning's two packages."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

PACKAGES = ("pytorch_lightning", "lightning.pytorch")


def lightning(package: str) -> SimpleNamespace:
    """Trainer, LightningModule, loggers and callbacks of one of the two packages."""
    main = importlib.import_module(package)
    loggers = importlib.import_module(f"{package}.loggers")
    callbacks = importlib.import_module(f"{package}.callbacks")
    return SimpleNamespace(**{n: getattr(main, n) for n in ("Trainer", "LightningModule", "LightningDataModule")},
                           loggers=loggers, callbacks=callbacks)  # fmt: skip


def network(classes: int = 4, seed: int = 0) -> nn.Sequential:
    """Three strided convolutions with batch norm and dropout: something for a careless observer to disturb."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
            nn.Conv2d(8, 12, 3, 1, 1), nn.BatchNorm2d(12), nn.ReLU(inplace=True), nn.Dropout2d(0.2),
            nn.Conv2d(12, 16, 3, 2, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes),
        )  # fmt: skip


def blobs(n: int = 48, size: int = 24, seed: int = 0) -> TensorDataset:
    """Images whose class is the quadrant that a bright blob lies in."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    images = torch.randn(n, 3, size, size, generator=generator) * 0.3
    half = size // 2
    for image, label in zip(images, labels.tolist(), strict=True):
        top, left = (label // 2) * half + 3, (label % 2) * half + 3
        image[:, top : top + 6, left : left + 6] += 2
    return TensorDataset(images, labels)


def blob_masks(data: TensorDataset) -> torch.Tensor:
    return data.tensors[0].mean(1) > 1


def module(package: str = "pytorch_lightning", **attributes: Any) -> Any:
    """A plain classification module; ``attributes`` are set on its class."""
    base = lightning(package).LightningModule

    class Classifier(base):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("val_acc", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)

    for name, value in attributes.items():
        setattr(Classifier, name, value)
    return Classifier()


@pytest.fixture
def data() -> TensorDataset:
    return blobs()


@pytest.fixture
def masks(data: TensorDataset) -> torch.Tensor:
    return blob_masks(data)


@pytest.fixture
def fit(tmp_path: Path, data: TensorDataset) -> Callable[..., Any]:
    """``fit(*callbacks, package=…, model=…, logger=…, epochs=…)`` runs a real ``Trainer.fit`` and returns the trainer."""

    def run(
        *callbacks: Any, package: str = "pytorch_lightning", model: Any = None, logger: Any = False, epochs: int = 3,
        ckpt_path: str | None = None, **options: Any,
    ) -> Any:  # fmt: skip
        torch.manual_seed(1)
        options = {"enable_checkpointing": False, "num_sanity_val_steps": 1, **options}
        trainer = lightning(package).Trainer(
            max_epochs=epochs, callbacks=list(callbacks), logger=logger, accelerator="cpu", devices=1,
            enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1, default_root_dir=tmp_path,
            **options,
        )  # fmt: skip
        train = DataLoader(data, 16, shuffle=True)
        trainer.fit(model or module(package), train, DataLoader(data, 16), ckpt_path=ckpt_path)
        return trainer

    return run


@pytest.fixture
def make_module() -> Callable[..., Any]:
    return module


@pytest.fixture
def net() -> nn.Sequential:
    return network()


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pl() -> Callable[[str], SimpleNamespace]:
    return lightning


@pytest.fixture
def mlflow_logger() -> Callable[..., Any]:
    """``mlflow_logger(lightning, folder)``: a logger to a database in that folder."""

    def make(package: SimpleNamespace, folder: Path) -> Any:
        return package.loggers.MLFlowLogger(
            "tests",
            run_name="run one",
            tracking_uri=f"sqlite:///{folder}/mlflow.db",
            artifact_location=str(folder / "artifacts"),
        )

    return make


@pytest.fixture
def image_tags() -> Callable[[Any], list[str]]:
    """Tags of the pictures that a TensorBoardLogger's folder holds."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(board: Any) -> list[str]:
        events = EventAccumulator(board.log_dir, size_guidance={"images": 0})
        events.Reload()
        return list(events.Tags()["images"])

    return read


@pytest.fixture
def replay_command(tmp_path, monkeypatch):
    """Makes the command line that replays checkpoints of a module ``name``; the working folder holds them, and a probe."""

    def make(name, epochs):
        for label in ("cat", "dog"):
            (tmp_path / "probe" / label).mkdir(parents=True)
            for i in range(2):
                pixels = np.random.default_rng(i).integers(0, 255, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "probe" / label / f"{i}.png")
        (tmp_path / f"{name}.py").write_text(
            "from torch import nn\n"
            "def make():\n"
            "    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))\n"
        )
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path))
        for epoch in epochs:
            torch.save(importlib.import_module(name).make().state_dict(), f"epoch={epoch}.pt")
        return ["replay", ".", "--model", f"{name}:make", "--probe", "probe", "--method", "gradcam"]

    return make
