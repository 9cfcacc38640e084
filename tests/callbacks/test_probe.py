from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from cam_callbacks import CAMCallback, ProbeSet


def probe(**changes):
    arguments = {"images": torch.rand(3, 3, 8, 10), "labels": [0, 1, 1]} | changes
    return ProbeSet(**arguments)


class TestFingerprint:
    def test_is_that_of_the_content(self):
        images = torch.rand(3, 3, 8, 8)
        assert (
            ProbeSet(images, [0, 1, 2]).fingerprint
            == ProbeSet(images.double().numpy(), torch.tensor([0, 1, 2])).fingerprint
        )

    @pytest.mark.parametrize("change", ["pixel", "label", "order", "no labels", "shape"])
    def test_notices(self, change):
        images, labels = torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 2, 3])
        before = ProbeSet(images, labels).fingerprint
        changed = images.clone()
        if change == "pixel":
            changed[2, 0, 1, 1] += 1e-6
        elif change == "label":
            labels = torch.tensor([0, 1, 2, 2])
        elif change == "order":
            changed = images[[1, 0, 2, 3]]
        elif change == "no labels":
            labels = None
        else:
            changed = images.reshape(4, 1, 2, 8)
        assert ProbeSet(changed, labels).fingerprint != before


class TestFromDataset:
    def test_is_balanced_seeded_and_reproducible(self):
        labels = torch.tensor([0] * 50 + [1] * 5 + [2] * 2)
        data = TensorDataset(torch.arange(57.0).reshape(57, 1, 1, 1).expand(57, 1, 4, 4), labels)
        chosen = ProbeSet.from_dataset(data, n=9, seed=3)
        assert np.bincount(chosen.labels).tolist() == [4, 3, 2]
        assert [int(i) for i in chosen.ids] == [int(image[0, 0, 0]) for image in chosen.images]
        assert ProbeSet.from_dataset(data, n=9, seed=3).fingerprint == chosen.fingerprint
        assert ProbeSet.from_dataset(data, n=9, seed=4).fingerprint != chosen.fingerprint

    def test_reads_only_what_it_needs_where_labels_are_listed(self):
        class Counting(Dataset):
            targets = tuple(i % 3 for i in range(30))
            read = itertools.count()  # what an attribute counts is put back

            def __len__(self):
                return 30

            def __getitem__(self, index):
                next(self.read)
                return torch.full((1, 4, 4), float(index)), self.targets[index]

        chosen = ProbeSet.from_dataset(Subset(Counting(), range(10, 25)), n=6)
        assert next(Counting.read) == 6
        assert np.bincount(chosen.labels).tolist() == [2, 2, 2]

    def test_dictionaries_masks_and_boxes(self):
        class Items(Dataset):
            def __len__(self):
                return 4

            def __getitem__(self, index):
                mask = torch.zeros(6, 6)
                mask[index] = 1
                return {
                    "pixel_values": torch.rand(3, 6, 6),
                    "labels": index,
                    "mask": mask,
                    "boxes": [[0, 0, 2, index + 1]],
                }

        chosen = ProbeSet.from_dataset(Items(), n=4)
        assert chosen.masks.sum((1, 2)).tolist() == [6, 6, 6, 6]
        assert [len(b) for b in chosen.boxes] == [1, 1, 1, 1]

    def test_uint8_and_pil_become_unit_range(self):
        class Pictures(Dataset):
            def __len__(self):
                return 2

            def __getitem__(self, index):
                return Image.new("RGB", (6, 4), (255, 0, 51)), index

        chosen = ProbeSet.from_dataset(Pictures(), n=2)
        assert chosen.images.shape == (2, 3, 4, 6)
        assert chosen.images[0, :, 0, 0].tolist() == pytest.approx([1, 0, 0.2])

    def test_without_labels(self):
        assert ProbeSet.from_dataset(TensorDataset(torch.rand(9, 1, 4, 4)), n=3).labels is None

    @pytest.mark.parametrize(
        ("dataset", "n", "error", "words"),
        [
            (TensorDataset(torch.rand(0, 1, 4, 4)), 3, ValueError, "is empty"),
            (iter([]), 3, TypeError, "cannot be read by index"),
            (TensorDataset(torch.rand(4, 1, 4, 4)), 0, ValueError, "at least one image"),
            (["text"], 1, ValueError, "holds no image"),
        ],
    )
    def test_refuses(self, dataset, n, error, words):
        with pytest.raises(error, match=words):
            ProbeSet.from_dataset(dataset, n)


