"""Several real processes over gloo: they say what one says, and an exception on one of them leaves none waiting."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cam_callbacks import RecordStore

SCRIPT = f"""
import sys, json, warnings
sys.path.insert(0, {str(Path(__file__).parent)!r})
import conftest
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import EarlyStopping
from torch.utils.data import DataLoader
from cam_callbacks import CAMCallback, ProbeSet

class Broken(CAMCallback):
    def on_validation_batch_start(self, trainer, module, *rest):
        if trainer.global_rank == int(sys.argv[2]) and trainer.current_epoch == 1:
            if sys.argv[3] == "explaining":
                module.net[0].forward = lambda x: 1 / 0
            else:
                self.watcher.monitor.write = lambda *_: 1 / 0
        super().on_validation_batch_start(trainer, module, *rest)
        module.net[0].__dict__.pop("forward", None)
        vars(self.watcher.monitor).pop("write", None)

if __name__ == "__main__":
    folder = sys.argv[1]
    data = conftest.blobs()
    callback = Broken(ProbeSet(data.tensors[0][:5], data.tensors[1][:5]), "gradcam", folder=folder, max_overhead=1.0)
    stop = EarlyStopping("cam/entropy/gradcam", patience=50)
    trainer = Trainer(max_epochs=3, accelerator="cpu", devices=2, strategy="ddp", callbacks=[stop, callback], logger=False,
        enable_checkpointing=False, enable_progress_bar=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(conftest.module(), DataLoader(data, 8), DataLoader(data, 8))
    values = {{k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("cam/")}}
    said = [m for m in (str(w.message) for w in caught) if "look skipped" in m or "`self.log('cam/" in m]
    with open(f"{{folder}}-{{trainer.global_rank}}.json", "w") as file:
        json.dump([values, callback.failed_looks, said], file)
"""


@pytest.mark.parametrize(("rank", "during"), [(0, "explaining"), (1, "explaining"), (0, "writing")])
def test_an_exception_on_one_rank_leaves_none_waiting(rank, during, tmp_path):
    (tmp_path / "ddp.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, tmp_path / "ddp.py", tmp_path / "r", str(rank), during],
        capture_output=True, text=True, timeout=240, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert [r.epoch for r in RecordStore(tmp_path / "r")] == [0, 2]
    values, failed, said = zip(*(json.loads((tmp_path / f"r-{r}.json").read_text()) for r in (0, 1)), strict=True)
    assert values[0] == values[1] and values[0]["cam/failed_looks"] == 1 and failed == (1, 1)
    assert len(said[0]) == 1 and "ZeroDivisionError" in said[0][0] and not said[1]  # told once, whatever the rank


EQUAL = f"""
import sys, json, torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
import conftest
import pytorch_lightning as pl
from torch.utils.data import DataLoader
from cam_callbacks import CAMCallback, ProbeSet

class Still(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = conftest.network()
        for m in self.modules():
            if isinstance(m, torch.nn.BatchNorm2d): m.momentum = 0.0
    def training_step(self, batch, index):
        return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
    def validation_step(self, batch, index):
        pass
    def forward(self, x):
        return self.net(x)
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)

class Note(pl.Callback):
    def on_fit_end(self, trainer, module):
        values = {{k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("cam/")}}
        with open(f"{{sys.argv[3]}}-{{trainer.global_rank}}.json", "w") as file:
            json.dump(values, file)

if __name__ == "__main__":
    strategy, devices, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    data = conftest.blobs()
    probe = ProbeSet(data.tensors[0][:7], data.tensors[1][:7], masks=conftest.blob_masks(data)[:7])
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", devices=devices, strategy=strategy, logger=False,
        callbacks=[CAMCallback(probe, folder=folder, on_error="raise"), Note()],
        enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(Still(), DataLoader(data, 8), DataLoader(data, 8))
"""


@pytest.mark.parametrize(
    ("strategy", "devices"),
    [
        ("ddp", 2),
        pytest.param("ddp", 3, marks=pytest.mark.soak),
        pytest.param("ddp_fork", 2, marks=pytest.mark.soak),
        pytest.param("ddp_spawn", 2, marks=pytest.mark.soak),
    ],
)
def test_several_processes_equal_one(strategy, devices, tmp_path):
    """Same records as one process, to 1e-6, and the same values for every monitor on every rank."""
    (tmp_path / "equal.py").write_text(EQUAL)
    for how, count, name in (("auto", 1, "one"), (strategy, devices, "several")):
        done = subprocess.run(
            [sys.executable, tmp_path / "equal.py", how, str(count), tmp_path / name],
            capture_output=True, text=True, timeout=240, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    one, several = RecordStore(tmp_path / "one"), RecordStore(tmp_path / "several")
    assert len(one) == len(several) == 2
    for a, b in zip(one, several, strict=True):
        np.testing.assert_allclose(a.maps["gradcam", "net.8"], b.maps["gradcam", "net.8"], atol=1e-6)
        for key in a.metrics.keys() - {"cam/seconds", "cam/exchange_seconds", "cam/overhead"}:
            assert a.metrics[key] == pytest.approx(b.metrics[key], abs=1e-6, nan_ok=True), key
    values = [(tmp_path / f"several-{rank}.json").read_text() for rank in range(devices)]
    assert set(values) == {values[0]} and "cam/focus_drift/gradcam" in values[0]
