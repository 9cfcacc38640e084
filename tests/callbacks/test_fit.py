"""The main door: a real Trainer.fit with the callback, read back from where a user would read it."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cam_callbacks import CAMCallback, CAMMonitor, ProbeSet, RecordStore
from cam_engine import CAM
from cam_engine.metrics import jensen_shannon


def mlflow_logger(pl, folder: Path):
    return pl.loggers.MLFlowLogger(
        "tests",
        run_name="run one",
        tracking_uri=f"sqlite:///{folder}/mlflow.db",
        artifact_location=str(folder / "artifacts"),
    )


def test_pictures_and_numbers_reach_tensorboard_and_mlflow(package, pl, fit, data, masks, tmp_path):
    import mlflow

    pl = pl(package)
    board, flow = pl.loggers.TensorBoardLogger(tmp_path, "board"), mlflow_logger(pl, tmp_path)
    probe = ProbeSet(data.tensors[0][:6], data.tensors[1][:6], masks=masks[:6], class_names=["a", "b", "c", "d"])
    callback = CAMCallback(probe, methods=("eigencam", "gradcam++"), max_images=4, on_error="raise")
    best = pl.callbacks.ModelCheckpoint(tmp_path / "best", monitor="cam/on_target_enrichment/gradcampp", mode="max")
    stop = pl.callbacks.EarlyStopping("cam/drift_ref/eigencam", patience=50)
    trainer = fit(stop, callback, best, package=package, logger=[flow, board], enable_checkpointing=True)

    assert callback.store.folder == Path(board.log_dir) / "cam"
    records = list(callback.store)
    assert [(r.look, r.epoch, r.step) for r in records] == [(0, 0, 3), (1, 1, 6), (2, 2, 9)]
    enrichment = [r.metrics["cam/on_target_enrichment/gradcampp"] for r in records]
    assert float(best.best_model_score) == pytest.approx(max(enrichment), rel=1e-5)
    assert records[-1].user_metrics["val_acc"] == pytest.approx(float(trainer.callback_metrics["val_acc"]))

    events = EventAccumulator(board.log_dir, size_guidance={"images": 0})
    events.Reload()
    for key, value in records[-1].metrics.items():
        assert events.Scalars(key)[-1].value == pytest.approx(value, rel=1e-5), key
    tags = events.Tags()["images"]
    wanted = [f"cam/{m}/{i}" for m in ("eigencam", "gradcampp") for i in ("0", "2", "3", "5", "sheet", "film_strip")]
    assert sorted(tags) == sorted(wanted)
    assert [image.step for image in events.Images("cam/gradcampp/0")] == [0, 1, 2]
    assert len({image.encoded_image_string for image in events.Images("cam/gradcampp/sheet")}) == 3

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    run = client.get_run(flow.run_id)
    assert run.data.metrics["cam/entropy/gradcampp"] == pytest.approx(
        records[-1].metrics["cam/entropy/gradcampp"], rel=1e-5
    )
    assert run.data.tags["cam.probe_fingerprint"] == probe.fingerprint
    assert run.data.tags["cam.methods"] == "eigencam, gradcam++" and run.data.tags["cam.layers"] == "net.8"
    assert {f.path for f in client.list_artifacts(flow.run_id)} >= {
        "cam",
        "cam_report.html",
        "cam_latest.png",
        "cam_filmstrip.png",
        "images",
    }
    names = [f.path for f in client.list_artifacts(flow.run_id, "images")]
    assert {n.split("+step+")[1].split("+")[0] for n in names if "gradcampp" in n} == {"0", "1", "2"}
    copied = RecordStore(mlflow.artifacts.download_artifacts(
        run_id=flow.run_id, artifact_path="cam/records", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db"))  # fmt: skip
    for ours, theirs in zip(records, copied, strict=True):
        assert theirs.metrics.keys() == ours.metrics.keys()
        np.testing.assert_array_equal(theirs.maps["eigencam", "net.8"], ours.maps["eigencam", "net.8"])
    assert copied.manifest["run"] == "run one"


def image_tags(board) -> list[str]:
    events = EventAccumulator(board.log_dir, size_guidance={"images": 0})
    events.Reload()
    return events.Tags()["images"]


def test_each_of_two_tensorboards_gets_every_picture(fit, pl, tmp_path):
    boards = [pl("pytorch_lightning").loggers.TensorBoardLogger(tmp_path, name) for name in ("one", "two")]
    fit(CAMCallback(methods="eigencam", max_images=2, on_error="raise"), logger=boards, epochs=1)
    tags = [image_tags(board) for board in boards]
    assert len(tags[0]) == 4 and tags[0] == tags[1]


def test_max_images_0_draws_nothing_and_logs_the_rest(fit, pl, tmp_path, caplog):
    pl = pl("pytorch_lightning")
    board, flow = pl.loggers.TensorBoardLogger(tmp_path, "board"), mlflow_logger(pl, tmp_path)
    callback = CAMCallback(methods="eigencam", max_images=0, on_error="raise")
    fit(callback, logger=[board, flow], epochs=1)
    assert "could not take" not in caplog.text and image_tags(board) == []
    assert len(callback.store[0].maps["eigencam", "net.8"]) == 16
    artifacts = tmp_path / "artifacts" / flow.run_id / "artifacts"
    files = {str(p.relative_to(artifacts)) for p in artifacts.rglob("*") if p.is_file()}
    assert files == {
        "cam_report.html",
        *(f"cam/records/{f}" for f in ("manifest.json", "probe.npz", "look-000000.npz")),
    }


def test_any_image_id_is_a_picture_of_its_own_in_mlflow(fit, pl, data, tmp_path, caplog):
    import mlflow

    ids = ["../../etc/x", "猫", "狗", "x/" * 250, "a b", "a_b", "plain-1.x"]
    probe = ProbeSet(data.tensors[0][:7], data.tensors[1][:7], ids=ids, class_names=["a/b", "😀", "y" * 500, "d\nq"])
    flow = mlflow_logger(pl("pytorch_lightning"), tmp_path)
    fit(CAMCallback(probe, methods="eigencam", on_error="raise"), logger=flow, epochs=1)
    assert "could not take" not in caplog.text
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    keys = {f.path.removeprefix("images/").split("+step+")[0] for f in client.list_artifacts(flow.run_id, "images")}
    assert len(keys) == 7 and "cam~eigencam~plain-1.x" in keys


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


def test_training_is_bit_identical_with_and_without(fit):
    def weights(*callbacks):
        trainer = fit(*callbacks, epochs=2)
        state = trainer.lightning_module.state_dict()
        return state, torch.get_rng_state(), trainer.optimizers[0].state_dict()["state"]

    plain, plain_rng, plain_optimizer = weights()
    watched, watched_rng, watched_optimizer = weights(CAMCallback(on_error="raise"))
    assert all(torch.equal(plain[k], watched[k]) for k in plain)
    assert torch.equal(plain_rng, watched_rng)
    assert all(
        torch.equal(a["momentum_buffer"], watched_optimizer[k]["momentum_buffer"]) for k, a in plain_optimizer.items()
    )


def test_a_validation_split_drawn_in_val_dataloader_stays_as_it_was(make_module, pl, data, tmp_path):
    pl = pl("pytorch_lightning")

    class Data(pl.LightningDataModule):
        def train_dataloader(self):
            return DataLoader(data, 16, shuffle=True)

        def val_dataloader(self):
            self.chosen, _ = torch.utils.data.random_split(data, [24, 24])
            return DataLoader(self.chosen, 16)

    def run(*callbacks):
        torch.manual_seed(3)
        source, model = Data(), make_module()
        pl.Trainer(max_epochs=1, accelerator="cpu", callbacks=list(callbacks), logger=False, default_root_dir=tmp_path,
                   enable_checkpointing=False, enable_progress_bar=False).fit(model, datamodule=source)  # fmt: skip
        return source.chosen.indices, model.state_dict()

    (plain, plain_weights), (watched, watched_weights) = run(), run(CAMCallback(on_error="raise"))
    assert plain == watched
    assert all(torch.equal(plain_weights[k], watched_weights[k]) for k in plain_weights)


def test_logger_false_leaves_records(fit, tmp_path):
    callback = CAMCallback(folder=tmp_path / "mine")
    fit(callback, logger=False, epochs=1)
    assert len(RecordStore(tmp_path / "mine")) == 1


@pytest.mark.parametrize(
    ("run", "folder"), [("..", "run"), ("a/../b", "a_.._b"), ("lr=0.1 🙂" * 40, ("lr=0.1 🙂" * 40)[:80])]
)
def test_the_folder_of_any_run_name(fit, pl, tmp_path, run, folder):
    flow = pl("pytorch_lightning").loggers.MLFlowLogger("e", run, f"sqlite:///{tmp_path}/m.db")
    callback = CAMCallback(methods="eigencam", max_images=0, on_error="raise")
    fit(callback, logger=flow, epochs=1)
    assert callback.store.folder == tmp_path / "cam_records" / folder and len(callback.store) == 1


def test_a_second_run_never_mixes_with_an_older_one(fit, tmp_path):
    first, second = CAMCallback(folder=tmp_path / "mine"), CAMCallback(folder=tmp_path / "mine")
    fit(first, epochs=2)
    fit(second, epochs=1)
    assert (len(first.store), len(second.store)) == (2, 1)
    assert second.store.folder == tmp_path / "mine-2"


def test_an_error_skips_the_look_and_training_goes_on(fit, pl):
    stop = pl("pytorch_lightning").callbacks.EarlyStopping("cam/drift_ref/gradcam", patience=50)
    callback = CAMCallback(layers="no.such.layer")
    with pytest.warns(UserWarning, match="training goes on.*no layer 'no.such.layer'"):
        trainer = fit(stop, callback, epochs=2)
    assert trainer.current_epoch == 2
    logged = {k: float(v) for k, v in trainer.callback_metrics.items()}
    assert logged["cam/failed_looks"] == 2
    assert (logged["cam/drift_ref/gradcam"], logged["cam/entropy/gradcam"], logged["cam/valid_frac/gradcam"]) == (
        0,
        1,
        0,
    )


def test_a_wrong_argument_is_an_error_at_once(data, tmp_path):
    """Also with ``probe="val"``, which is not known before the fit."""
    for wrong, message in (
        ({"methods": "gradcm"}, "gradcam"),
        ({"methods": []}, "methods= is empty"),
        ({"target": "lable"}, "target= takes"),
        ({"reference": "setled"}, "'setled' is none"),
        ({"batch_size": 0}, "batch_size=0"),
    ):
        with pytest.raises((ValueError, KeyError), match=message):
            CAMCallback(**wrong)
    with pytest.raises(ValueError, match="6 classes for the probe's 4 images"):
        CAMCallback(ProbeSet(data.tensors[0][:4]), target=[0, 1, 2, 3, 0, 1])


def test_a_validation_set_without_an_index_stops_no_monitor(make_module, pl, data, tmp_path):
    pl = pl("pytorch_lightning")

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([data[i] for i in range(16)])

    stop = pl.callbacks.EarlyStopping("cam/on_target_enrichment/gradcam", patience=50, check_finite=True)
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", callbacks=[stop, CAMCallback()], logger=False,
                         default_root_dir=tmp_path, enable_checkpointing=False, enable_progress_bar=False)  # fmt: skip
    with pytest.warns(UserWarning, match="look skipped; training goes on.*cannot be read by index"):
        trainer.fit(make_module(), DataLoader(data, 16), DataLoader(Stream(), 8))
    assert trainer.current_epoch == 2
    assert float(trainer.callback_metrics["cam/failed_looks"]) == 2
    assert float(trainer.callback_metrics["cam/on_target_enrichment/gradcam"]) == 1


def test_on_error_raise(fit):
    with pytest.raises(RuntimeError, match="no layer 'nowhere'"):
        fit(CAMCallback(layers="nowhere", on_error="raise"), epochs=1)


def test_a_failed_look_repeats_the_last_values(fit, monkeypatch):
    callback = CAMCallback(methods="gradcam")
    seen = []

    class Break(CAMCallback):
        def on_validation_batch_start(self, trainer, pl_module, *rest):
            if trainer.current_epoch == 1:
                monkeypatch.setattr(pl_module.net[0], "forward", lambda x: 1 / 0)
            super().on_validation_batch_start(trainer, pl_module, *rest)
            monkeypatch.undo()

        def on_validation_epoch_end(self, trainer, pl_module):
            super().on_validation_epoch_end(trainer, pl_module)
            if not trainer.sanity_checking:
                seen.append(float(trainer.callback_metrics["cam/entropy/gradcam"]))

    callback = Break(methods="gradcam")
    with pytest.warns(UserWarning, match="ZeroDivisionError"):
        fit(callback, epochs=3)
    assert [r.epoch for r in callback.store] == [0, 2]
    assert seen[1] == seen[0] != seen[2]


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


def test_the_environment_switches_it_off(fit, monkeypatch):
    monkeypatch.setenv("CAM_CALLBACKS_DISABLED", "1")
    callback = CAMCallback()
    trainer = fit(callback, epochs=1)
    assert callback.store is None and not any(k.startswith("cam/") for k in trainer.callback_metrics)


def test_fast_dev_run(fit):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*CAMCallback.*")
        fit(CAMCallback(on_error="raise"), fast_dev_run=True)


class TestUsedAgain:
    """One callback object in several fits: nothing crashes, and no record is written over."""

    def test_by_another_trainer_it_starts_a_new_series(self, fit, pl, tmp_path):
        boards = [pl("pytorch_lightning").loggers.TensorBoardLogger(tmp_path, name) for name in ("one", "two")]
        callback = CAMCallback(methods="eigencam", max_images=1, on_error="raise")
        for board in boards:
            fit(callback, logger=board, epochs=2)
        for board in boards:
            records = list(RecordStore(Path(board.log_dir) / "cam"))
            assert [(r.look, r.epoch) for r in records] == [(0, 0), (1, 1)]
            assert records[0].metrics["cam/drift_prev/eigencam"] == 0
            assert len(image_tags(board)) == 3

    def test_by_the_same_trainer_it_goes_on(self, fit, data):
        callback = CAMCallback(methods="eigencam", on_error="raise")
        trainer = fit(callback, epochs=2)
        trainer.fit_loop.max_epochs = 4
        trainer.fit(trainer.lightning_module, DataLoader(data, 16), DataLoader(data, 16))
        assert [(r.look, r.epoch) for r in callback.store] == [(0, 0), (1, 1), (2, 2), (3, 3)]

    def test_with_a_given_probe_and_folder(self, fit, data, tmp_path):
        callback = CAMCallback(ProbeSet(data.tensors[0][:4]), "eigencam", folder=tmp_path / "r", on_error="raise")
        for _ in range(2):
            fit(callback, epochs=1)
        assert len(RecordStore(tmp_path / "r")) == len(RecordStore(tmp_path / "r-2")) == 1
        assert callback.store.folder == tmp_path / "r-2"

    def test_it_can_be_copied_and_sent_after_a_fit(self, fit, pl, tmp_path, data):
        pl = pl("pytorch_lightning")
        callback = CAMCallback(ProbeSet(data.tensors[0][:4]), "eigencam", max_images=1)

        class Copy(pl.callbacks.Callback):
            def on_train_epoch_end(self, trainer, pl_module):
                assert pickle.loads(pickle.dumps(callback)).store.folder == callback.store.folder

        fit(callback, Copy(), epochs=1, logger=[pl.loggers.TensorBoardLogger(tmp_path), mlflow_logger(pl, tmp_path)])
        again = copy.deepcopy(callback)
        fit(again, epochs=1)
        assert len(again.store) == len(callback.store) == 1 and again.store.folder != callback.store.folder


def test_two_callbacks_need_names(fit):
    with pytest.raises(ValueError, match="share name=None"):
        fit(CAMCallback(), CAMCallback(methods="layercam"))


def test_two_callbacks_need_folders_of_their_own(fit, tmp_path):
    with pytest.raises(ValueError, match="several CAMCallbacks on one trainer write to folder="):
        fit(*(CAMCallback(name=name, folder=tmp_path / "records") for name in ("early", "late")))


def test_two_named_callbacks_keep_apart(fit, tmp_path):
    early = CAMCallback(layers="net.2", name="early", methods="gradcam")
    late = CAMCallback(layers="net.8", name="late", methods="gradcam")
    trainer = fit(early, late, epochs=1)
    assert {"cam/early/entropy/gradcam", "cam/late/entropy/gradcam"} <= trainer.callback_metrics.keys()
    assert early.store[0].maps["gradcam", "net.2"].shape[1:] == (12, 12)
    assert late.store[0].maps["gradcam", "net.8"].shape[1:] == (6, 6)
    assert early.store.folder != late.store.folder
    assert not any(key.startswith("cam/") for key in early.store[0].user_metrics | late.store[0].user_metrics)


@pytest.mark.parametrize("name", ["..", ".", "", "   ", "a b", "a/b", "é", "-", "late-", "a..b", "x" * 101, "a+b"])
def test_a_name_that_some_logger_would_refuse(name, data):
    for make in (CAMCallback, lambda name: CAMMonitor(ProbeSet(data.tensors[0][:2]), name=name)):
        with pytest.raises(ValueError, match="becomes part of metric keys"):
            make(name=name)


@pytest.mark.parametrize("name", ["late", "2", "layer4.1", "a-b_c", "x" * 100])
def test_a_name_that_every_logger_takes(name, data, net):
    assert CAMCallback(name=name).name == name
    record = CAMMonitor(ProbeSet(data.tensors[0][:2]), "eigencam", name=name).look(net)
    assert f"cam/{name}/entropy/eigencam" in record.metrics


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
        assert copied.metrics == old.metrics and copied.reference == old.reference
    maps = [record.maps["gradcam", "net.8"] for record in second.store]
    across = jensen_shannon(maps[2], maps[1])  # the first look after the resume knows the last one before it
    np.testing.assert_allclose(second.store[2].per_image["drift_prev/gradcam"], across, atol=1e-6)
    assert second.store[2].reference["gradcam/net.8"]["look"] in (0, 2)


class TestModelsOfOtherKinds:
    def test_no_forward_and_one_network(self, fit, make_module, package):
        model = make_module(package)
        del type(model).forward
        callback = CAMCallback(on_error="raise")
        fit(callback, package=package, model=model, epochs=1)
        assert ("gradcam", "8") in callback.store[0].maps

    def test_a_class_that_is_called_module_has_its_forward(self, fit, make_module, net):
        class Module(type(make_module())):
            def __init__(self):
                super(type(self).__mro__[1], self).__init__()
                self.body, self.head = net[:-1], nn.Linear(16, 4)

            def forward(self, x):
                return self.head(self.body(x))

            net = forward

        callback = CAMCallback(on_error="raise")
        fit(callback, model=Module(), epochs=1)
        assert ("gradcam", "body.8") in callback.store[0].maps

    def test_model_names_an_attribute(self, fit):
        callback = CAMCallback(model="net", on_error="raise")
        fit(callback, epochs=1)
        assert ("gradcam", "8") in callback.store[0].maps

    def test_wrong_attribute_lists_modules(self, fit):
        with pytest.raises(RuntimeError, match="no such attribute; its modules are net"):
            fit(CAMCallback(model="nett", on_error="raise"), epochs=1)

    def test_forward_takes_a_dictionary(self, fit, make_module):
        model = make_module()
        type(model).forward = lambda self, batch: {"logits": self.net(batch["image"])}
        callback = CAMCallback(forward=lambda m, images: m({"image": images}), output="logits", on_error="raise")
        fit(callback, model=model, epochs=1)
        assert callback.store[0].predictions.shape == (16,)


def test_a_yaml_file_builds_it(tmp_path):
    """LightningCLI in a process of its own, as users run it: the callback, its probe from a folder, both from YAML."""
    from PIL import Image

    for label in ("cat", "dog"):
        (tmp_path / "probe" / label).mkdir(parents=True)
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 255, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "probe" / label / f"{i}.png")
    (tmp_path / "config.yaml").write_text(
        f"""
