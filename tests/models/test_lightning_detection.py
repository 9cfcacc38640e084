"""Real fits of torchvision detectors in a LightningModule, watched by CAMCallback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

pytest.importorskip("torchvision", reason="make test-models runs this in .venv-peers")
import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from cam_callbacks import CAMCallback, CAMMonitor, ProbeSet
from cam_callbacks.look.detection import ProbeBoxTarget
from cam_callbacks.look.options import LookOptions
from cam_callbacks.look.subject import subject_of
from cam_engine.detect import family_of

pytestmark = [pytest.mark.models, pytest.mark.timeout(900)]

SIZE = 160
LEVELS = [f"backbone.fpn.layer_blocks.{i}" for i in range(4)]


def scenes(n: int, seed: int = 0) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """Noise with one bright red (class 1) or blue (class 2) square in each."""
    generator = torch.Generator().manual_seed(seed)
    items = []
    for index in range(n):
        image = torch.rand(3, SIZE, SIZE, generator=generator) * 0.3
        side = int(torch.randint(30, 60, (), generator=generator))
        x, y = torch.randint(0, SIZE - side, (2,), generator=generator).tolist()
        label = 1 + index % 2
        image[0 if label == 1 else 2, y : y + side, x : x + side] = 1
        box = torch.tensor([[x, y, x + side, y + side]], dtype=torch.float32)
        items.append((image, {"boxes": box, "labels": torch.tensor([label])}))
    return items


def backbone(levels: list[int]):
    return resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5, returned_layers=levels)


def faster_rcnn(size: int = SIZE) -> FasterRCNN:
    sizes = AnchorGenerator(((16,), (32,), (64,), (128,), (128,)), ((1.0,),) * 5)
    return FasterRCNN(
        backbone([1, 2, 3, 4]), 3, rpn_anchor_generator=sizes, min_size=size, max_size=2 * size,
        rpn_pre_nms_top_n_test=200, rpn_post_nms_top_n_test=50, rpn_post_nms_top_n_train=100,
    )  # fmt: skip


def retinanet(size: int = SIZE) -> RetinaNet:
    sizes = AnchorGenerator(((32,), (48,), (64,), (128,)), ((1.0,),) * 4)
    return RetinaNet(backbone([2, 3, 4]), 3, anchor_generator=sizes, min_size=size, max_size=2 * size)


class Detector(pl.LightningModule):
    """What people write: a detector in an attribute, lists of images and targets in batches."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.model = net

    def forward(self, images):
        return self.model(images)

    def training_step(self, batch, index):
        return sum(self.model(*batch).values())

    def validation_step(self, batch, index):
        self.log("kept", float(sum(len(kept["boxes"]) for kept in self(batch[0]))), batch_size=len(batch[0]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.005, momentum=0.9)


def batches(items, size: int = 2) -> DataLoader:
    return DataLoader(items, size, collate_fn=lambda pairs: tuple(map(list, zip(*pairs, strict=True))))


def fit(net, folder: Path, *callbacks, epochs: int = 2):
    logger = TensorBoardLogger(folder, "board")
    trainer = pl.Trainer(
        max_epochs=epochs, callbacks=list(callbacks), logger=logger, accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, default_root_dir=folder,
    )  # fmt: skip
    torch.manual_seed(1)
    module = Detector(net)
    trainer.fit(module, batches(scenes(4)), batches(scenes(2, seed=1)))
    return module, logger


@pytest.mark.parametrize("make", [retinanet, faster_rcnn])
def test_a_detectors_fit_is_watched_level_by_level(make, tmp_path):
    torch.manual_seed(0)
    net = make()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    probe = ProbeSet.from_dataset(scenes(3, seed=2), n=3, class_names=["background", "red", "blue"])
    callback = CAMCallback(probe, methods=("eigencam", "layercam"), max_images=2, on_error="raise")
    module, logger = fit(net, tmp_path, callback)

    levels = LEVELS if make is faster_rcnn else LEVELS[:3]  # and, pooled from the third, a level without a layer
    records = list(callback.store)
    assert [(r.look, r.epoch) for r in records] == [(0, 0), (1, 1)]
    assert callback.store.manifest["layers"] == levels
    for layer in LEVELS[:3]:
        enrichment = records[1].per_image[f"on_target_enrichment/eigencam/{layer}"]
        assert np.isfinite(enrichment).all() and (enrichment >= 0).all()
        assert records[1].metrics[f"cam/drift_prev/eigencam/{layer}"] > 0
    some = [records[1].metrics[f"cam/on_target_enrichment/layercam/{layer}"] for layer in levels]
    assert np.isfinite(some).any() and np.nanmax(some) > 1  # the explained class is found where it is
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0})
    events.Reload()
    tag = f"cam/layercam/{levels[0]}/sheet"
    assert [image.step for image in events.Images(tag)] == [0, 1]
    assert len([t for t in events.Tags()["images"] if t.endswith("/sheet")]) == 2 * len(levels)

    if make is faster_rcnn:
        return
    torch.manual_seed(0)
    plain = make()
    assert all(torch.equal(before[k], v) for k, v in plain.state_dict().items())
    unwatched, _ = fit(plain, tmp_path / "plain")
    ours, theirs = module.state_dict(), unwatched.state_dict()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_layers_and_targets_of_the_user_stay(tmp_path):
    probe = ProbeSet.from_dataset(scenes(2), n=2)
    module = Detector(retinanet())
    assert module.training
    family = family_of(module.model)

    def most_likely(outputs):
        return family.raw(outputs).classes.amax((1, 2))

    monitor = CAMMonitor(probe, "layercam", "model.backbone.fpn.layer_blocks.1", most_likely)
    record = monitor.look(module)
    assert monitor.layer_names == ("backbone.fpn.layer_blocks.1",)
    module.eval()
    with torch.no_grad():
        expected = most_likely(family.forward(module.model, probe.images))
    np.testing.assert_allclose(record.scores, expected, rtol=1e-5)


