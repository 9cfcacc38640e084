"""CAMLoop in a plain PyTorch loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from cam_callbacks import CAMMonitor, ProbeSet
from cam_callbacks.loop import CAMLoop


@pytest.fixture
def probe(data):
    return ProbeSet(data.tensors[0][:4], data.tensors[1][:4])


def train(model, data, watch=None, epochs=3):
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for epoch in range(epochs):
        for images, labels in DataLoader(data, 16, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        if watch is not None:
            watch.look(model, epoch)  # in train mode, as it stands
    return model


def test_the_training_is_as_without_and_the_records_are_a_monitors(net, data, probe, tmp_path):
    import copy

    plain = train(copy.deepcopy(net), data)
    with CAMLoop(probe, tmp_path / "looks", tensorboard=tmp_path / "board", on_error="raise") as watch:
        watched = train(copy.deepcopy(net), data, watch)
    for ours, theirs in zip(watched.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert watched.training and [r.epoch for r in watch.store] == [0, 1, 2]
    again = CAMMonitor(probe).look(watched)
    np.testing.assert_array_equal(again.maps["gradcam", "8"], watch.store[-1].maps["gradcam", "8"])
    assert (tmp_path / "looks" / "delivered.json").is_file() and list((tmp_path / "board").glob("events*"))


def test_looks_that_fail_end_nothing(net, data, probe, tmp_path):
    with (
        pytest.warns(UserWarning, match="CAMLoop: look skipped; training goes on.*no layer 'nowhere'") as caught,
        CAMLoop(probe, tmp_path / "looks", layers="nowhere") as watch,
    ):
        train(net, data, watch, epochs=5)
    assert watch.failed_looks == 3 and sum("look skipped" in str(w.message) for w in caught) == 1
    with pytest.raises(RuntimeError, match="nowhere"):
        CAMLoop(probe, tmp_path / "other", layers="nowhere", on_error="raise").look(net)