trainer:
  max_epochs: 1
  accelerator: cpu
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  default_root_dir: {tmp_path}
  callbacks:
    - class_path: cam_callbacks.CAMCallback
      init_args:
        probe:
          class_path: cam_callbacks.ProbeSet.from_folder
          init_args:
            folder: {tmp_path / "probe"}
            mean: [0.5, 0.5, 0.5]
            std: [0.25, 0.25, 0.25]
        methods: [gradcam, layercam]
        layers: net.8
        folder: {tmp_path / "records"}
        on_error: raise
"""
    )
    (tmp_path / "train.py").write_text(
        f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import conftest
from pytorch_lightning.cli import LightningCLI
from torch.utils.data import DataLoader

class Module(type(conftest.module())):
    def __init__(self):
        super(type(self).__mro__[1], self).__init__()
        self.net = conftest.network()
    def train_dataloader(self):
        return DataLoader(conftest.blobs(), 16)
    val_dataloader = train_dataloader

LightningCLI(Module, save_config_callback=None, args=["fit", "--config", {str(tmp_path / "config.yaml")!r}])
"""
    )
    done = subprocess.run([sys.executable, tmp_path / "train.py"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    store = RecordStore(tmp_path / "records")
    assert store.manifest["methods"] == ["gradcam", "layercam"]
    assert store.manifest["probe"]["class_names"] == ["cat", "dog"]
    assert len(store) == 1


def test_the_readme_line_about_yaml_probe_val(fit):
    assert CAMCallback(probe="val").probe == "val"
    with pytest.raises(ValueError, match='takes a ProbeSet or "val"'):
        CAMCallback(probe="train")


def test_import_is_light():
    """`import cam_engine` pulls in neither a trainer, a logger nor torchvision; records are read without Lightning."""
    code = (
        "import sys, cam_engine; bad = {'pytorch_lightning', 'lightning', 'mlflow', 'tensorboard', 'torchvision', 'cv2',"
        " 'matplotlib', 'sklearn', 'pandas'} & set(sys.modules); assert not bad, bad;"
        "import cam_callbacks; bad = {'pytorch_lightning', 'lightning', 'mlflow'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_dropout_in_a_dataset_draws_nothing_from_the_run(fit):
    """Reading the probe from a dataset whose transform draws random numbers leaves all random streams alone."""

    class Noisy(TensorDataset):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return image + torch.randn(()) + float(np.random.rand()), label

    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    ProbeSet.from_dataset(Noisy(torch.zeros(20, 3, 8, 8), torch.arange(20) % 5), n=5)
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()


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


def test_frozen_backbone_and_binary_head(fit, make_module):
    model = make_module()
    model.net[:8].requires_grad_(False)
    model.net[-1] = nn.Linear(16, 1)
    type(model).training_step = lambda self, batch, index: nn.functional.binary_cross_entropy_with_logits(
        self.net(batch[0])[:, 0], (batch[1] > 1).float()
    )
    type(model).validation_step = lambda self, batch, index: None
    data_probe = ProbeSet(torch.randn(4, 3, 24, 24), [0, 1, 0, 1])
    callback = CAMCallback(data_probe, on_error="raise")
    fit(callback, model=model, epochs=1)
    assert set(callback.store[0].predictions) <= {0, 1}


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


def test_the_report_is_in_mlflow_while_the_training_goes_on(fit, pl, tmp_path, monkeypatch):
    from cam_callbacks.loggers import MLflowSink

    reported = []
    finish = MLflowSink.finish
    monkeypatch.setattr(MLflowSink, "finish", lambda sink, *a: (finish(sink, *a), reported.append(looks(sink))))

    def looks(sink):
        page = tmp_path / "artifacts" / sink.run_id / "artifacts"
        assert (page / "cam_report.html").stat().st_size > 5000 and (page / "cam_filmstrip.png").is_file()
        return len(list((page / "cam" / "records").glob("look-*.npz")))

    flow = mlflow_logger(pl("pytorch_lightning"), tmp_path)
    fit(CAMCallback(methods="eigencam", report_every_n_looks=2, on_error="raise"), logger=flow, epochs=5)
    assert reported == [2, 4, 5]


def test_a_report_that_fails_delivers_no_look_twice(fit, pl, tmp_path, monkeypatch, caplog):
    from cam_callbacks.loggers import MLflowSink

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(MLflowSink, "_log_report", broken)
    flow = mlflow_logger(pl("pytorch_lightning"), tmp_path)
    fit(CAMCallback(methods="eigencam", max_images=1, report_every_n_looks=1, on_error="raise"), logger=flow, epochs=3)
    assert "no report after look 1 (disk full)" in caplog.text
    images = list((tmp_path / "artifacts" / flow.run_id / "artifacts" / "images").glob("*.png"))
    assert len(images) == 3


def test_a_film_strip_of_a_long_run_shows_looks_evenly(tmp_path):
    from cam_callbacks.drawing import STRIP_LOOKS, Drawing
    from cam_callbacks.records import Record

    store = RecordStore(tmp_path)
    for look in range(1000):
        store.write(Record(look, look, look, {}, {("gradcam", "l"): np.ones((1, 2, 2), np.float32)}))
    store.path(999).write_bytes(b"half")
    looks = [record.look for record in Drawing(store).sampled()]
    assert len(looks) == STRIP_LOOKS - 1 and looks[0] == 0 and 940 < looks[-1] < 999
    assert max(np.diff(looks)) - min(np.diff(looks)) <= 1


def test_a_long_run_is_reported_ten_times_more_seldom():
    from cam_callbacks.loggers import MLflowSink

    sink = MLflowSink(None, "run", report_every_n_looks=10)
    due = [looks for looks in range(1, 3001) if sink._report_is_due(looks)]
    assert due == [*range(10, 100, 10), *range(100, 1000, 100), 1000, 2000, 3000]
    assert not any(MLflowSink(None, "run")._report_is_due(looks) for looks in range(1, 50))
