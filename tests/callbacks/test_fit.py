"""The main door: a real Trainer.fit with the callback, read back from its records."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from cam_callbacks import CAMCallback, ProbeSet, RecordStore
from cam_engine import CAM
from cam_engine.metrics import jensen_shannon


def test_alone_it_watches_the_validation_set(fit, package):
    callback = CAMCallback()
    trainer = fit(callback, package=package, epochs=2)
    assert len(callback.store) == 2 and callback.store.folder.is_relative_to(trainer.default_root_dir)
    assert callback.store[-1].maps["gradcam", "net.8"].shape == (16, 6, 6)
    assert np.bincount(callback.probe.labels).tolist() == [4, 4, 4, 4]
    assert {"cam/focus_drift/gradcam", "cam/entropy/eigencam", "cam/seconds"} <= trainer.callback_metrics.keys()
    assert float(trainer.callback_metrics["cam/failed_looks"]) == 0


def test_records_hold_what_the_model_showed(fit, data):
    model_seen = {}

    class Keep(CAMCallback):
        def on_validation_batch_start(self, trainer, pl_module, *rest):
            super().on_validation_batch_start(trainer, pl_module, *rest)
            model_seen[trainer.current_epoch] = {k: v.clone() for k, v in pl_module.state_dict().items()}

    probe = ProbeSet(data.tensors[0][:8], data.tensors[1][:8])
    callback = Keep(probe, methods="gradcam", reference="first")
    module = None
    trainer = fit(callback, epochs=2)
    module = trainer.lightning_module
    maps = []
    for epoch, record in enumerate(callback.store):
        module.load_state_dict(model_seen[epoch])
        with torch.no_grad():
            logits = module.eval()(probe.images)
        result = CAM(module, "gradcam", "net.8")(probe.images, probe.labels)
        maps.append(result.raw["gradcam", "net.8"])
        np.testing.assert_allclose(record.maps["gradcam", "net.8"], maps[-1], atol=1e-6)
        np.testing.assert_array_equal(record.predictions, logits.argmax(1))
        np.testing.assert_allclose(record.confidences, logits.double().softmax(1).amax(1), rtol=1e-5)
        np.testing.assert_allclose(record.scores, logits.gather(1, probe.labels[:, None])[:, 0], rtol=1e-5)
    drift = jensen_shannon(maps[1], maps[0])
    np.testing.assert_allclose(callback.store[1].per_image["drift_ref/gradcam"], drift, atol=1e-6)
    assert callback.store[1].metrics["cam/drift_ref/gradcam"] == pytest.approx(np.nanmean(drift), abs=1e-6)


def test_logger_false_leaves_records(fit, tmp_path):
    callback = CAMCallback(folder=tmp_path / "mine")
    fit(callback, logger=False, epochs=1)
    assert len(RecordStore(tmp_path / "mine")) == 1


def test_datamodule(package, pl, tmp_path, data, make_module):
    pl = pl(package)

    class Data(pl.LightningDataModule):
        def setup(self, stage):
            self.data = data

        def train_dataloader(self):
            return DataLoader(self.data, 16)

        val_dataloader = train_dataloader

    callback = CAMCallback(on_error="raise")
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, callbacks=[callback], enable_progress_bar=False,
                         default_root_dir=tmp_path, enable_checkpointing=False)  # fmt: skip
    trainer.fit(make_module(package), datamodule=Data())
    assert len(callback.store) == 1 and len(callback.probe) == 16
    assert len(ProbeSet.from_datamodule(Data(), n=4)) == 4


def test_a_probe_is_named_by_the_data_that_it_is_taken_from():
    assert [CAMCallback(probe=split).probe for split in ("val", "train")] == ["val", "train"]
    with pytest.raises(ValueError, match='takes a ProbeSet, "val" or "train"'):
        CAMCallback(probe="test")


def test_a_record_is_compressed_once_though_the_trainers_numbers_come_later(fit, monkeypatch):
    from cam_callbacks import Record

    compressed = []
    to_bytes = Record.to_bytes
    monkeypatch.setattr(Record, "to_bytes", lambda record: compressed.append(record.look) or to_bytes(record))
    callback = CAMCallback(methods="eigencam", on_error="raise")
    trainer = fit(callback)
    assert compressed == [0, 1, 2]
    assert all("val_acc" in record.user_metrics for record in callback.store)
    assert callback.store[-1].user_metrics["val_acc"] == pytest.approx(float(trainer.callback_metrics["val_acc"]))


def test_the_environment_switches_it_off(fit, monkeypatch):
    monkeypatch.setenv("CAM_CALLBACKS_DISABLED", "1")
    callback = CAMCallback()
    trainer = fit(callback, epochs=1)
    assert callback.store is None and not any(k.startswith("cam/") for k in trainer.callback_metrics)


def test_fast_dev_run_looks_and_writes_nothing(fit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    callback = CAMCallback(on_error="raise")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*CAMCallback.*")
        trainer = fit(callback, fast_dev_run=True)
    assert callback.watcher.monitor.looks == 1 and "cam/drift_ref/gradcam" in trainer.callback_metrics
    assert callback.store is None and not list(tmp_path.iterdir())
    kept = CAMCallback(on_error="raise", folder=tmp_path / "kept")
    fit(kept, fast_dev_run=True)
    assert len(kept.store) == 1  # where a folder was asked for
