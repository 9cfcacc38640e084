# %% [markdown]
# # Watch a detector
#
# With ultralytics it is two lines, and `examples/ultralytics_training.py` is a whole training:
#
# ```python
# yolo = YOLO("yolov8n.yaml")
# watch = attach(yolo)  # from cam_callbacks.ultralytics
# yolo.train(data="shapes.yaml", epochs=50)
# ```
#
# torchvision's and transformers' detectors inside a `LightningModule` are recognised too
# ([detection](../detection.md)). This tutorial takes the case that is left: a detector of your own, small enough to
# train here, on squares and discs.

# %%
import logging
import warnings

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

warnings.filterwarnings("ignore")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
SIZE, CELL = 64, 8


def scene(rng):
    """A picture with one square or disc, its class and its box; and a stripe that means nothing."""
    image = rng.random((3, SIZE, SIZE)).astype(np.float32) * 0.4
    image[:, :, int(rng.integers(SIZE - 4)) :][:, :, :4] = rng.random((3, 1, 1))
    kind, side = int(rng.integers(2)), int(rng.integers(18, 30))
    x, y = (int(v) for v in rng.integers(0, SIZE - side, 2))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    inside = (rows >= y) & (rows < y + side) & (columns >= x) & (columns < x + side)
    if kind == 1:
        inside &= np.hypot(rows - y - side / 2 + 0.5, columns - x - side / 2 + 0.5) <= side / 2
    image[:, inside] = rng.random((3, 1)) * 0.5 + 0.5
    return image, kind, [x, y, x + side, y + side]


rng = np.random.default_rng(0)
pictures, kinds, boxes = (np.array(part) for part in zip(*(scene(rng) for _ in range(1200)), strict=True))
images, kinds, boxes = torch.from_numpy(pictures), torch.from_numpy(kinds), torch.from_numpy(boxes).float()


# %% [markdown]
# ## The detector
#
# One stage: each cell of an 8×8 grid says which class has its centre there, and how large its box is.


# %%
class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.neck = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 48, 3, 2, 1), nn.BatchNorm2d(48), nn.ReLU(), nn.Conv2d(48, 48, 3, 1, 1), nn.ReLU(),
        )  # fmt: skip
        self.cell_logits, self.cell_size = nn.Conv2d(48, 2, 1), nn.Conv2d(48, 2, 1)

    def forward(self, images):
        neck = self.neck(images)
        return {"logits": self.cell_logits(neck), "size": self.cell_size(neck).exp() * CELL}


class Training(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.detector = Detector()

    def loss(self, batch):
        images, kinds, boxes = batch
        out, at = self.detector(images), torch.arange(len(images))
        centre = ((boxes[:, :2] + boxes[:, 2:]) / 2 // CELL).long()
        truth = torch.zeros_like(out["logits"])
        truth[at, kinds, centre[:, 1], centre[:, 0]] = 1
        size = out["size"][at, :, centre[:, 1], centre[:, 0]]
        there = nn.functional.binary_cross_entropy_with_logits(out["logits"], truth, pos_weight=torch.tensor(20.0))
        return there + nn.functional.l1_loss(size, boxes[:, 2:] - boxes[:, :2]) / SIZE

    def training_step(self, batch, index):
        return self.loss(batch)

    def validation_step(self, batch, index):
        best = self.detector(batch[0])["logits"].flatten(1).argmax(1) // (SIZE // CELL) ** 2
        self.log("val_acc", (best == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 3e-3)


# %% [markdown]
# ## Made known
#
# One class says how the detector is recognised, which layers its head reads, and where boxes and scores lie in its
# outputs. From then on `CAMCallback`, `explain` and the command line treat it as one.

# %%
from cam_engine.detect import Family, Raw, register_family
from cam_engine.detect.boxes import suppress


@register_family
class CellFamily(Family):
    title = "cells with sizes"

    @staticmethod
    def recognises(model):
        return hasattr(model, "cell_logits")

    def layers(self):
        return ["neck"]

    def raw(self, outputs):
        """A row for each cell: its box, its logits."""
        logits, size = outputs["logits"], outputs["size"]
        y, x = torch.meshgrid(*(CELL * (torch.arange(n) + 0.5) for n in logits.shape[2:]), indexing="ij")
        centre = torch.stack([x, y])[None]
        corners = torch.cat([centre - size / 2, centre + size / 2], 1)
        return Raw(corners.flatten(2).transpose(1, 2), logits.flatten(2).transpose(1, 2), None, logits=True)

    def detections(self, outputs, *, confidence=0.25, iou=None, max_detections=300):
        raw = self.raw(outputs)
        settings = {"confidence": confidence, "iou": iou or 0.5, "most": max_detections}
        return [suppress(b, s, **settings) for b, s in zip(raw.boxes, raw.classes.sigmoid(), strict=True)]


# %% [markdown]
# ## Watched
#
# The probe has boxes, so the target is what makes the true class likely inside the true box, and enrichment is measured
# on it.

# %%
from cam_callbacks import CAMCallback, ProbeSet

train_set = TensorDataset(images[:1000], kinds[:1000], boxes[:1000])
val_set = TensorDataset(images[1000:], kinds[1000:], boxes[1000:])
probe = ProbeSet(
    images[1000:1016], labels=kinds[1000:1016].tolist(), boxes=[[box.tolist()] for box in boxes[1000:1016]],
    class_names=["square", "disc"],
)  # fmt: skip
watch = CAMCallback(probe, methods=("gradcam", "layercam"), folder="looks", model="detector")
trainer = pl.Trainer(
    max_epochs=14, callbacks=[watch], accelerator="cpu", logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
)  # fmt: skip
trainer.fit(Training(), DataLoader(train_set, 50, shuffle=True), DataLoader(val_set, 200))
for record in [*watch.store][::3]:
    numbers = [record.metrics[f"cam/on_target_enrichment/{method}"] for method in ("gradcam", "layercam")]
    print(f"epoch {record.epoch}: class right {record.user_metrics['val_acc']:.2f}, focus on the boxes, 1 is chance: "
          f"gradcam {numbers[0]:.1f}, layercam {numbers[1]:.1f}")  # fmt: skip

# %% alt="The last look at eight pictures: LayerCAM's focus lies on the square or disc inside its outlined box, not on the stripes"
from PIL import Image

from cam_callbacks.drawing import Drawing

Image.fromarray(Drawing(watch.store, max_images=8).sheet(watch.store[-1], "layercam", "neck"))

# %% [markdown]
# Enrichment is high from the start: what makes a class likely inside a box can leave the box only as far as the
# receptive field reaches. That is why it is the target: what the model *detects* is nothing at first, and would come
# and go. What can be read from it here is that no picture falls behind, and that the stripes get nothing.
#
# `valid_frac` is worth a look in detectors with several levels: 0 says that no box of the probe is found on that level.
# More on what the numbers say here: [detection](../detection.md#what-the-numbers-say-here).
