"""Two trainings that differ in the colour of a tag; the maps show which one learned the tag instead of the digit.

    python examples/planted_shortcut.py --epochs 16 --folder runs/planted_shortcut

The same experiment as `cam-callbacks demo`, with a Trainer to copy from.
"""

import argparse
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import MLFlowLogger, TensorBoardLogger
from torch.utils.data import DataLoader

from cam_callbacks import CAMCallback
from cam_callbacks.compare import compare_runs
from cam_callbacks.demo.data import make_dataset, make_probe, make_scenes
from cam_callbacks.demo.model import SmallConvNet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-images", type=int, default=2000)
    parser.add_argument("--folder", type=Path, default=Path("runs/planted_shortcut"))
    args = parser.parse_args()
    folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)

    scenes = make_scenes(args.seed, n_train=args.train_images)
    probe = make_probe(scenes.probe)  # the same 100 images for both runs; where digit and tag are is known

    stores = {}
    for name, cue in (("clean", "random"), ("shortcut", "class")):
        train, val = make_dataset(scenes.train, cue, args.seed), make_dataset(scenes.val, cue, args.seed + 1)
        watcher = CAMCallback(probe, methods=("eigencam", "gradcam"), max_images=8)
        trainer = pl.Trainer(
            max_epochs=args.epochs,
            callbacks=[watcher],
            logger=[
                TensorBoardLogger(folder / "tensorboard", name=name),
                MLFlowLogger("planted shortcut", name, f"sqlite:///{folder}/mlflow.db",
                             artifact_location=(folder / "mlartifacts").as_uri()),
            ],
            enable_checkpointing=False,
        )  # fmt: skip
        order = torch.Generator().manual_seed(args.seed)
        trainer.fit(
            SmallConvNet(seed=args.seed), DataLoader(train, 128, shuffle=True, generator=order), DataLoader(val, 256)
        )
        stores[name] = watcher.store

    comparison = compare_runs(*(store.folder for store in stores.values()))
    print(comparison.text())
    print("Comparison page:", comparison.write(folder / "compare.html"))


if __name__ == "__main__":
    main()
