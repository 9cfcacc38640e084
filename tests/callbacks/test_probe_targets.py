"""What is to be predicted, as datasets tell it in many ways, and as a probe holds it."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from cam_callbacks import ProbeSet

SIZE = (6, 8)
CLASSES = np.array([2, 0, 1, 2])
MAPS = np.stack([np.full(SIZE, k) for k in CLASSES])
MAPS[:, :2] = 0
IGNORED = MAPS.copy()
IGNORED[:, 0] = 255
ONE_HOT = np.eye(3, dtype=np.int64)[CLASSES]


class Items(Dataset):
    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def image():
    return torch.rand(3, *SIZE)


def read(*targets, key=None):
    """A probe of items ``(image, target)``, or dictionaries with the target under ``key``."""
    items = [(image(), t) if key is None else {"image": image(), key: t} for t in targets]
    return ProbeSet.from_dataset(Items(*items), n=len(items))


def in_order(probe, of):
    return of[[int(i) for i in probe.ids]]


@pytest.mark.parametrize(
    "targets",
    [
        CLASSES.tolist(),
        [torch.tensor([k]) for k in CLASSES],
        [np.int64(k) for k in CLASSES],
        list(torch.from_numpy(ONE_HOT)),
        list(torch.from_numpy(ONE_HOT).float()),
        list(torch.from_numpy(ONE_HOT).bool()),
    ],
)
def test_classes(targets):
    for key in (None, "label", "target", "y", "gt_label"):
        probe = read(*targets, key=key)
        assert probe.labels.tolist() == in_order(probe, CLASSES).tolist()
        assert probe.labels.dtype == torch.int64 and probe.label_sets is probe.values is probe.class_maps is None


@pytest.mark.parametrize("kind", [float, bool, np.float32, lambda v: torch.tensor([float(v)])])
def test_zeros_and_ones_are_classes_whatever_their_type(kind):
    probe = read(*map(kind, [0, 1, 1, 0]))
    assert probe.labels.tolist() == in_order(probe, np.array([0, 1, 1, 0])).tolist()


def test_one_hot_rows_are_balanced_over_classes():
    rows = torch.eye(2)[[0] * 20 + [1] * 3]
    probe = ProbeSet.from_dataset(Items(*((image(), row) for row in rows)), n=6)
    assert probe.labels.bincount().tolist() == [3, 3]


def test_rows_of_several_classes_are_sets():
    sets = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]])
    for rows in (torch.from_numpy(sets), torch.from_numpy(sets).float()):
        probe = read(*rows)
        assert probe.labels is None and probe.label_sets.dtype == torch.bool
        assert probe.label_sets.tolist() == in_order(probe, sets).astype(bool).tolist()
    assert "label sets" in repr(probe)


def test_other_floats_are_values():
    probe = read(0.0, 1.0, 0.5, -2.0)
    assert probe.labels is None and probe.values.dtype == torch.float32
    assert probe.values.tolist() == in_order(probe, np.array([0.0, 1.0, 0.5, -2.0])).tolist()
    pairs = read(*torch.tensor([[0.0, 2.0], [1.0, 3.0]]))
    assert pairs.values.shape == (2, 2) and pairs.labels is None
    assert read(-2, 3).values is not None  # below 0 is no class, and -1 is no label
    nothing = read(0.5, float("nan"))
    assert nothing.values is None and nothing.labels is None


def as_one_hot(maps):
    return [torch.from_numpy(np.eye(3)[m].transpose(2, 0, 1)) for m in maps]


@pytest.mark.parametrize(
    "masks",
    [
        list(torch.from_numpy(MAPS)),
        list(torch.from_numpy(MAPS)[:, None]),
        list(torch.from_numpy(MAPS)[:, None].float()),
        list(MAPS[..., None].astype(np.uint8)),
        [Image.fromarray(m.astype(np.uint8)) for m in MAPS],
        as_one_hot(MAPS),
    ],
)
def test_masks_of_segmentation_in_every_shape(masks):
    for key in (None, "mask", "label", "labels", "gt_mask"):
        probe = read(*masks, key=key)
        assert probe.class_maps.dtype == torch.int64 and probe.labels is None and probe.masks is None
        np.testing.assert_array_equal(probe.class_maps, in_order(probe, MAPS))


def test_ignored_pixels():
    for maps in (IGNORED, np.where(IGNORED == 255, -100, IGNORED)):
        probe = read(*torch.from_numpy(maps))
        np.testing.assert_array_equal(probe.class_maps, in_order(probe, np.where(IGNORED == 255, -1, IGNORED)))


def test_a_mask_of_two_classes_is_a_region_too():
    binary = np.minimum(MAPS, 1)
    for masks in (torch.from_numpy(binary), torch.from_numpy(binary * 255).byte(), torch.from_numpy(binary).bool()):
        probe = read(*masks, key="mask")
        np.testing.assert_array_equal(probe.class_maps, in_order(probe, binary))
        np.testing.assert_array_equal(probe.masks, in_order(probe, binary).astype(bool))


def test_a_mask_beside_a_label_is_a_region():
    items = [
        {"image": image(), "label": int(k), "mask": torch.from_numpy(m)} for k, m in zip(CLASSES, MAPS, strict=True)
    ]
    probe = ProbeSet.from_dataset(Items(*items), n=4)
    assert probe.class_maps is None and probe.labels is not None
    np.testing.assert_array_equal(probe.masks, in_order(probe, MAPS) > 0)


def test_a_map_of_another_resolution_is_brought_to_the_images():
    probe = read(*torch.from_numpy(MAPS[:, ::2, ::2]))
    np.testing.assert_array_equal(probe.class_maps, in_order(probe, MAPS[:, ::2, ::2].repeat(2, 1).repeat(2, 2)))


def test_images_as_targets_are_none():
    probe = read(*torch.rand(4, 3, *SIZE))
    assert all(getattr(probe, name) is None for name in ("labels", "label_sets", "class_maps", "values", "masks"))


def test_tuples_longer_than_two():
    other, meta = image(), torch.rand(5)
    for item, n in (
        ((image(), 1, "a.png"), 1),
        ((image(), other, 1), 1),
        ((image(), meta, 1), 1),
        ((image(), 1, 77), 1),
    ):
        probe = ProbeSet.from_dataset(Items(item), n=n)
        assert probe.labels.tolist() == [1]
    assert ProbeSet.from_dataset(Items((image(), meta, torch.tensor(0.3))), n=1).values.tolist() == [pytest.approx(0.3)]
    maps = ProbeSet.from_dataset(Items((image(), torch.from_numpy(MAPS[0]), 7)), n=1)
    assert maps.class_maps is not None and maps.labels is None


def test_items_with_names_of_their_own():
    @dataclass
    class Item:
        image: torch.Tensor
        gt_label: torch.Tensor
        gt_mask: torch.Tensor | None = None

    Pair = namedtuple("Pair", "image label")
    for item in (Item(image(), torch.tensor(True)), Pair(image(), 1), {"scan": image(), "target": 1}):
        assert ProbeSet.from_dataset(Items(item), n=1).labels.tolist() == [1]


@pytest.mark.parametrize("key", ["boxes", "bboxes", "bbox_xyxy"])
def test_boxes_under_any_usual_name(key):
    item = {"image": image(), key: torch.tensor([[0, 0, 2, 2], [1, 1, 6, 5]]), "labels": torch.tensor([4, 2])}
    for of in (item, (item["image"], item)):
        probe = ProbeSet.from_dataset(Items(of), n=1)
        assert probe.boxes[0].tolist() == [[0, 0, 2, 2], [1, 1, 6, 5]]
        assert probe.box_labels == [[4, 2]] and probe.labels.tolist() == [2]


def test_a_volume_says_that_it_is_one():
    with pytest.raises(ValueError, match=r"\(1, 4, 6, 8\): a volume.*not supported yet"):
        ProbeSet.from_dataset(Items((torch.rand(1, 4, *SIZE), 1)), n=1)


class TestProbe:
    def test_fields_are_in_the_fingerprint(self):
        images = torch.rand(4, 3, *SIZE)
        given = {
            "label_sets": torch.eye(4)[:, :3] > 0,
            "class_maps": torch.from_numpy(MAPS),
            "values": [0.1, 0.2, 0.3, 0.4],
            "inputs": {"age": torch.arange(4.0)},
            "dtype": torch.uint8,
        }
        prints = {ProbeSet(images, **{name: value}).fingerprint for name, value in given.items()}
        assert len(prints | {ProbeSet(images).fingerprint}) == 6
        assert ProbeSet(images, inputs={"age": torch.arange(4.0) + 1}).fingerprint not in prints
        assert (
            repr(ProbeSet(images, inputs={"age": torch.arange(4.0)})) == "ProbeSet(4 images of 3x6x8, with inputs[age])"
        )

    def test_pictures_are_those_that_are_shown(self):
        shown = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)
        probe = ProbeSet(torch.randn(2, 3, *SIZE), shown=shown)
        np.testing.assert_array_equal(probe.pictures(), shown)
        assert probe.fingerprint == ProbeSet(probe.images).fingerprint  # for people; the model does not get them

    def test_integers_keep_their_values(self):
        images = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)
        probe = ProbeSet(images, dtype=torch.uint8)
        assert probe.images.dtype == torch.float32 and torch.equal(probe.images, images.float())

    @pytest.mark.parametrize(
        ("changes", "error", "words"),
        [
            ({"labels": [0, 1], "label_sets": torch.ones(2, 3)}, ValueError, "both given"),
            ({"label_sets": torch.ones(3, 3)}, ValueError, "a row for each of 2 images"),
            ({"label_sets": torch.full((2, 3), 0.5)}, ValueError, "other values than 0 and 1"),
            ({"label_sets": torch.ones(2, 3), "class_names": ["a"]}, ValueError, "of 3 classes, but class_names has 1"),
            ({"class_maps": torch.zeros(2, *SIZE)}, TypeError, "class of each pixel"),
            ({"class_maps": torch.zeros(2, 4, 4, dtype=torch.long)}, ValueError, r"need \(2, 6, 8\)"),
            ({"class_maps": torch.ones(2, *SIZE, dtype=torch.long), "class_names": ["a"]}, ValueError, "holds class 1"),
            ({"values": [1.0]}, ValueError, "for 2 images"),
            ({"values": [1.0, float("inf")]}, ValueError, "infinite"),
            ({"inputs": torch.rand(2, 3)}, TypeError, "mapping of names"),
            ({"inputs": {"age": torch.rand(3)}}, ValueError, r"inputs\['age'\] is Tensor \(3,\) float32; one row"),
            ({"shown": np.zeros((2, *SIZE), np.uint8)}, ValueError, "uint8 RGB of shape"),
        ],
    )
    def test_bad_input_is_named(self, changes, error, words):
        with pytest.raises(error, match=words):
            ProbeSet(torch.rand(2, 3, *SIZE), **changes)
