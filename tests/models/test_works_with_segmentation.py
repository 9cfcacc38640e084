"""Segmentations with real libraries and no argument: each image's largest true class, in its true region."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from works_with import KINDS, SIZE, Module, row, shapes, watch

from cam_engine.targets import MaskTarget

pytestmark = [pytest.mark.models, pytest.mark.timeout(900)]
pytest.importorskip("torchvision", reason="make test-models runs this in .venv-peers")


PLACES = ("background", *KINDS)


def with_border(mask):
    """As data sets have it: pixels that count for nothing are 255."""
    mask = mask.clone()
    mask[:3] = 255
    return mask


def check(seen, own, classes=4):
    """The look against the model's own output for the same images, (B, K, h, w)."""
    own = own[seen.rows]
    labels = torch.tensor(seen.record.targets)
    maps = seen.probe.class_maps
    regions = maps == labels[:, None, None]
    largest = [torch.bincount(m[m > 0], minlength=classes).argmax() for m in maps]
    assert seen.task.kind == "segmentation"
    np.testing.assert_array_equal(labels, largest)
    np.testing.assert_allclose(seen.record.scores, MaskTarget(labels, regions)(own), atol=1e-3)
    dense = F.interpolate(own, SIZE).argmax(1) if own.shape[1] > 1 else (F.interpolate(own, SIZE)[:, 0] > 0).long()
    agree = [
        int(torch.bincount(d[r], minlength=classes).argmax()) == p
        for d, r, p in zip(dense, regions, seen.record.predictions, strict=True)
    ]
    assert np.mean(agree) > 0.85  # a border of cells that lie half inside counts otherwise
    np.testing.assert_array_equal(seen.store.probe["masks"], regions)
    assert np.isfinite(seen.record.metrics["cam/on_target_enrichment/eigencam"])
    assert {"cam/follows_object", "cam/follows_background"} <= set(seen.record.metrics)


def test_torchvision(tmp_path):
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    def loss(outputs, masks):
        return F.cross_entropy(outputs["out"], masks, ignore_index=255)

    def make():
        return Module(lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4), loss, 1e-2)

    seen = watch(make, shapes(lambda s: (s.image, with_border(s.mask)), classes=PLACES), tmp_path)
    check(seen, seen.returned["out"])
    row("torchvision", 'semantic segmentation, `{"out": …}`, 255 ignored', "", seen.store, "torchvision_segmentation")


def test_segmentation_models_pytorch(tmp_path):
    smp = pytest.importorskip("segmentation_models_pytorch")

    def make():
        return Module(smp.Unet("resnet18", encoder_weights=None, classes=4), F.cross_entropy)

    seen = watch(make, shapes(lambda s: (s.image, s.mask), classes=PLACES), tmp_path)
    check(seen, seen.returned)
    row("segmentation_models_pytorch", "semantic segmentation with a U-Net", "", seen.store, "smp_unet")


def test_one_channel(tmp_path):
    smp = pytest.importorskip("segmentation_models_pytorch")

    def make():
        net = smp.Unet("resnet18", encoder_weights=None, classes=1)
        return Module(net, smp.losses.DiceLoss("binary", from_logits=True))

    seen = watch(
        make, shapes(lambda s: (s.image, (s.mask > 0)[None].float()), classes=("background", "shape")), tmp_path
    )
    check(seen, seen.returned, classes=2)
    row("segmentation_models_pytorch", "one channel, (1, H, W) masks", "", seen.store, "smp_binary")


class Dictionaries(Module):
    """Batches of images and masks by name."""

    def of(self, batch):
        outputs = self(batch["image"])
        outputs = getattr(outputs, "logits", outputs)
        size = batch["mask"].shape[-2:]
        return self.loss(F.interpolate(outputs, size, mode="bilinear"), batch["mask"])

    def training_step(self, batch, index):
        return self.of(batch)

    def validation_step(self, batch, index):
        self.log("val_loss", self.of(batch))


def test_segformer(tmp_path):
    transformers = pytest.importorskip("transformers")

    def make():
        config = transformers.SegformerConfig(
            num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[16, 32], patch_sizes=[7, 3], strides=[4, 2],
            num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=32, num_labels=4,
        )  # fmt: skip
        return Dictionaries(transformers.SegformerForSemanticSegmentation(config), F.cross_entropy, 5e-3)

    seen = watch(make, shapes(lambda s: {"image": s.image, "mask": s.mask}, classes=PLACES), tmp_path)
    assert seen.returned.logits.shape[-1] == SIZE // 4
    check(seen, seen.returned.logits)
    row("transformers", "SegFormer, logits at a quarter of the size", "", seen.store, "transformers_segformer")


def test_monai(tmp_path):
    nets = pytest.importorskip("monai.networks.nets")

    def make():
        net = nets.UNet(
            spatial_dims=2, in_channels=3, out_channels=4, channels=(8, 16, 32), strides=(2, 2), num_res_units=1
        )
        return Dictionaries(net, F.cross_entropy)

    seen = watch(make, shapes(lambda s: {"image": s.image, "mask": s.mask}, classes=PLACES), tmp_path)
    check(seen, seen.returned)
    row("MONAI", "UNet, dictionaries", "", seen.store, "monai_unet")


def test_torchgeo(tmp_path):
    trainers = pytest.importorskip("torchgeo.trainers")

    def make():
        return trainers.SemanticSegmentationTask(
            model="unet", backbone="resnet18", in_channels=3, num_classes=4, loss="ce", ignore_index=255, lr=2e-3
        )

    seen = watch(make, shapes(lambda s: {"image": s.image, "mask": with_border(s.mask)}, classes=PLACES), tmp_path)
    check(seen, seen.returned)
    row("torchgeo", "SemanticSegmentationTask", "", seen.store, "torchgeo_segmentation")
