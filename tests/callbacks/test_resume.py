"""A run that was broken off and resumed leaves what one without a break leaves."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cam_callbacks import CAMCallback, ProbeSet, RecordStore
from cam_engine.metrics import jensen_shannon

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
        clocks = {"cam/seconds", "cam/exchange_seconds", "cam/overhead"}
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


@pytest.mark.parametrize(
    ("probe", "methods", "why"), [(5, ["gradcam"], "fingerprint"), (4, ["gradcam", "eigencam"], "looks are by")]
)
def test_a_resume_that_watches_something_else_starts_a_new_series(fit, pl, tmp_path, data, probe, methods, why):
    def callback(n, methods, **options):
        return CAMCallback(ProbeSet(data.tensors[0][:n]), methods, folder=tmp_path / "r", **options)

    save = pl("pytorch_lightning").callbacks.ModelCheckpoint(tmp_path / "ckpt", save_last=True)
    fit(callback(4, ["gradcam"]), save, epochs=2, enable_checkpointing=True)
    last = str(tmp_path / "ckpt" / "last.ckpt")
    second = callback(probe, methods)
    with pytest.warns(UserWarning, match=f"a new series of looks begins with this resume: .*{why}"):
        fit(second, epochs=3, ckpt_path=last)
    assert second.store.folder == tmp_path / "r-2" and [(r.look, r.epoch) for r in second.store] == [(0, 2)]
    assert second.store.manifest["methods"] == methods and len(RecordStore(tmp_path / "r")) == 2
    with pytest.raises(RuntimeError, match=why):
        fit(callback(probe, methods, on_error="raise"), epochs=3, ckpt_path=last)


def test_a_resume_between_looks_keeps_their_rhythm_and_values(fit, pl, tmp_path):
    pl = pl("pytorch_lightning")
    save = pl.callbacks.ModelCheckpoint(tmp_path / "ckpt", save_last=True)
    fit(CAMCallback(every_n_epochs=3, folder=tmp_path / "r"), save, epochs=1, enable_checkpointing=True)
    stop = pl.callbacks.EarlyStopping("cam/entropy/gradcam", patience=50)
    second = CAMCallback(every_n_epochs=3, folder=tmp_path / "r", on_error="raise")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="CAMCallback never looked")
        trainer = fit(stop, second, epochs=3, ckpt_path=str(tmp_path / "ckpt" / "last.ckpt"))
    before = second.store[0].metrics["cam/entropy/gradcam"]
    assert len(second.store) == 1 and float(trainer.callback_metrics["cam/entropy/gradcam"]) == pytest.approx(before)
    trainer.fit_loop.max_epochs = 5
    trainer.fit(trainer.model, DataLoader(TensorDataset(torch.zeros(4, 3, 24, 24), torch.arange(4))),
                DataLoader(TensorDataset(torch.zeros(4, 3, 24, 24), torch.arange(4))))  # fmt: skip
    assert [r.epoch for r in second.store] == [0, 3]


def test_resume_goes_on_where_the_run_stopped(fit, pl, tmp_path, data):
    pl = pl("pytorch_lightning")
    probe = ProbeSet(data.tensors[0][:8], data.tensors[1][:8])
    save = pl.callbacks.ModelCheckpoint(tmp_path / "ckpt", save_last=True)
    first = CAMCallback(probe, methods="gradcam")
    fit(first, save, epochs=2, logger=pl.loggers.TensorBoardLogger(tmp_path, "b"), enable_checkpointing=True)
    second = CAMCallback(probe, methods="gradcam")
    board = pl.loggers.TensorBoardLogger(tmp_path, "b")
    fit(second, epochs=4, logger=board, ckpt_path=str(tmp_path / "ckpt" / "last.ckpt"))
    assert Path(board.log_dir).name == "version_1"
    assert [r.look for r in second.store] == [0, 1, 2, 3]
    for old, copied in zip(first.store, second.store, strict=False):
        np.testing.assert_equal(copied.metrics, old.metrics)
        np.testing.assert_equal(copied.reference, old.reference)
    maps = [record.maps["gradcam", "net.8"] for record in second.store]
    across = jensen_shannon(maps[2], maps[1])  # the first look after the resume knows the last one before it
    np.testing.assert_allclose(second.store[2].per_image["drift_prev/gradcam"], across, atol=1e-6)
    assert second.store[2].reference["gradcam/net.8"]["look"] in (0, 2)
