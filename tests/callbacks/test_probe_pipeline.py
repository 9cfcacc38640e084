"""The probe is the batch as the model gets it, wherever in a training that is made; and the training never notices."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    default_collate,
    get_worker_info,
)

from cam_callbacks import CAMCallback, ProbeSet
from tests.callbacks.conftest import blobs, network

MEAN, STD = torch.tensor([0.3, 0.5, 0.7]), torch.tensor([0.1, 0.2, 0.3])
N = 16
RAW = (blobs(N).tensors[0] * STD[:, None, None] + MEAN[:, None, None]).clamp(0, 1)
LABELS = torch.arange(N) % 4


def normalised(images: torch.Tensor) -> torch.Tensor:
    return (images - MEAN[:, None, None].to(images)) / STD[:, None, None].to(images)


class Items(Dataset):
    """Items ``(image, label, index)``, or what ``item`` makes of these."""

    def __init__(self, item: Any = lambda *parts: parts, images: torch.Tensor = RAW) -> None:
        self.item, self.images = item, images

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Any:
        return self.item(self.images[index], int(LABELS[index]), index)


class Classifier(pl.LightningModule):
    """Remembers the logits of every image that its validation step saw."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.logits = network(), {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def outputs(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x, labels, index = batch
        return self(x), labels, index

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        logits, labels, _ = self.outputs(batch)
        return nn.functional.cross_entropy(logits, labels)

    def validation_step(self, batch: Any, _: int) -> None:
        logits, _, index = self.outputs(batch)
        self.logits |= {str(int(i)): row for i, row in zip(index, logits, strict=True)}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(module: Any, data: Any, *callbacks: Any, **options: Any) -> Any:
    torch.manual_seed(0)
    options = {"max_epochs": 1, "num_sanity_val_steps": 0, "logger": False, **options}
    trainer = pl.Trainer(
        accelerator="cpu", callbacks=list(callbacks), enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **options,
    )  # fmt: skip
    given = (
        {"datamodule": data}
        if isinstance(data, pl.LightningDataModule)
        else dict(zip(("train_dataloaders", "val_dataloaders"), data, strict=True))
    )
    trainer.fit(module, **given)
    return trainer


def loaders(dataset: Any, **options: Any) -> tuple[DataLoader, DataLoader]:
    return DataLoader(dataset, 8, shuffle=True, **options), DataLoader(dataset, 8, **options)


def callback(tmp_path: Any, **options: Any) -> CAMCallback:
    options = {"methods": "gradcam", "on_error": "raise", "folder": tmp_path / "looks", "exchange": [], **options}
    return CAMCallback(**options)


def look_is_what_the_model_saw(module: Any, watch: CAMCallback) -> ProbeSet:
    """The last look's predictions and their probabilities are those of the same epoch's validation."""
    probe, record = watch.probe, watch.store[-1]
    seen = torch.stack([module.logits[name] for name in probe.ids]).softmax(1)
    np.testing.assert_array_equal(record.predictions, seen.argmax(1).numpy())
    np.testing.assert_allclose(record.confidences, seen.max(1).values.numpy(), atol=1e-5)
    return probe


