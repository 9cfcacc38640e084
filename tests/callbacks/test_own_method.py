"""A method of the user's own in a training: named like any other, tracked like any other."""

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cam_callbacks import CAMCallback, ProbeSet
from cam_engine import register
from cam_engine.methods import registry


@pytest.fixture
def brightest():
    @register("brightest (A/g)+", needs=["gradients"])
    def brightest(activations, gradients):
        return (activations * gradients.abs()).amax(1)

    yield "brightest (A/g)+"
    del registry._METHODS["brightest (A/g)+"]


class Classifier(LightningModule):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05)


def test_a_fit_tracks_it(brightest, photos, tmp_path):
    images, labels = photos[:, :, :24, :24], torch.arange(8) % 2
    loader = DataLoader(TensorDataset(images, labels), batch_size=4)
    callback = CAMCallback(
        ProbeSet(images[:4], labels[:4].tolist()), methods=[brightest, "gradcam"], folder=str(tmp_path)
    )
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Classifier(), loader, loader)
    assert torch.isfinite(trainer.callback_metrics["cam/entropy/brightest__A_g_p"])
    assert len(callback.store) == 2
    (maps,) = [m for (method, _), m in callback.store[-1].maps.items() if method == brightest]
    assert maps.shape == (4, 6, 6) and np.isfinite(maps).all() and maps.max() > 0
