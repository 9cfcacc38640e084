"""Images out of whatever a validation dataloader may be."""

import numpy as np
import pytest
import torch
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch.utils.data import DataLoader, Dataset, IterableDataset, SubsetRandomSampler, TensorDataset

from cam_callbacks.loaders import NotDrawable, draw, first_loader, raw_pictures

IMAGES, LABELS = torch.rand(12, 3, 8, 8), torch.arange(12) % 3


@pytest.fixture
def dataset():
    return TensorDataset(IMAGES, LABELS)


def test_the_first_loader_is_found_in_lists_dictionaries_and_lightnings_own(dataset):
    loader, other = DataLoader(dataset, 4), DataLoader(dataset, 2)
    for loaders in (loader, [loader, other], {"a": loader, "b": other}, [{"a": loader}]):
        assert first_loader(loaders) is loader
    assert first_loader(CombinedLoader({"a": loader, "b": other}, "sequential")) is loader
    with pytest.raises(NotDrawable, match="no dataset found in the loader"):
        first_loader([])


def test_the_numbers_of_a_sampler_are_balanced_and_keep_to_its_part(dataset):
    part = [1, 4, 7, 10, 2, 5, 8, 11]  # of two of the three classes
    drawn = draw(DataLoader(dataset, 4, sampler=SubsetRandomSampler(part)), 4, seed=0)
    assert drawn.ids is not None and set(map(int, drawn.ids)) <= set(part)
    assert sorted(drawn.batch[1].tolist()) == [1, 1, 2, 2]
    for image, name in zip(drawn.batch[0], drawn.ids, strict=True):
        assert torch.equal(image, IMAGES[int(name)])


def test_places_that_are_no_numbers_are_taken_as_the_sampler_names_them():
    class Tiles(Dataset):
        def __getitem__(self, place):
            row, column = place
            return IMAGES[3 * row + column], LABELS[3 * row + column]

        def __len__(self):
            return 12

    places = [(row, column) for row in range(4) for column in range(3)]
    drawn = draw(DataLoader(Tiles(), 4, sampler=places[::-1]), 2, seed=0)
    assert drawn.ids is None and torch.equal(drawn.batch[0], IMAGES[[11, 10]])


def test_a_loader_that_makes_no_batches_gives_the_first_item_as_it_is():
    whole = TensorDataset(IMAGES[None], LABELS[None])  # an item is a batch already
    drawn = draw(DataLoader(whole, batch_size=None), 4, seed=0)
    assert torch.equal(drawn.batch[0], IMAGES)


class Stream(IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


def test_a_stream_is_read_from_its_start():
    items = list(zip(IMAGES, LABELS, strict=True))
    assert torch.equal(draw(DataLoader(Stream(items), 4), 3, seed=0).batch[0], IMAGES[:3])
    batches = [(IMAGES, LABELS)]
    assert torch.equal(draw(DataLoader(Stream(batches), batch_size=None), 3, seed=0).batch[0], IMAGES)


def test_what_cannot_be_drawn_says_why():
    class Once(Stream):
        def __iter__(self):
            return self

        def __next__(self):
            return next(iter(self.items))

    with pytest.raises(NotDrawable, match="Once is its own iterator"):
        draw(DataLoader(Once([]), 4), 3, seed=0)
    with pytest.raises(ValueError, match="Stream is empty; a probe set needs at least one image"):
        draw(DataLoader(Stream([]), 4), 3, seed=0)
    bare = type("Feeder", (), {"dataset": TensorDataset(IMAGES)})()
    with pytest.raises(NotDrawable, match="Feeder has no collate function"):
        draw(bare, 3, seed=0)


def test_bytes_are_pictures_and_other_numbers_are_none():
    levels = (IMAGES[:2] * 255).to(torch.uint8)
    pictures = raw_pictures(zip(levels, LABELS, strict=False))
    assert pictures is not None and np.array_equal(pictures, levels.permute(0, 2, 3, 1).numpy())
    assert raw_pictures(zip(levels.to(torch.int32) - 300, LABELS, strict=False)) is None
    assert raw_pictures([(IMAGES[0], 0), (IMAGES[0, :, :4], 0)]) is None
