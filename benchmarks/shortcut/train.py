"""One training of one arm in a process of its own: records of every look, and the accuracies, in a folder.

    cd benchmarks; python -m shortcut.train onset --seed 1 --out ../runs/evidence

It prints a line of JSON after each epoch. A run that is finished, with the same settings, is not repeated.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch.utils.data import DataLoader, TensorDataset

from cam_callbacks import CAMCallback
from cam_callbacks.demo.data import make_dataset, make_probe, make_scenes
from cam_callbacks.demo.model import SmallConvNet
from cam_callbacks.demo.progress import quiet
from cam_callbacks.records.files import write_atomically
from shortcut.arms import ARMS, Arm
from shortcut.figures import drifts

# All but scorecam and ablationcam, which run the model once for each channel, and fullgrad, whose grid is another.
METHODS = (
    "eigencam", "gradcam", "gradcam++", "xgradcam", "hirescam", "layercam", "eigengradcam", "gradcam_elementwise",
    "kpcacam", "fem", "shapleycam", "finercam", "segeigencam", "cam", "smoothgradcam++", "randomcam",
)  # fmt: skip
BATCH = 128


@dataclass(frozen=True)
class Settings:
    """What a run's numbers depend on, beside its arm."""

    seed: int = 0
    epochs: int = 16
    train_images: int = 2000
    val_images: int = 300
    methods: tuple[str, ...] = METHODS


class Net(SmallConvNet):
    """The demo's network, with a learning rate that falls along a cosine or stays."""

    schedule = "cosine"

    def configure_optimizers(self) -> OptimizerLRScheduler:
        if self.schedule == "cosine":
            return super().configure_optimizers()
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)


class Data(pl.LightningDataModule):
    """An arm's images: those of an epoch carry the cue as it is in that epoch."""

    def __init__(self, arm: Arm, settings: Settings) -> None:
        super().__init__()
        self.arm, self.settings, seed = arm, settings, settings.seed
        self.scenes = make_scenes(seed, settings.train_images, settings.val_images)
        self.probe = make_probe(self.scenes.probe, arm.paint(self.scenes.probe, seed + 3))
        self.swapped = make_dataset(self.scenes.val, "swapped", seed + 2, arm.paint(self.scenes.val, seed + 1))

    def train_dataloader(self) -> DataLoader:
        seed, epoch = self.settings.seed, self.trainer.current_epoch
        paint = self.arm.paint(self.scenes.train, seed)
        order = torch.Generator().manual_seed(1000 * seed + epoch)
        train = make_dataset(self.scenes.train, self.arm.colours(epoch), seed, paint)
        return DataLoader(train, BATCH, shuffle=True, generator=order)

    def val_dataloader(self) -> DataLoader:
        paint, colours = (
            self.arm.paint(self.scenes.val, self.settings.seed + 1),
            self.arm.colours(self.trainer.current_epoch),
        )
        return DataLoader(make_dataset(self.scenes.val, colours, self.settings.seed + 1, paint), 2 * BATCH)


class Watch(pl.Callback):
    """Logs the accuracy on colours that lie, and prints where the training is."""

    def __init__(self, swapped: TensorDataset) -> None:
        self.images, self.labels = swapped.tensors

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        right = pl_module(self.images).argmax(1) == self.labels
        pl_module.log("val_acc_swapped", right.float().mean())

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        shown = {
            k: float(v)
            for k, v in trainer.callback_metrics.items()
            if k == "val_acc" or k.endswith("enrichment/gradcam")
        }
        print(json.dumps({"epoch": trainer.current_epoch} | shown), flush=True)


def train(arm: Arm, settings: Settings, folder: Path) -> Path:
    """Train, and return the folder ``<folder>/<arm>-<seed>``: records in ``cam``, and ``run.json`` once finished."""
    run = folder / f"{arm.name}-{settings.seed}"
    if is_finished(arm, settings, folder):
        return run
    shutil.rmtree(run, ignore_errors=True)  # what an interrupted run, or one with other settings, left there
    started = time.perf_counter()
    data = Data(arm, settings)
    callback = CAMCallback(data.probe, settings.methods, folder=run / "cam", on_error="raise")
    model = Net(seed=settings.seed)
    model.schedule = arm.schedule
    trainer = pl.Trainer(
        max_epochs=settings.epochs,
        accelerator="cpu",
        callbacks=[callback, Watch(data.swapped)],
        logger=False,
        default_root_dir=run,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, data)
    done = described(arm, settings) | {
        "seconds": round(time.perf_counter() - started, 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": pl.__version__,
    }
    write_atomically(run / "run.json", json.dumps(done, indent=1).encode())
    drifts(run)
    return run


def is_finished(arm: Arm, settings: Settings, folder: Path) -> bool:
    """Is there a run of this arm that ended, with these settings?"""
    path = folder / f"{arm.name}-{settings.seed}" / "run.json"
    return path.is_file() and described(arm, settings).items() <= json.loads(path.read_text()).items()


def described(arm: Arm, settings: Settings) -> dict[str, object]:
    """What a finished run is known by, as JSON gives it back."""
    return json.loads(json.dumps({"arm": asdict(arm), "settings": asdict(settings)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=ARMS)
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    parser.add_argument("--train-images", type=int, default=Settings.train_images)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with quiet():
        train(ARMS[given.arm], Settings(given.seed, given.epochs, given.train_images), given.out)


if __name__ == "__main__":
    main()
