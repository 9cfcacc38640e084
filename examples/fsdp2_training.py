"""A sharded training, watched: a small vision transformer under FSDP2 on two processes, three epochs of handwritten digits.

python examples/fsdp2_training.py --folder out            # two CPU processes; --accelerator gpu --devices 4 on four GPUs
tensorboard --logdir out
"""

import argparse
from typing import Any

import pytorch_lightning as pl
import torch
from digits_data import digits
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader

from cam_callbacks import CAMCallback, ProbeSet


class VisionTransformer(nn.Module):
    """36 patches of 4×4 pixels, encoded by four blocks; the mean of the patches is classified."""

    def __init__(self, width: int = 48, depth: int = 4, classes: int = 10) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, 4)
        self.places = nn.Parameter(0.02 * torch.randn(36, width))
        block = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2) + self.places
        return self.head(self.blocks(patches).mean(1))


class Digits(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = VisionTransformer()

    def configure_model(self) -> None:
        mesh = self.device_mesh["data_parallel"]
        for block in self.net.blocks.layers:
            fully_shard(block, mesh=mesh)
        fully_shard(self.net, mesh=mesh)  # what is left: patches, places, head

    def training_step(self, batch: Any, index: int) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, index: int) -> None:
        right = (self.net(batch[0]).argmax(1) == batch[1]).float().mean()
        self.log("val_acc", right, sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 3e-3)


def main(folder: str, accelerator: str = "cpu", devices: int = 2, epochs: int = 3) -> None:
    pl.seed_everything(0, verbose=False)
    train, held_out = digits()
    watch = CAMCallback(ProbeSet.from_dataset(held_out, n=8), layers="blocks.layers.3")
    trainer = pl.Trainer(
        strategy=ModelParallelStrategy(data_parallel_size=devices, tensor_parallel_size=1),
        accelerator=accelerator, devices=devices, max_epochs=epochs, enable_progress_bar=False,
        logger=TensorBoardLogger(folder, name="", version=""),
        callbacks=[watch, ModelCheckpoint(f"{folder}/checkpoints", filename="{epoch}", save_top_k=-1)],
    )  # fmt: skip
    trainer.fit(Digits(), DataLoader(train, 40, shuffle=True), DataLoader(held_out, 32))
    if trainer.is_global_zero and watch.store is not None:
        accuracy = float(trainer.callback_metrics["val_acc"])
        print(f"{len(watch.store)} looks in {watch.store.folder}; accuracy {accuracy:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="fsdp2_out")
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--devices", type=int, default=2)
    args = parser.parse_args()
    main(args.folder, args.accelerator, args.devices)