def test_forward_turns_a_batch_into_a_list(tmp_path):
    """A detector of no known family, watched by telling how it is called and what it should explain."""

    class Unknown(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.features = torch.nn.Conv2d(3, 4, 3, 2, 1)
            self.head = torch.nn.Conv2d(4, 2, 1)

        def forward(self, images: list[torch.Tensor]):
            assert isinstance(images, list)
            return [{"scores": self.head(self.features(image[None]).relu())[0].flatten(1)} for image in images]

    def together(model, images):
        features = model.features(images).relu()
        return [{"scores": scores.flatten(1)} for scores in model.head(features)]

    def target(outputs):
        return torch.stack([kept["scores"].amax() for kept in outputs])

    probe = ProbeSet.from_dataset(scenes(2), n=2)
    callback = CAMCallback(probe, "gradcam", "model.features", target, forward=lambda m, x: together(m.model, x))
    record = callback.watcher.monitor.look(Detector(Unknown()))
    assert record.maps["gradcam", "model.features"].shape == (2, 80, 80)
    assert np.isfinite(record.metrics["cam/on_target_enrichment/gradcam"])


class Rows:
    """A family whose outputs are its rows."""

    def raw(self, outputs):
        return outputs


def test_target_takes_the_true_class_where_the_object_is():
    from cam_engine.detect import Raw

    boxes = torch.tensor([[10.0, 10, 50, 50], [100, 100, 140, 140]])
    probe = ProbeSet(torch.rand(3, 3, SIZE, SIZE), boxes=[boxes, boxes[:1], []], box_labels=[[0, 1], [1], []])
    places = torch.rand(3, 200, 2, generator=torch.Generator().manual_seed(0)) * SIZE
    places[1][(places[1] < 60).all(1)] = 155  # nothing near the box of the second image, but for one row
    places[1, 7] = torch.tensor([52.0, 52.0])
    logits = torch.randn(3, 200, 3, generator=torch.Generator().manual_seed(1))
    raw = Raw(torch.cat([places - 4, places + 4], 2), logits, None, logits=True)
    scores = ProbeBoxTarget(probe, Rows())(raw)

    def inside(box):
        return ((places[0] > box[:2]) & (places[0] < box[2:])).all(1)

    parts = [logits[0][inside(box), c].sort(descending=True).values[:10].mean() for c, box in enumerate(boxes)]
    torch.testing.assert_close(scores[0], (parts[0] + parts[1]) / 2)
    torch.testing.assert_close(scores[1], logits[1, 7, 1])
    torch.testing.assert_close(scores[2], logits[2].flatten().sort(descending=True).values[:10].mean())
    part = ProbeBoxTarget(probe, Rows()).of_images([1, 0])
    swapped = Raw(raw.boxes[[1, 0]], raw.classes[[1, 0]], None, logits=True)
    torch.testing.assert_close(part(swapped), scores[[1, 0]])


def test_padding_inside_the_detector_is_cut_off():
    """A wide image is padded at the bottom to a multiple of 32; cells there belong to no pixel of the image."""
    net = retinanet(size=100).eval()
    with torch.no_grad():
        for parameter in net.head.classification_head.parameters():
            parameter.mul_(3)
    images = torch.rand(2, 3, 100, 128)
    probe = ProbeSet(images, boxes=[[[10, 10, 60, 60]]] * 2, box_labels=[[1], [1]])
    subject = subject_of(net, probe, LookOptions().on(probe))
    outputs = subject.cam.forward(net, images)
    assert subject.family.canvas(outputs) == (1.28, 1.0)  # from 100x128 to 128x128
    assert subject.within_image(torch.zeros(2, 32, 32), outputs).shape == (2, 25, 32)
    record = CAMMonitor(probe, "eigencam", "backbone.fpn.layer_blocks.0").look(net)
    assert record.maps["eigencam", "backbone.fpn.layer_blocks.0"].shape == (2, 12, 16)  # 12.5 of 16 rows
