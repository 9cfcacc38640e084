"""A run that was broken off and resumed leaves what one without a break leaves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader

from cam_callbacks import CAMCallback, ProbeSet

EPOCHS, BREAK = 8, 5


@pytest.fixture
def run(data, masks, make_module, tmp_path):
    """``run(name, epochs, ckpt_path)``: the callback of a fit without random numbers, logged under ``name``."""

    def train(name, epochs, ckpt_path=None):
        torch.manual_seed(0)
        module = make_module()
        module.net[6] = nn.Identity()  # its dropout would draw other numbers after a break
        probe = ProbeSet(data.tensors[0][:6], data.tensors[1][:6], masks=masks[:6])
        callback = CAMCallback(probe, max_images=1, on_error="raise")
        save = ModelCheckpoint(tmp_path / name / "ckpt", save_last=True, save_top_k=-1)
        trainer = pl.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=TensorBoardLogger(tmp_path / name, ""), enable_progress_bar=False,
            callbacks=[callback, save], enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, DataLoader(data, 16), DataLoader(data, 16), ckpt_path=ckpt_path)
        return callback

    return train


def pictures(folder: Path) -> list[int]:
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return [image.step for image in events.Images("cam/gradcam/sheet")]


def test_a_resumed_run_equals_one_without_a_break(run, tmp_path):
    whole = run("whole", EPOCHS)
    run("broken", BREAK)
    resumed = run("broken", EPOCHS, str(tmp_path / "broken" / "ckpt" / "last.ckpt"))
    assert resumed.store.folder == tmp_path / "broken" / "version_1" / "cam"
    assert [(r.look, r.epoch, r.step) for r in resumed.store] == [(r.look, r.epoch, r.step) for r in whole.store]
    for ours, theirs in zip(resumed.store, whole.store, strict=True):
        for key in ours.maps:
            np.testing.assert_array_equal(ours.maps[key], theirs.maps[key])
        clocks = {"cam/seconds", "cam/overhead"}
        assert ours.metrics.keys() == theirs.metrics.keys()
        for key in ours.metrics.keys() - clocks:
            np.testing.assert_equal(ours.metrics[key], theirs.metrics[key], err_msg=key)
        np.testing.assert_equal(ours.reference, theirs.reference)
        assert [a.name for a in ours.alerts] == [a.name for a in theirs.alerts]
    ledger = json.loads((resumed.store.folder / "delivered.json").read_text())
    assert ledger["looks"]["tensorboard"] == list(range(EPOCHS))
    assert pictures(tmp_path / "broken" / "version_0") == list(range(BREAK))
    assert pictures(tmp_path / "broken" / "version_1") == list(range(BREAK, EPOCHS))


def test_looks_after_the_checkpoint_are_made_and_drawn_again(run, tmp_path):
    """Killed two epochs after its last good checkpoint, and resumed from there."""
    run("broken", 5)
    resumed = run("broken", 6, str(tmp_path / "broken" / "ckpt" / "epoch=2-step=9.ckpt"))
    assert resumed.store.folder.parent.name == "version_1" and [r.epoch for r in resumed.store] == list(range(6))
    assert pictures(tmp_path / "broken" / "version_1") == [3, 4, 5]


def test_a_checkpoint_holds_tensors_and_plain_values_only(run, tmp_path):
    run("one", 2)
    state = torch.load(tmp_path / "one" / "ckpt" / "last.ckpt", weights_only=True)["callbacks"]["CAMCallback"]
    assert state["monitor"]["looks"] == 2