def equal_weights(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def check(make: Any, tmp_path: Any, **options: Any) -> ProbeSet:
    """Fit with the callback: no warning, and a look at what the model saw. ``make()``: module, data."""
    module, data = make()
    watch = callback(tmp_path, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="CAMCallback")
        fit(module, data, watch)
    plain, data = make()
    fit(plain, data)
    assert equal_weights(plain, module)
    return look_is_what_the_model_saw(module, watch)


# -- where a batch is made
# ------------------------------------------------------------------------------------------------------------------


class Hooked:
    """Where images are normalised, of a module or a data module."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if self.trainer.training:  # an augmentation of the training alone
            batch[0] += torch.randn(len(batch[0]), 1, 1, 1)
        return [normalised(batch[0]), *batch[1:]]


class Data(pl.LightningDataModule):
    def __init__(self, dataset: Any = None) -> None:
        super().__init__()
        self.dataset = dataset or Items()

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.dataset, 8, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.dataset, 8)


class HookedData(Hooked, Data):
    pass


class HookedModule(Hooked, Classifier):
    pass


class TransferringData(Data):
    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return [normalised(batch[0]), *batch[1:]]


class BeforeTransferModule(Classifier):
    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [normalised(batch[0]), *batch[1:]]


def collated(items: Any) -> Any:
    batch = default_collate(items)
    return [normalised(batch[0]), *batch[1:]]


PLACES = {
    "module's on_after": lambda: (HookedModule(), loaders(Items())),
    "data module's on_after": lambda: (Classifier(), HookedData()),
    "transfer": lambda: (Classifier(), TransferringData()),
    "module's on_before": lambda: (BeforeTransferModule(), loaders(Items())),
    "collate": lambda: (Classifier(), loaders(Items(), collate_fn=collated)),
    "dataset": lambda: (Classifier(), loaders(Items(images=normalised(RAW)))),
}


@pytest.mark.parametrize("place", PLACES)
def test_the_probe_is_normalised_where_the_training_is(place, tmp_path):
    probe = check(PLACES[place], tmp_path)
    rows = [int(name) for name in probe.ids]
    torch.testing.assert_close(probe.images, normalised(RAW)[rows])
    assert probe.labels.tolist() == sorted(LABELS.tolist())
    if place != "dataset":  # a person sees the item as it was
        expected = (RAW[rows] * 255).round().permute(0, 2, 3, 1).numpy()
        np.testing.assert_array_equal(probe.pictures(), expected)


def test_a_validation_without_a_fit(tmp_path):
    module, watch = HookedModule(), callback(tmp_path, on="validate")
    trainer = pl.Trainer(accelerator="cpu", callbacks=[watch], logger=False, enable_progress_bar=False)
    trainer.validate(module, DataLoader(Items(), 8), verbose=False)
    look_is_what_the_model_saw(module, watch)


# -- what a batch holds
# ------------------------------------------------------------------------------------------------------------------


class Bytes(Classifier):
    """Scales integers itself, and floats not at all."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(normalised(x / 255) if x.dtype == torch.uint8 else x)


class ChannelsLast(Classifier):
    """Takes (N, H, W, C) itself, or lets its steps move them."""

    moves = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x if self.moves else x.movedim(-1, 1))

    def outputs(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return super().outputs([batch[0].movedim(-1, 1), *batch[1:]] if self.moves else batch)


@pytest.mark.parametrize("moves", [False, True])
def test_images_with_their_channels_last(moves, tmp_path):
    dataset = Items(lambda image, label, index: (normalised(image).movedim(0, -1), label, index))

    def make() -> Any:
        module = ChannelsLast()
        module.moves = moves
        return module, loaders(dataset)

    probe = check(make, tmp_path)
    assert probe.images.shape == (N, *RAW.shape[1:])
    np.testing.assert_array_equal(probe.images[0], normalised(RAW[int(probe.ids[0])]))


class SomeLabels(Classifier):
    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        logits, labels, _index = self.outputs(batch)
        return nn.functional.cross_entropy(logits, labels, ignore_index=-1)


def test_images_without_a_label_are_left_out(tmp_path):
    """−1 is how a dataset says that an image has none."""
    dataset = Items(lambda image, label, index: (normalised(image), label if index % 4 else -1, index))
    probe = check(lambda: (SomeLabels(), loaders(dataset)), tmp_path)
    assert len(probe) == 12 and probe.labels.tolist() == [int(LABELS[int(name)]) for name in probe.ids]


def test_integers_stay_integers(tmp_path):
    images = (RAW * 255).byte()
    probe = check(lambda: (Bytes(), loaders(Items(images=images))), tmp_path)
    assert probe.dtype == torch.uint8 and torch.equal(probe.images, images[[int(i) for i in probe.ids]].float())
    np.testing.assert_array_equal(probe.pictures(), probe.images.byte().permute(0, 2, 3, 1).numpy())


class TakesBatch(Classifier):
    def forward(self, batch: Any) -> torch.Tensor:
        return self.net(normalised(batch["image"])) + batch["age"]

    def outputs(self, batch: Any) -> Any:
        return self(batch), batch["label"], batch["index"]


class TakesNames(TakesBatch):
    def forward(self, x: torch.Tensor, age: torch.Tensor, label: Any = None) -> torch.Tensor:
        assert label is None
        return self.net(normalised(x)) + age

    def outputs(self, batch: Any) -> Any:
        return self(batch["image"], batch["age"]), batch["label"], batch["index"]


class TakesKeywords(TakesBatch):
    def forward(self, **batch: Any) -> torch.Tensor:
        return self.net(normalised(batch["image"])) + batch["age"]

    def outputs(self, batch: Any) -> Any:
        return self(**batch), batch["label"], batch["index"]


class TakesImages(TakesBatch):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(normalised(x))

    def outputs(self, batch: Any) -> Any:
        return self(batch["image"]), batch["label"], batch["index"]


class TakesMeta(Classifier):
    def forward(self, x: torch.Tensor, meta: torch.Tensor | None = None) -> torch.Tensor:
        return self.net(normalised(x)) + (0 if meta is None else meta)

    def outputs(self, batch: Any) -> Any:
        x, meta, labels, index = batch
        return self(x, meta), labels, index


class TakesTwo(Classifier):
    def forward(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return self.net(normalised(x)) - self.net(normalised(other).flip(3)) * 2

    def outputs(self, batch: Any) -> Any:
        x, other, labels, index = batch
        return self(x, other), labels, index


class TakesPair(TakesTwo):
    def forward(self, images: Any) -> torch.Tensor:
        return super().forward(*images)

    def outputs(self, batch: Any) -> Any:
        pair, labels, index = batch
        return self(pair), labels, index


def age(index: int) -> torch.Tensor:
    return torch.tensor([3.0, 1.0, 2.0, 0.0]).roll(index * 3 // 2) * (index % 3)


def as_dict(image: Any, label: int, index: int) -> Any:
    return {"image": image, "label": label, "index": index, "age": age(index), "name": f"{index}.png"}


HELD = {
    "a dictionary": (TakesBatch, as_dict),
    "names": (TakesNames, as_dict),
    "keywords": (TakesKeywords, as_dict),
    "images alone": (TakesImages, as_dict),
    "image and metadata": (TakesMeta, lambda image, label, i: (image, age(i), label, i)),
    "two images": (TakesTwo, lambda image, label, i: (image, RAW[(i * 5 + 2) % N], label, i)),
    "a pair": (TakesPair, lambda image, label, i: ((image, RAW[(i * 5 + 2) % N]), label, i)),
}


@pytest.mark.parametrize("held", HELD)
def test_other_inputs_belong_to_their_images(held, tmp_path):
    module, item = HELD[held]
    # Several batches: each has its own rows. Variants of an image, versions with noise and mixtures keep its inputs.
    options = {"batch_size": 6, "methods": ["gradcam", "scorecam"], "layers": "net.0"}
    options |= {"exchange": ["frame"], "exchange_pairs": 1}
    probe = check(lambda: (module(), loaders(Items(item))), tmp_path, **options)
    assert probe.labels.tolist() == sorted(LABELS.tolist())


def test_a_forward_gets_the_batch_as_its_third_argument(tmp_path):
    options = {"forward": lambda model, images, batch: model.net(normalised(images)) + batch["age"]}
    check(lambda: (TakesBatch(), loaders(Items(as_dict))), tmp_path, **options)


def test_a_forward_that_cannot_be_called_says_what_the_batch_holds(tmp_path):
    class Unknown(TakesBatch):
        def forward(self, picture: torch.Tensor, years: torch.Tensor) -> torch.Tensor:
            return self.net(picture) + years

        def outputs(self, batch: Any) -> Any:
            return self(batch["image"], batch["age"]), batch["label"], batch["index"]

    with pytest.raises(
        Exception,
        match=r"(?s)Unknown could not be called.*forward=lambda model, images, batch.*'age': Tensor \(16, 4\)",
    ):
        fit(Unknown(), loaders(Items(as_dict)), callback(tmp_path))


# -- where the images come from
# ------------------------------------------------------------------------------------------------------------------


class Stream(IterableDataset):
    def __init__(self) -> None:
        self.items, self.passes = Items(), 0
        self.noise = torch.Generator().manual_seed(3)

    def __iter__(self) -> Any:
        self.passes += 1
        for index in range(N):
            image, label, _ = self.items[index]
            yield image + torch.randn((), generator=self.noise) * 0.01, label, index


class Once(IterableDataset):
    """An iterator that cannot be started anew."""

    def __init__(self) -> None:
        self.rest = iter([(index % N) for index in range(N * 9)])

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        index = next(self.rest)
        return RAW[index], int(LABELS[index]), index


def test_a_stream_gives_its_first(tmp_path):
    def make() -> Any:
        return Classifier(), (DataLoader(Items(), 8, shuffle=True), DataLoader(Stream(), 8))

    plain, data = make()
    fit(plain, data)
    stream = data[1].dataset
    module, data = make()
    watch = callback(tmp_path)
    fit(module, data, watch)
    assert watch.probe.ids == [str(i) for i in range(N)] and len(watch.store) == 1
    assert (stream.passes, stream.noise.get_state().tolist()) == (
        data[1].dataset.passes,
        data[1].dataset.noise.get_state().tolist(),
    )
    assert all(torch.equal(plain.logits[i], module.logits[i]) for i in plain.logits)


def test_what_cannot_be_read_twice_gives_its_first_batch(tmp_path):
    module, watch = Classifier(), callback(tmp_path)
    stream = DataLoader(Once(), 8)
    fit(module, (DataLoader(Items(), 8, shuffle=True), stream), watch, limit_val_batches=2)
    assert len(watch.probe) == 8 and next(stream.dataset.rest) == 0
    np.testing.assert_array_equal(watch.store[-1].predictions, [int(module.logits[str(i)].argmax()) for i in range(8)])


class OpenedInWorkers(Items):
    def __getitem__(self, index: int) -> Any:
        if get_worker_info() is None:
            raise OSError("its file is opened in the workers")
        return super().__getitem__(index)


def test_what_only_workers_can_read_gives_its_first_batch(tmp_path):
    module, watch = Classifier(), callback(tmp_path)
    fit(module, (DataLoader(Items(), 8, shuffle=True), DataLoader(OpenedInWorkers(), 8, num_workers=1)), watch)
    assert len(watch.probe) == 8
    np.testing.assert_array_equal(watch.store[-1].predictions, [int(module.logits[str(i)].argmax()) for i in range(8)])


class Restless(Items):
    """Counts, caches, and draws from generators of its own; so does its transform."""

    def __init__(self) -> None:
        super().__init__()
        self.reads, self.cache = 0, {}
        self.generator, self.rng = torch.Generator().manual_seed(5), np.random.default_rng(5)
        transform = nn.Sequential(Jitter())
        self.item = lambda image, label, index: (transform(image), label, index)
        self.transform = transform

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        image, *rest = super().__getitem__(index)
        noise = torch.randn(image.shape, generator=self.generator) + self.rng.normal()
        return self.cache.setdefault(index, image + 0.01 * noise) + 0.01 * noise, *rest

    def state(self) -> Any:
        return self.reads, sorted(self.cache), self.generator.get_state().tolist(), self.rng.bit_generator.state, (
            self.transform[0].rng.get_state()[1].tolist(), self.transform[0].calls
        )  # fmt: skip


class Jitter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rng, self.calls = np.random.RandomState(7), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + 0.01 * float(self.rng.normal())


@pytest.mark.parametrize("through", ["loaders", "data module"])
def test_a_dataset_with_a_state_of_its_own_never_notices(through, tmp_path):
    def make() -> Any:
        data, order = Restless(), torch.Generator().manual_seed(11)
        if through == "data module":
            return Classifier(), Data(data), data, order
        sampler = RandomSampler(data, generator=order)
        return Classifier(), (DataLoader(data, 8, sampler=sampler), DataLoader(data, 8, sampler=sampler)), data, order

    plain, given, data, order = make()
    fit(plain, given, max_epochs=2)
    module, given, watched, watched_order = make()
    fit(module, given, callback(tmp_path), max_epochs=2)
    assert watched.state() == data.state()
    assert torch.equal(watched_order.get_state(), order.get_state())
    assert equal_weights(plain, module)


def test_hooks_that_count_never_notice(tmp_path):
    class Counting(HookedData):
        calls = 0

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            self.calls += 1
            return super().on_after_batch_transfer(batch, dataloader_idx)

    counts = []
    for callbacks in ([], [callback(tmp_path)]):
        data = Counting()
        fit(Classifier(), data, *callbacks)
        counts.append(data.calls)
    assert counts[0] == counts[1] == 2 + 2


def test_a_sampler_of_a_part_gives_images_of_that_part(tmp_path):
    part = [1, 2, 3, 4, 5, 6, 7, 8]
    data = Items()
    val = DataLoader(data, 4, sampler=SubsetRandomSampler(part, generator=torch.Generator()))
    module, watch = Classifier(), callback(tmp_path)
    fit(module, (DataLoader(data, 8, shuffle=True), val), watch)
    assert sorted(map(int, watch.probe.ids)) == part
    look_is_what_the_model_saw(module, watch)


def test_a_sampler_of_places_gives_the_first_of_them(tmp_path):
    class Places(Items):
        def __getitem__(self, place: Any) -> Any:
            return super().__getitem__(place[0] * 4 + place[1])

    class Grid:
        def __iter__(self) -> Any:
            return iter([(row, column) for row in range(4) for column in range(4)])

        def __len__(self) -> int:
            return N

    loader = DataLoader(Places(), 8, sampler=Grid())
    module, watch = Classifier(), callback(tmp_path)
    fit(module, (loader, loader), watch)
    look_is_what_the_model_saw(module, watch)


# -- the guard
# ------------------------------------------------------------------------------------------------------------------


def test_a_probe_of_other_pixels_is_said_once(tmp_path):
    watch = callback(tmp_path, probe=ProbeSet.from_dataset(Items(), n=8))
    with pytest.warns(UserWarning, match="first validation batch") as said:
        fit(HookedModule(), loaders(Items()), watch)
    (message,) = [str(one.message) for one in said if "first validation batch" in str(one.message)]
    for images in (watch.probe.images, normalised(RAW[:8])):  # of the probe, and of the first batch
        flat = images.flatten(1)
        for value in (flat.mean(1).mean(), flat.std(1, unbiased=False).mean()):
            assert f"{float(value):.3g}" in message


def test_a_probe_of_the_same_kind_is_not(tmp_path):
    watch = callback(tmp_path, probe=ProbeSet(normalised(RAW[:3]), LABELS[:3]))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="CAMCallback")
        fit(HookedModule(), loaders(Items()), watch)


def test_from_datamodule_goes_through_its_hooks():
    probe = ProbeSet.from_datamodule(HookedData(), n=8)
    torch.testing.assert_close(probe.images, normalised(RAW)[[int(i) for i in probe.ids]])
