"""At which validations the callback looks."""

from __future__ import annotations

import warnings

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from cam_callbacks import CAMCallback, ProbeSet


def test_every_n_epochs(fit):
    callback = CAMCallback(every_n_epochs=2)
    fit(callback, epochs=5)
    assert [r.epoch for r in callback.store] == [0, 2, 4]


def test_every_n_epochs_counts_from_the_last_look(fit, pl):
    """Validations at epochs 1, 3, 5 have no epoch that two divides."""
    stop = pl("pytorch_lightning").callbacks.EarlyStopping("cam/drift_ref/gradcam", patience=50)
    callback = CAMCallback(every_n_epochs=2, on_error="raise")
    fit(stop, callback, epochs=6, check_val_every_n_epoch=2)
    assert [r.epoch for r in callback.store] == [1, 3, 5]


def test_looks_also_where_the_first_loader_is_empty(make_module, pl, data, tmp_path):
    pl, model = pl("pytorch_lightning"), make_module()
    type(model).validation_step = lambda self, batch, index, dataloader_idx=0: None
    callback = CAMCallback(ProbeSet(data.tensors[0][:4], data.tensors[1][:4]), on_error="raise")
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", callbacks=[callback], logger=False, limit_val_batches=0.4,
                         default_root_dir=tmp_path, enable_checkpointing=False, enable_progress_bar=False)  # fmt: skip
    empty = torch.utils.data.Subset(data, [])
    trainer.fit(model, DataLoader(data, 16), [DataLoader(empty, 16), DataLoader(data, 16), DataLoader(data, 16)])
    assert len(callback.store) == 1


def test_several_validations_an_epoch_are_several_looks(fit, pl, tmp_path):
    board = pl("pytorch_lightning").loggers.TensorBoardLogger(tmp_path, "board")
    callback = CAMCallback(max_images=1)
    fit(callback, epochs=2, val_check_interval=1, logger=board)
    assert [(r.look, r.epoch) for r in callback.store] == [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 1)]
    events = EventAccumulator(board.log_dir, size_guidance={"images": 0})
    events.Reload()
    assert [i.step for i in events.Images("cam/gradcam/sheet")] == [0, 1, 2, 3, 4, 5]


def test_warns_once_when_validation_never_runs(fit):
    with pytest.warns(UserWarning, match="never looked") as caught:
        fit(CAMCallback(), limit_val_batches=0)
    assert sum("never looked" in str(w.message) for w in caught) == 1


def test_a_subclass_chooses_other_validations(fit):
    class Late(CAMCallback):
        def should_look(self, trainer):
            return trainer.current_epoch >= 2 and super().should_look(trainer)

    callback = Late(methods="eigencam", every_n_epochs=2, on_error="raise")
    trainer = fit(callback, epochs=5)
    assert [r.epoch for r in callback.store] == [2, 4]
    assert float(trainer.callback_metrics["cam/failed_looks"]) == 0


def test_a_fit_that_is_not_to_be_watched_is_left_alone(fit):
    callback = CAMCallback(on=("test",))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*CAMCallback.*")
        trainer = fit(callback, epochs=1)
    assert callback.store is None and not any(key.startswith("cam/") for key in trainer.callback_metrics)
