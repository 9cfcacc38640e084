"""A training of seconds, in either of Lightning's packages, that a process of its own can run too."""

import importlib

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cam_callbacks import CAMCallback, ProbeSet


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(16, 3, 16, 16, generator=generator), torch.arange(16) % 2)


def train(package: str, logger, *callbacks, epochs: int = 3, **options):
    """A small fit; returns the trainer."""
    lightning = importlib.import_module(package)

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.save_hyperparameters({"width": 4})
            self.net = nn.Sequential(
                nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
            )

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, index):
            loss = nn.functional.cross_entropy(self(nn.functional.dropout(batch[0], 0.1)), batch[1])
            self.log("loss", loss)
            return loss

        def validation_step(self, batch, index):
            self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    torch.manual_seed(0)
    trainer = lightning.Trainer(
        max_epochs=epochs, logger=logger, callbacks=list(callbacks), accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, log_every_n_steps=1, **{"enable_checkpointing": False, **options},
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(data(), 8, shuffle=True), DataLoader(data(), 8))
    return trainer


def callback(**options):
    images, labels = data().tensors
    return CAMCallback(ProbeSet(images[:3], labels[:3]), "gradcam", on_error="raise", **options)
