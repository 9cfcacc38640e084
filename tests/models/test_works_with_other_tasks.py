"""Regressions, detectors, autoencoders and self-supervised trainings with real libraries and no argument."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from works_with import KINDS, Module, row, shapes, watch

pytestmark = [pytest.mark.models, pytest.mark.timeout(900)]
pytest.importorskip("timm", reason="make test-models runs this in .venv-peers")


def test_a_regression_of_one_value(tmp_path):
    import timm

    def loss(outputs, values):
        return F.mse_loss(outputs[:, 0], values.float())

    for item, values in (
        ((lambda s: (s.image, torch.tensor(s.value))), True),
        (lambda s: (s.image, int(10 * s.value)), False),
    ):
        folder = tmp_path / str(values)
        seen = watch(lambda: Module(timm.create_model("test_resnet", num_classes=1), loss), shapes(item), folder)
        assert seen.task.kind == "regression" and seen.record.predictions is None
        np.testing.assert_allclose(seen.record.scores, seen.returned[seen.rows][:, 0], rtol=1e-4, atol=1e-4)
    row("timm", "regression, integer or float targets", "", seen.store, "timm_regression")


def test_torchgeo_regression(tmp_path):
    trainers = pytest.importorskip("torchgeo.trainers")

    def make():
        return trainers.RegressionTask(model="test_resnet", num_outputs=1, in_channels=3, lr=2e-3)

    seen = watch(make, shapes(lambda s: {"image": s.image, "label": torch.tensor(s.value)}), tmp_path)
    assert seen.task.kind == "regression"
    np.testing.assert_allclose(seen.record.scores, seen.returned[seen.rows].flatten(), rtol=1e-4, atol=1e-4)
    row("torchgeo", "RegressionTask", "", seen.store, "torchgeo_regression")


def test_several_values(tmp_path):
    import timm

    def make():
        return Module(timm.create_model("test_resnet", num_classes=4), F.mse_loss)

    seen = watch(make, shapes(lambda s: (s.image, s.box / 64)), tmp_path, arguments={"target": 2})
    np.testing.assert_allclose(seen.record.scores, seen.returned[seen.rows][:, 2], rtol=1e-4, atol=1e-4)
    row("timm", "regression of four values", "`target=2` for the third; none for the first", seen.store, "timm_values")


def test_an_autoencoder(tmp_path):
    def make():
        encoder = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
                                nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU())  # fmt: skip
        decoder = nn.Sequential(nn.ConvTranspose2d(16, 16, 2, 2), nn.ReLU(), nn.ConvTranspose2d(16, 8, 2, 2), nn.ReLU(),
                                nn.ConvTranspose2d(8, 3, 2, 2), nn.Sigmoid())  # fmt: skip
        return Reconstructs(nn.Sequential(encoder, decoder), F.mse_loss)

    class Reconstructs(Module):
        def training_step(self, batch, index):
            return self.loss(self(batch[0]), batch[0])

        def validation_step(self, batch, index):
            self.log("val_loss", self.loss(self(batch[0]), batch[0]))

    seen = watch(make, shapes(lambda s: (s.image, s.label)), tmp_path)
    assert seen.task.kind == "no score" and seen.record.predictions is None and seen.record.scores is None
    assert {m for m, _ in seen.record.maps} == {"eigencam"} and seen.store.manifest["layers"] == ["net.0"]
    assert not any(key.startswith("cam/follows") for key in seen.record.metrics)
    row("PyTorch", "autoencoder", "", seen.store, "autoencoder", "eigencam")


def test_self_supervised(tmp_path):
    pytest.importorskip("lightly")
    import timm
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead

    class SimCLR(Module):
        def __init__(self):
            super().__init__(timm.create_model("test_resnet", num_classes=0), NTXentLoss())
            self.head = SimCLRProjectionHead(self.net.num_features, 32, 16)

        def forward(self, x):
            return self.head(self.net(x))

        def training_step(self, batch, index):
            return self.loss(self(batch[0]), self(batch[0].flip(3)))

        def validation_step(self, batch, index):
            self.log("val_loss", self.loss(self(batch[0]), self(batch[0].flip(3))))

    seen = watch(SimCLR, shapes(lambda s: (s.image, s.label)), tmp_path)
    assert seen.task.kind == "no score" and seen.record.predictions is None
    assert {m for m, _ in seen.record.maps} == {"eigencam"}
    row("lightly", "SimCLR", "", seen.store, "lightly_simclr", "eigencam")


def test_a_detector(tmp_path):
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    def make():
        backbone = resnet_fpn_backbone(
            backbone_name="resnet18", weights=None, trainable_layers=5, returned_layers=[2, 3, 4]
        )
        sizes = AnchorGenerator(((16,), (24,), (32,), (48,)), ((1.0,),) * 4)
        return Detects(RetinaNet(backbone, 4, anchor_generator=sizes, min_size=64, max_size=64), None)

    class Detects(Module):
        def training_step(self, batch, index):
            return sum(self.net(*batch).values())

        def validation_step(self, batch, index):
            self.log("found", float(sum(len(kept["boxes"]) for kept in self(batch[0]))), batch_size=len(batch[0]))

    def item(s):
        return s.image, {"boxes": s.box[None], "labels": torch.tensor([1 + s.label])}

    def together(items):
        return tuple(map(list, zip(*items, strict=True)))

    seen = watch(make, shapes(item, classes=("background", *KINDS)), tmp_path, collate_fn=together)
    assert seen.task.kind == "detection" and seen.record.predictions is None
    np.testing.assert_array_equal(seen.record.targets, seen.probe.labels)
    layer = seen.store.manifest["layers"][0]
    assert np.isfinite(seen.record.metrics[f"cam/on_target_enrichment/gradcam/{layer}"])
    row("torchvision", "detection", "", seen.store, "torchvision_detection")
