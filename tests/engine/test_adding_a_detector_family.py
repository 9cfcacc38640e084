"""A detector of the user's own: one class, one line, and it is explained and watched like the known ones."""

import importlib
import inspect
import pkgutil

import numpy as np
import pytest
import torch
from torch import nn

import cam_engine.detect
from cam_callbacks import CAMMonitor, ProbeSet
from cam_engine import explain
from cam_engine.detect import FAMILIES, Family, Raw, families, family_of, register_family
from cam_engine.detect.boxes import suppress

COLOURS = ("red", "green")


class ColourDetector(nn.Module):
    """Finds red and green squares: on each of two grids, a cell's box is the cell, its logits say how red and green it is."""

    def __init__(self):
        super().__init__()
        self.names = dict(enumerate(COLOURS))
        self.fine, self.coarse = (nn.Sequential(nn.Conv2d(3, 2, side, side), nn.ReLU()) for side in (8, 16))
        self.cell_head = nn.Conv2d(2, 2, 1)
        with torch.no_grad():
            for level in (self.fine, self.coarse):
                mean = 1 / level[0].kernel_size[0] ** 2
                level[0].weight.copy_(mean * torch.tensor([[1.0, -1, -1], [-1, 1, -1]])[:, :, None, None])
                level[0].bias.zero_()
            self.cell_head.weight.copy_(8 * torch.eye(2)[:, :, None, None])
            self.cell_head.bias.fill_(-4)

    def forward(self, images):
        return [self.cell_head(level(images)) for level in (self.coarse, self.fine)]


class CellFamily(Family):
    """A row for each cell of each grid, the coarser one first."""

    title = "cells of colour"
    iou = 0.1

    @staticmethod
    def recognises(model):
        return hasattr(model, "cell_head")

    def layers(self):
        return ["coarse", "fine"]

    def raw(self, outputs):
        logits = torch.cat([level.flatten(2) for level in outputs], 2).transpose(1, 2)
        boxes = torch.cat([self._cells(level, side) for level, side in zip(outputs, (16, 8), strict=True)])
        return Raw(boxes.expand(len(logits), -1, -1), logits, None, logits=True)

    def detections(self, outputs, *, confidence=0.25, iou=None, max_detections=300):
        raw = self.raw(outputs)
        settings = {"confidence": confidence, "iou": iou or self.iou, "most": max_detections}
        pairs = zip(raw.boxes, raw.classes.sigmoid(), strict=True)
        return [suppress(boxes, scores, **settings) for boxes, scores in pairs]

    @staticmethod
    def _cells(level, side):
        y, x = torch.meshgrid(*(torch.arange(n) * float(side) for n in level.shape[2:]), indexing="ij")
        return torch.stack([x, y, x + side, y + side], -1).flatten(0, 1)


@pytest.fixture
def known(monkeypatch):
    """The toy family, known through the public door for one test."""
    monkeypatch.setattr(families, "FAMILIES", list(FAMILIES))
    return register_family(CellFamily)


@pytest.fixture
def image():
    """(3, 48, 64) in [0, 1]: black with a red square of 8 pixels and a green one of 16."""
    image = torch.zeros(3, 48, 64)
    image[0, 8:16, 16:24] = 1
    image[1, 32:48, 32:48] = 1
    return image


BOXES = {"red": (16, 8, 24, 16), "green": (32, 32, 48, 48)}


def test_before_it_is_registered_no_family_knows_the_detector(image):
    with pytest.raises(TypeError, match=r"ColourDetector is no detector of a known family.*register_family"):
        family_of(ColourDetector())


def test_explain_shows_its_detections(known, image):
    explained = explain(ColourDetector(), image, "hirescam", per="detection")
    assert sorted((part["label"], part["box"]) for part in explained["parts"]) == sorted(BOXES.items())
    for part in explained["parts"]:
        y, x = np.unravel_index(part["heatmap"].argmax(), part["heatmap"].shape)
        x1, y1, x2, y2 = BOXES[part["label"]]
        assert x1 <= x <= x2 and y1 <= y <= y2
    only_green = explain(ColourDetector(), image, classes="green", per="class")
    assert [part["label"] for part in only_green["parts"]] == ["green"]


def test_a_monitor_looks_through_its_layers_at_its_boxes(known, image, tmp_path):
    images = torch.stack([image, image.flip(2), image.flip(1)])
    boxes = [[list(BOXES["green"])], [[16, 32, 32, 48]], [[32, 0, 48, 16]]]
    probe = ProbeSet(images, labels=[1, 1, 1], boxes=boxes, class_names=list(COLOURS))
    monitor = CAMMonitor(probe, methods=("hirescam",), layers="auto", folder=tmp_path)
    record = monitor.look(ColourDetector(), epoch=0)
    assert set(record.maps) == {("hirescam", "fine"), ("hirescam", "coarse")}
    assert record.metrics["cam/valid_frac/hirescam/coarse"] == 1
    # All of the coarse map lies in the one green cell, a twelfth of the image.
    assert record.metrics["cam/on_target_enrichment/hirescam/coarse"] == pytest.approx(12, rel=1e-5)


def test_a_class_that_is_not_whole_is_refused():
    class Half(Family):
        title = "half"

    with pytest.raises(TypeError, match="Half still needs detections, layers, raw, recognises"):
        register_family(Half)
    with pytest.raises(TypeError, match=r"class derived from cam_engine.detect.Family, not .*ColourDetector"):
        register_family(ColourDetector)
    assert CellFamily not in FAMILIES and Half not in FAMILIES


def test_every_family_of_the_package_is_in_the_list():
    modules = [
        importlib.import_module(f"cam_engine.detect.{m.name}") for m in pkgutil.iter_modules(cam_engine.detect.__path__)
    ]
    classes = {c for module in modules for c in vars(module).values() if inspect.isclass(c) and issubclass(c, Family)}
    assert {c for c in classes if "title" in vars(c)} == set(FAMILIES)
    assert len(FAMILIES) >= 10
