"""Train the two networks of docs/why.md, and keep their records in docs/why/: what the page there is built from.

python scripts/why_records.py

The demo's trainings, with a probe of thirty images in place of a hundred, so that the page stays small.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader

from cam_callbacks import CAMCallback
from cam_callbacks.compare import compare_runs
from cam_callbacks.demo.data import make_dataset, make_probe, make_scenes
from cam_callbacks.demo.model import SmallConvNet

FOLDER = Path(__file__).parents[1] / "docs" / "why"
RUNS = {"clean": "random", "shortcut": "class"}
EPOCHS, OF_EACH_CLASS = 14, 3  # a look at every second epoch


def main(scratch: str) -> None:
    scenes = make_scenes(0)
    wanted = torch.cat([torch.where(scenes.probe.labels == c)[0][:OF_EACH_CLASS] for c in range(10)])
    parts = {name: value[wanted] for name, value in vars(scenes.probe).items()}
    probe = make_probe(replace(scenes.probe, **parts))
    for name, cue in RUNS.items():
        shutil.rmtree(FOLDER / name, ignore_errors=True)
        watcher = CAMCallback(
            probe,
            methods=("gradcam", "eigencam"),
            folder=str(FOLDER / name),
            every_n_epochs=2,
            exchange_pairs=3,
            on_error="raise",
        )
        trainer = pl.Trainer(
            max_epochs=EPOCHS,
            accelerator="cpu",
            callbacks=[watcher],
            logger=CSVLogger(scratch, name=name, version=""),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        train, val = make_dataset(scenes.train, cue, 0), make_dataset(scenes.val, cue, 1)
        order = torch.Generator().manual_seed(0)
        trainer.fit(SmallConvNet(), DataLoader(train, 128, shuffle=True, generator=order), DataLoader(val, 256))
        (FOLDER / name / "addresses.json").unlink(missing_ok=True)
    print(compare_runs(*(FOLDER / name for name in RUNS)).text())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(scratch)
