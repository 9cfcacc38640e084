"""Pictures, numbers and reports of a real Trainer.fit, read back from where a user would read them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from cam_callbacks import CAMCallback, ProbeSet, RecordStore
from cam_callbacks.compare.verdict import verdict_of


def test_pictures_and_numbers_reach_tensorboard_and_mlflow(package, pl, fit, data, masks, tmp_path, mlflow_logger):
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
        if key.startswith("cam/alert/") and not any(record.metrics[key] for record in records):
            assert key not in events.Tags()["scalars"]  # it never fired
            continue
        assert events.Scalars(key)[-1].value == pytest.approx(value, rel=1e-5), key
    (layout,) = events.Tensors("custom_scalars__config__")
    (category,) = Layout.FromString(layout.tensor_proto.string_val[0]).category
    first, *others = [chart.multiline.tag[0] for chart in category.chart]
    assert {"cam/object_share", "cam/follows_object"} <= {t for t in events.Tags()["scalars"] if re.fullmatch(first, t)}
    assert re.fullmatch(others[0], "cam/on_target_enrichment/gradcampp")
    tags = events.Tags()["images"]
    drawn = ("0", "2", "3", "5", "sheet", "film_strip", "under_the_focus")
    wanted = [f"cam/{m}/{i}" for m in ("eigencam", "gradcampp") for i in drawn]
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
    said = verdict_of(callback.store)
    assert said.startswith(("run one: validation accuracy ", "run one: cannot judge"))
    assert run.data.tags["mlflow.note.content"] == run.data.tags["cam.verdict"] == said
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


def test_each_of_two_tensorboards_gets_every_picture(fit, pl, tmp_path, image_tags):
    boards = [pl("pytorch_lightning").loggers.TensorBoardLogger(tmp_path, name) for name in ("one", "two")]
    fit(CAMCallback(methods="eigencam", max_images=2, on_error="raise"), logger=boards, epochs=1)
    tags = [image_tags(board) for board in boards]
    assert len(tags[0]) == 5 and tags[0] == tags[1]


def test_max_images_0_draws_nothing_and_logs_the_rest(fit, pl, tmp_path, caplog, mlflow_logger, image_tags):
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
        *(f"cam/records/{f}" for f in ("manifest.json", "probe.npz", "look-000000.npz", "look-000000.user.json")),
    }


def test_any_image_id_is_a_picture_of_its_own_in_mlflow(fit, pl, data, tmp_path, caplog, mlflow_logger):
    import mlflow

    ids = ["../../etc/x", "猫", "狗", "x/" * 250, "a b", "a_b", "plain-1.x"]
    probe = ProbeSet(data.tensors[0][:7], data.tensors[1][:7], ids=ids, class_names=["a/b", "😀", "y" * 500, "d\nq"])
    flow = mlflow_logger(pl("pytorch_lightning"), tmp_path)
    fit(CAMCallback(probe, methods="eigencam", on_error="raise"), logger=flow, epochs=1)
    assert "could not take" not in caplog.text
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    keys = {f.path.removeprefix("images/").split("+step+")[0] for f in client.list_artifacts(flow.run_id, "images")}
    assert len(keys) == 7 and "cam~eigencam~plain-1.x" in keys


def test_the_report_is_in_mlflow_while_the_training_goes_on(fit, pl, tmp_path, monkeypatch, mlflow_logger):
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


def test_a_report_that_fails_delivers_no_look_twice(fit, pl, tmp_path, monkeypatch, caplog, mlflow_logger):
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
