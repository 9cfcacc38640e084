"""Classifications with real libraries and no argument: the label's score, and what the model itself says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from works_with import KINDS, Module, row, shapes, watch

pytestmark = [pytest.mark.models, pytest.mark.timeout(900)]
timm = pytest.importorskip("timm", reason="make test-models runs this in .venv-peers")


def small():
    return timm.create_model("test_resnet", num_classes=3)


def test_timm(tmp_path):
    seen = watch(lambda: Module(small(), F.cross_entropy), shapes(lambda s: (s.image, s.label)), tmp_path)
    own = seen.returned[seen.rows]
    labels = torch.tensor(seen.record.targets)
    assert seen.task.kind == "classification" and seen.probe.class_names == list(KINDS)
    np.testing.assert_array_equal(seen.record.predictions, own.argmax(1))
    np.testing.assert_allclose(seen.record.confidences, own.softmax(1).amax(1), atol=1e-4)
    np.testing.assert_allclose(seen.record.scores, own.gather(1, labels[:, None])[:, 0], atol=1e-4)
    row("timm", "classification", "", seen.store, "timm_classification")


def test_one_logit_with_float_labels(tmp_path):
    def make():
        return Module(timm.create_model("test_resnet", num_classes=1), F.binary_cross_entropy_with_logits)

    items = shapes(lambda s: (s.image, torch.tensor([float(s.label == 1)])))
    seen = watch(make, items, tmp_path)
    z, labels = seen.returned[seen.rows][:, 0], torch.tensor(seen.record.targets)
    np.testing.assert_array_equal(seen.record.predictions, z > 0)
    np.testing.assert_allclose(seen.record.confidences, torch.maximum(z.sigmoid(), (-z).sigmoid()), atol=1e-4)
    np.testing.assert_allclose(seen.record.scores, torch.where(labels == 1, z, -z), atol=1e-4)
    row("timm", "classification with one logit", "", seen.store, "timm_binary")


def test_several_labels(tmp_path):
    def make():
        return Module(small(), F.binary_cross_entropy_with_logits)

    seen = watch(make, shapes(lambda s: (s.image, s.labels), several=True), tmp_path)
    z, true = seen.returned[seen.rows], seen.probe.label_sets
    best = torch.where(true, z, -torch.inf).argmax(1)
    assert seen.task.kind == "multilabel" and seen.record.predictions is None
    np.testing.assert_array_equal(seen.record.targets, best)
    np.testing.assert_allclose(seen.record.scores, z.gather(1, best[:, None])[:, 0], atol=1e-4)
    np.testing.assert_allclose(seen.record.confidences, z.sigmoid().gather(1, best[:, None])[:, 0], atol=1e-4)
    row("timm", "multi-label classification", "", seen.store, "timm_multilabel")


def test_transformers_vit(tmp_path):
    transformers = pytest.importorskip("transformers")

    class ViT(Module):
        def training_step(self, batch, index):
            return F.cross_entropy(self(batch["pixel_values"]).logits, batch["labels"])

        def validation_step(self, batch, index):
            self.log("val_loss", F.cross_entropy(self(batch["pixel_values"]).logits, batch["labels"]))

    def make():
        config = transformers.ViTConfig(
            hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96, image_size=64, patch_size=8,
            num_labels=3,
        )  # fmt: skip
        return ViT(transformers.ViTForImageClassification(config), None)

    items = shapes(lambda s: {"pixel_values": s.image, "labels": s.label})
    seen = watch(make, items, tmp_path)
    own = seen.returned.logits[seen.rows]
    np.testing.assert_array_equal(seen.record.predictions, own.argmax(1))
    np.testing.assert_allclose(seen.record.confidences, own.softmax(1).amax(1), atol=1e-4)
    row("transformers", "classification with a ViT", "", seen.store, "transformers_vit")


def test_torchgeo(tmp_path):
    trainers = pytest.importorskip("torchgeo.trainers")

    def make():
        return trainers.ClassificationTask(model="test_resnet", num_classes=3, in_channels=3, lr=2e-3)

    seen = watch(make, shapes(lambda s: {"image": s.image, "label": torch.tensor(s.label)}), tmp_path)
    np.testing.assert_array_equal(seen.record.predictions, seen.returned[seen.rows].argmax(1))
    row("torchgeo", "ClassificationTask", "", seen.store, "torchgeo_classification")


def test_ultralytics(tmp_path):
    ultralytics = pytest.importorskip("ultralytics")
    from PIL import Image
    from ultralytics import settings
    from works_with import scene

    from cam_callbacks.ultralytics import attach

    off = {
        k: False
        for k in ("sync", "mlflow", "tensorboard", "clearml", "comet", "dvc", "raytune", "wandb")
        if k in settings
    }
    settings.update(off)
    for split, n, seed in (("train", 24, 0), ("val", 12, 1000)):
        for i in range(n):
            of = scene(seed + i)
            folder = tmp_path / "shapes" / split / KINDS[of.label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray((of.image * 255).byte().permute(1, 2, 0).numpy()).save(folder / f"{i}.png")

    def run(name, watched):
        torch.manual_seed(0)
        yolo = ultralytics.YOLO("yolov8n-cls.yaml")
        watch = attach(yolo, on_error="raise", tensorboard=False) if watched else None
        yolo.train(data=str(tmp_path / "shapes"), project=str(tmp_path), name=name, epochs=2, imgsz=64, batch=8, workers=0,
                   amp=False, plots=False, verbose=False, seed=3)  # fmt: skip
        return yolo, watch

    (plain, _), (yolo, watch_) = run("plain", False), run("watched", True)
    ours, theirs = yolo.trainer.model.state_dict(), plain.trainer.model.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert watch_.failed_looks == 0 and [r.epoch for r in watch_.store] == [0, 1]
    record, probe = watch_.store[-1], watch_.watcher.monitor.probe
    net = yolo.trainer.ema.ema.float().eval()
    with torch.no_grad():
        probabilities, logits = net(probe.images)
    assert probe.boxes is None and probe.class_names == sorted(KINDS)
    np.testing.assert_array_equal(record.predictions, probabilities.argmax(1))
    np.testing.assert_allclose(record.confidences, probabilities.amax(1), atol=1e-3)
    np.testing.assert_allclose(record.scores, logits.gather(1, torch.tensor(record.targets)[:, None])[:, 0], atol=1e-2)
    row("ultralytics", "classification", "`attach(yolo)`", watch_.store, "ultralytics_classification", "layercam")
