"""What the examples of docstrings share: the site shows it above each page of the API, the tests run it before each example."""

ENGINE = """\
import numpy as np
import torch
from torch import nn

torch.manual_seed(0)
images, labels = torch.rand(6, 3, 32, 32), [0, 1, 2] * 2
model = nn.Sequential(
    *(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU()),
    *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
)
"""

DETECTOR = """\
from cam_engine.detect import Family, Raw, register_family
from cam_engine.detect.boxes import suppress

detector = nn.Sequential()
detector.add_module("features", nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.ReLU()))
detector.add_module("cells", nn.Conv2d(8, 2, 1))  # of each cell the logits of two classes


@register_family
class Cells(Family):
    \"\"\"The box of a row is its cell, of 8 × 8 pixels.\"\"\"

    title = "cells"
    recognises = staticmethod(lambda model: hasattr(model, "cells"))

    def layers(self):
        return ["features"]

    def raw(self, outputs):
        logits = outputs.flatten(2).transpose(1, 2)
        y, x = torch.meshgrid(*(8.0 * torch.arange(n) for n in outputs.shape[2:]), indexing="ij")
        boxes = torch.stack([x, y, x + 8, y + 8], -1).flatten(0, 1)
        return Raw(boxes.expand(len(logits), -1, -1), logits, None, logits=True)

    def detections(self, outputs, *, confidence=0.25, iou=None, max_detections=300):
        raw, iou = self.raw(outputs), iou or self.iou
        pairs = zip(raw.boxes, raw.classes.sigmoid(), strict=True)
        return [suppress(b, s, confidence=confidence, iou=iou, most=max_detections) for b, s in pairs]
"""

RUNS = """\
from cam_callbacks import CAMMonitor, ProbeSet

probe = ProbeSet(images, labels)
for run in ("runs/one", "runs/two"):  # two runs of two looks each
    monitor = CAMMonitor(probe, folder=run)
    record = [monitor.look(model, epoch) for epoch in range(2)][-1]
"""

TRAINING = """\
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset


class Classifier(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = model

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch):
        self.log("val_loss", self.training_step(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


quiet = {"enable_progress_bar": False, "enable_model_summary": False}
module, loader = Classifier(), DataLoader(TensorDataset(images, torch.tensor(labels)), 3)
"""

# What stands above the pages of these packages, beside ENGINE.
MORE = {
    "cam_engine.detect": [DETECTOR],
    "cam_engine.targets": [DETECTOR],  # BoxTarget
    "cam_callbacks": [RUNS, TRAINING],
    "cam_callbacks.loggers": [RUNS, TRAINING],
}


def setup(package: str) -> str:
    """The code that the examples of a public package begin with."""
    more = MORE.get(package, [RUNS] if package.startswith("cam_callbacks") else [])
    return "\n".join([ENGINE, *more])
