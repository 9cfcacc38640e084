"""A probe from YOLO's files: letterboxing, boxes in pixels, classes, and what is said when something is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cam_callbacks import ProbeSet
from cam_callbacks.yolo_data import probe_from_yolo


def write(folder: Path, name: str, size: tuple[int, int], lines: str, box: tuple[int, int, int, int] | None = None):
    """A black picture of ``size`` (width, height) with a white box, and its label file."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    if box is not None:
        pixels[box[1] : box[3], box[0] : box[2]] = 255
    for kind in ("images", "labels"):
        (folder / kind / "val").mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / "images" / "val" / f"{name}.png")
    (folder / "labels" / "val" / f"{name}.txt").write_text(lines)


@pytest.fixture
def yolo_data(tmp_path):
    """Three pictures of different shapes: wide, tall with two classes, and one without boxes."""
    write(tmp_path, "wide", (200, 100), "1 0.5 0.5 0.4 0.4\n", (60, 30, 140, 70))
    write(tmp_path, "tall", (50, 100), "0 0.5 0.25 0.2 0.1\n2 0.5 0.75 0.6 0.4", (10, 55, 40, 95))
    write(tmp_path, "empty", (64, 64), "")
    yaml = tmp_path / "data.yaml"
    yaml.write_text("path: .\ntrain: images/val\nval: images/val\nnames: {0: cat, 1: dog, 2: owl}\n")
    return yaml


@pytest.mark.parametrize("given", ["yaml", "folder", "dictionary", "folder without yaml"])
def test_boxes_land_on_what_they_enclose(yolo_data, given):
    data = {"yaml": yolo_data, "folder": yolo_data.parent, "folder without yaml": yolo_data.parent}.get(
        given, {"path": yolo_data.parent, "val": str(yolo_data.parent / "images" / "val"), "names": {0: "cat"}}
    )
    if given == "folder without yaml":
        yolo_data.unlink()
    if given == "dictionary":
        data["names"] = {2: "owl", 1: "dog", 0: "cat"}
    probe = probe_from_yolo(data, size=160)
    assert sorted(probe.ids) == ["tall", "wide"]  # a picture without boxes says nothing of where to look
    assert probe.images.shape == (2, 3, 160, 160) and probe.images.dtype == torch.float32
    by_name = dict(zip(probe.ids, range(2), strict=True))
    wide, tall = by_name["wide"], by_name["tall"]
    np.testing.assert_allclose(probe.boxes[wide], [[48, 64, 112, 96]])
    np.testing.assert_allclose(probe.boxes[tall], [[72, 32, 88, 48], [56, 88, 104, 152]])
    assert probe.labels[wide] == 1 and probe.labels[tall] == 2  # the class of the largest box
    assert probe.box_labels[wide] == [1] and probe.box_labels[tall] == [0, 2]
    assert probe.class_names == (None if given == "folder without yaml" else ["cat", "dog", "owl"])
    x1, y1, x2, y2 = map(int, probe.boxes[tall][1])
    assert probe.images[tall, :, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].min() == 1  # white is inside,
    inside = torch.zeros(160, 160, dtype=torch.bool)
    inside[y1 - 2 : y2 + 2, x1 - 2 : x2 + 2] = True
    assert not (probe.images[tall, 0] > 0.6)[~inside].any()  # and nowhere else
    assert probe.images[wide, :, :38].unique().tolist() == [pytest.approx(114 / 255)]


def test_letterboxing_equals_ultralytics(yolo_data):
    augment = pytest.importorskip("ultralytics.data.augment")
    probe = probe_from_yolo(yolo_data, size=160)
    for image, name in zip(probe.images, probe.ids, strict=True):
        picture = np.asarray(Image.open(yolo_data.parent / "images" / "val" / f"{name}.png"))
        theirs = augment.LetterBox((160, 160))(image=picture).transpose(2, 0, 1) / 255
        assert np.abs(theirs - image.numpy()).mean() < 0.01


def test_polygons_become_boxes_and_boxes_outside_are_cut(tmp_path):
    write(tmp_path, "a", (160, 160), "0 0.25 0.25 0.75 0.25 0.5 0.75\n1 1.0 0.5 0.5 0.5\n1 1.5 0.5 0.2 0.2")
    probe = probe_from_yolo(tmp_path)
    np.testing.assert_allclose(probe.boxes[0], [[40, 40, 120, 120], [120, 40, 160, 120]])
    assert probe.box_labels == [[0, 1]]
    inside = probe.masks[0]
    assert inside[45, 45] and inside[110, 80] and not inside[110, 45]  # the triangle, not the box around it
    assert inside[80, 150] and inside.mean() == pytest.approx((0.125 * 160**2 + 40 * 80) / 160**2, rel=0.03)


def test_choice_is_balanced_and_repeatable(tmp_path):
    for i in range(30):
        write(tmp_path, f"{i:02}", (32, 32), f"{int(i >= 24)} 0.5 0.5 0.5 0.5")
    one, again, other = (probe_from_yolo(tmp_path, n=8, size=32, seed=s) for s in (0, 0, 1))
    assert one.labels.bincount().tolist() == [4, 4]
    assert one.ids == again.ids and one.ids != other.ids


def test_what_is_missing_is_named(tmp_path):
    write(tmp_path, "a", (32, 32), "")
    with pytest.raises(ValueError, match="none of the 1 pictures has a box"):
        probe_from_yolo(tmp_path, size=32)
    with pytest.raises(ValueError, match="multiples of 32, such as 96"):
        probe_from_yolo(tmp_path, size=100)
    with pytest.raises(FileNotFoundError, match="no data set"):
        probe_from_yolo(tmp_path / "nothing.yaml")
    (tmp_path / "data.yaml").write_text("train: images/val\n")
    with pytest.raises(FileNotFoundError, match="has no 'val'; it has 'train'"):
        probe_from_yolo(tmp_path)


def test_probe_of_a_detection_dataset_knows_each_box_class():
    boxes = torch.tensor([[0.0, 0, 4, 4], [2, 2, 12, 12]])
    items = [
        (torch.rand(3, 16, 16), {"boxes": boxes[: n + 1], "labels": torch.tensor([3, 1])[: n + 1]}) for n in (0, 1)
    ]
    probe = ProbeSet.from_dataset(items, n=2)
    assert sorted(zip(probe.labels.tolist(), probe.box_labels, strict=True)) == [(1, [3, 1]), (3, [3])]
    with pytest.raises(ValueError, match="one class for each box"):
        ProbeSet(torch.rand(1, 3, 8, 8), boxes=[[[0, 0, 4, 4]]], box_labels=[[1, 2]])