class TestFromFolder:
    def test_classes_size_and_normalisation(self, tmp_path):
        for label, value in (("ant", 0), ("bee", 255)):
            (tmp_path / label).mkdir()
            for i, size in enumerate([(20, 10), (10, 30)]):
                Image.new("RGB", size, (value,) * 3).save(tmp_path / label / f"{i}.png")
        read = ProbeSet.from_folder(tmp_path, size=8, mean=[0.5] * 3, std=[0.5] * 3)
        assert read.images.shape == (4, 3, 8, 8)
        assert read.class_names == ["ant", "bee"] and read.labels.tolist() == [0, 0, 1, 1]
        assert read.images[0].unique().tolist() == [-1] and read.images[3].unique().tolist() == [1]
        assert read.pictures()[3].min() == 255

    def test_errors(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no folder"):
            ProbeSet.from_folder(tmp_path / "none")
        with pytest.raises(FileNotFoundError, match="no picture"):
            ProbeSet.from_folder(tmp_path)


class TestPictures:
    def test_mean_and_std_are_undone(self):
        shown = torch.rand(2, 3, 5, 5)
        mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.1]
        images = (shown - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        expected = (shown * 255).round().numpy().transpose(0, 2, 3, 1)
        assert np.abs(ProbeSet(images, mean=mean, std=std).pictures().astype(int) - expected).max() <= 1

    def test_other_images_are_scaled_to_the_range_of_the_whole_probe(self):
        images = torch.stack([torch.full((1, 2, 2), -3.0), torch.full((1, 2, 2), 1.0), torch.full((1, 2, 2), -1.0)])
        assert ProbeSet(images).pictures()[:, 0, 0, 0].tolist() == [0, 255, 128]

    @pytest.mark.parametrize("channels", [1, 2, 4, 5])
    def test_any_number_of_channels(self, channels):
        images = torch.linspace(0, 1, channels)[None, :, None, None].expand(1, channels, 3, 3)
        pixel = ProbeSet(images).pictures()[0, 0, 0].tolist()
        expected = [0, 0, 0] if channels < 3 else [round(255 * i / (channels - 1)) for i in range(3)]
        assert pixel == expected


def test_boxes_become_regions_where_there_are_no_masks():
    made = probe(boxes=[[[0, 0, 5, 8]], [], [[2, 2, 4, 4], [3, 3, 6, 6]]])
    assert made.region_masks.sum((1, 2)).tolist() == [40, 0, 4 + 9 - 1]
    np.testing.assert_allclose(made.regions((1, 2))[0], [[1.0, 0.0]])


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"images": torch.rand(3, 8, 8)}, ValueError, r"\(N, C, H, W\)"),
        ({"images": torch.rand(0, 3, 8, 8)}, ValueError, "at least 1"),
        ({"images": torch.zeros(3, 3, 8, 8, dtype=torch.uint8)}, TypeError, "floating point"),
        ({"images": "cat.jpg"}, TypeError, "not str"),
        ({"labels": [0, 1]}, ValueError, "for 3 images"),
        ({"labels": [0, 1, -1]}, ValueError, "0 and above"),
        ({"labels": [0.0, 1.0, 2.0]}, TypeError, "integers"),
        ({"class_names": ["a"]}, ValueError, "class_names has 1"),
        ({"masks": torch.ones(3, 8, 8) > 0}, ValueError, r"need \(3, 8, 10\)"),
        ({"masks": torch.full((3, 8, 10), 0.5)}, TypeError, "must be bool"),
        ({"boxes": [[], []]}, ValueError, "2 lists for 3 images"),
        ({"boxes": [[[0, 0, 11, 4]], [], []]}, ValueError, r"boxes\[0\].*inside the 10x8"),
        ({"boxes": [[[4, 0, 2, 4]], [], []]}, ValueError, "x1 < x2"),
        ({"ids": ["a", "a", "b"]}, ValueError, "unique"),
        ({"groups": ["a"]}, ValueError, "1 names for 3"),
        ({"mean": [0.5, 0.5]}, ValueError, "2 numbers for 3 channels"),
        ({"std": 0.0}, ValueError, "above 0"),
    ],
)
def test_bad_input_is_named(changes, error, words):
    with pytest.raises(error, match=words):
        probe(**changes)


def test_the_probe_can_come_from_the_training_data(pl, data, make_module, tmp_path):
    """A cue that only training images carry is in no validation image, and no probe of these can show it."""
    train, val = data, TensorDataset(data.tensors[0] + 5, data.tensors[1])
    weights = []
    for probe, source in (("train", train), ("val", val)):
        callback = CAMCallback(probe, methods="eigencam", on_error="raise")
        torch.manual_seed(1)
        trainer = pl("pytorch_lightning").Trainer(
            max_epochs=1, callbacks=[callback], logger=False, enable_checkpointing=False, enable_progress_bar=False,
            default_root_dir=tmp_path,
        )  # fmt: skip
        module = make_module()
        trainer.fit(module, DataLoader(train, 16, shuffle=True), DataLoader(val, 16))
        assert all(bool((source.tensors[0] == image).all((1, 2, 3)).any()) for image in callback.probe.images)
        weights.append(module.net[0].weight.clone())
    assert torch.equal(*weights)
    with pytest.raises(ValueError, match='a ProbeSet, "val" or "train", not \'test\''):
        CAMCallback("test")
