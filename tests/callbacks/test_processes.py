"""Two real processes over gloo: an exception on one of them leaves none waiting."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
            module.net[0].forward = lambda x: 1 / 0
        super().on_validation_batch_start(trainer, module, *rest)
        module.net[0].__dict__.pop("forward", None)

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
    said = [str(w.message) for w in caught if "look skipped" in str(w.message)]
    with open(f"{{folder}}-{{trainer.global_rank}}.json", "w") as file:
        json.dump([values, callback.failed_looks, said], file)
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_an_exception_on_one_rank_leaves_none_waiting(rank, tmp_path):
    from cam_callbacks import RecordStore

    (tmp_path / "ddp.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, tmp_path / "ddp.py", tmp_path / "r", str(rank)],
        capture_output=True, text=True, timeout=240, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert [r.epoch for r in RecordStore(tmp_path / "r")] == [0, 2]
    values, failed, said = zip(*(json.loads((tmp_path / f"r-{r}.json").read_text()) for r in (0, 1)), strict=True)
    assert values[0] == values[1] and values[0]["cam/failed_looks"] == 1 and failed == (1, 1)
    assert all(f"failed on rank {rank}: ZeroDivisionError" in " ".join(messages) for messages in said)
