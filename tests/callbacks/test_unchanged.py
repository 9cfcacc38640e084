"""Reading from a dataset leaves no trace, wherever it keeps its state."""

from __future__ import annotations

import functools
import multiprocessing
import random
from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from cam_callbacks.unchanged import unchanged

SHARED = torch.Generator()
CALLS: list[int] = []
COUNT = 0


class Slotted:
    __slots__ = ("count",)

    def __init__(self):
        self.count = 0


class Restless(Dataset):
    """Each read moves everything that it can."""

    reads = 0

    def __init__(self):
        self.torch, self.numpy = torch.Generator(), np.random.default_rng(0)
        self.old, self.python = np.random.RandomState(0), random.Random(0)
        self.count, self.order, self.recent = 0, np.arange(9), deque(maxlen=2)
        self.cache, self.seen, self.log = {}, set(), []
        self.tensor, self.value, self.slotted = torch.zeros(3), multiprocessing.Value("i", 0), Slotted()
        self.inner = SimpleNamespace(transforms=[functools.partial(self.jitter, self.numpy)])
        self.layer = nn.BatchNorm2d(3)
        closed = 0

        def counted():
            nonlocal closed
            closed += 1
            return closed

        self.counted = counted

    @staticmethod
    def jitter(rng, x):
        return x + rng.normal()

    def __len__(self):
        return 9

    def __getitem__(self, index):
        global COUNT
        COUNT += 1
        CALLS.append(index)
        type(self).reads += 1
        self.count += 1
        self.python.shuffle(self.log)
        self.old.shuffle(self.order)
        self.cache[index] = self.seen.add(index)
        self.log.append(index)
        self.recent.append(index)
        self.tensor += 1
        self.value.value += 1
        self.slotted.count += 1
        self.late = index
        image = self.layer(torch.rand(1, 3, 4, 4, generator=self.torch))[0].detach()
        return self.inner.transforms[0](image) + torch.rand(1, generator=SHARED) + self.counted(), index


def state(data, loader):
    """All of it, as plain values."""
    kept = {k: v for k, v in vars(data).items() if isinstance(v, (int, list, dict, set, deque))}
    kept = {k: v.copy() if hasattr(v, "copy") else v for k, v in kept.items()}
    generators = [data.torch.get_state(), SHARED.get_state(), loader.generator.get_state(), torch.get_rng_state()]
    arrays = [data.order, data.tensor.numpy(), data.old.get_state()[1], *(p.numpy() for p in data.layer.buffers())]
    return repr((kept, COUNT, CALLS, Restless.reads, data.numpy.bit_generator.state, data.python.getstate(),
                 data.value.value, data.slotted.count, data.counted.__closure__[0].cell_contents,
                 [g.tolist() for g in generators], [a.tolist() for a in arrays], np.random.get_state()[1].tolist()))  # fmt: skip


def test_reading_leaves_no_trace():
    data = Restless()
    loader = DataLoader(data, 3, sampler=RandomSampler(data, generator=torch.Generator()), generator=torch.Generator())
    before = state(data, loader)
    with unchanged(loader):
        first = [batch[1].tolist() for batch in loader]
        assert state(data, loader) != before
    assert state(data, loader) == before
    assert not hasattr(data, "late")
    assert [batch[1].tolist() for batch in loader] == first


def test_an_error_inside_leaves_none_either():
    data = Restless()

    def read():
        with unchanged(data):
            data[0]
            raise KeyError

    with pytest.raises(KeyError):
        read()
    assert data.count == 0 and not data.log


def test_open_files_are_where_they_were(tmp_path):
    (tmp_path / "lines").write_text("a\nb\nc\n")
    with (tmp_path / "lines").open() as file:
        file.readline()
        with unchanged(SimpleNamespace(file=file)):
            file.readline()
        assert file.readline() == "b\n"


def test_pictures_and_trainers_are_left_alone(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    opened = Image.open(tmp_path / "a.png")  # read, and its file closed, when it is first looked at
    trainer = SimpleNamespace(fit_loop=None, steps=0)
    with unchanged([opened], SimpleNamespace(trainer=trainer)):
        opened.load()
        trainer.steps = 1
    assert opened.getpixel((0, 0)) == (0, 0, 0) and trainer.steps == 1


def test_large_data_is_not_copied(monkeypatch):
    data = torch.zeros(2**23)
    copied = []
    monkeypatch.setattr(torch.Tensor, "clone", lambda self, *a, **k: copied.append(self.nbytes) or self)
    with unchanged([data]):
        pass
    assert data.nbytes not in copied
