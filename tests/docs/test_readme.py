"""The README's snippet runs as written, on a model of the reader's own, and logs to both loggers."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from pytorch_lightning import LightningModule
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

README = Path(__file__).parents[2] / "README.md"


class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def test_the_snippet(tmp_path, monkeypatch):
    import mlflow

    snippet = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    data = TensorDataset(torch.randn(32, 3, 16, 16), torch.arange(32) % 3)
    loader = DataLoader(data, 16)
    names = {
        "val_set": data,
        "MEAN": [0.5] * 3,
        "STD": [0.25] * 3,
        "model": Model(),
        "train_loader": loader,
        "val_loader": loader,
    }
    exec(compile(snippet.replace("max_epochs=10", "max_epochs=2"), "README.md", "exec"), names)
    board, flow = names["trainer"].loggers
    events = EventAccumulator(board.log_dir, size_guidance={"images": 0})
    events.Reload()
    assert len(events.Images("cam/gradcam/sheet")) == 2
    assert len(events.Scalars("cam/focus_drift/gradcam")) == 2
    client = mlflow.MlflowClient("sqlite:///mlflow.db")
    assert "cam/focus_drift/eigencam" in client.get_run(flow.run_id).data.metrics
    assert {"cam_report.html", "cam_latest.png"} <= {f.path for f in client.list_artifacts(flow.run_id)}
