"""Real trainings with ultralytics: a YOLOv8n from its configuration on generated shapes, three epochs."""

from __future__ import annotations

import runpy
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from wandb_files import OFFLINE, history

pytest.importorskip("ultralytics", reason="make test-models runs this in .venv-peers")
from cam_callbacks import RecordStore
from cam_callbacks.ultralytics import attach, probe_from_yolo

pytestmark = [pytest.mark.models, pytest.mark.timeout(900)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "ultralytics_training.py"
LAYERS = ["model.15", "model.18", "model.21"]  # what YOLOv8's head reads
EPOCHS = 3


@pytest.fixture(scope="module", autouse=True)
def _alone():
    """ultralytics' own loggers and synchronisation off: nothing leaves the machine, nothing is written elsewhere."""
    from ultralytics import settings

    before = dict(settings)
    off = {
        k: False
        for k in ("sync", "mlflow", "tensorboard", "clearml", "comet", "dvc", "raytune", "wandb")
        if k in before
    }
    settings.update(off)
    yield
    settings.update({k: before[k] for k in off})


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    make_shapes = runpy.run_path(str(EXAMPLE))["make_shapes"]
    return make_shapes(tmp_path_factory.mktemp("shapes"), {"train": 32, "val": 8})


def train(yolo, data: Path, folder: Path, **options):
    options = {"epochs": EPOCHS, "imgsz": 160, "batch": 16, "seed": 3, **options}
    yolo.train(
        data=str(data), project=str(folder), name="run", workers=0, amp=False, plots=False, verbose=False, **options
    )
    return Path(yolo.trainer.save_dir)


def new_yolo():
    from ultralytics import YOLO

    torch.manual_seed(0)
    return YOLO("yolov8n.yaml")


@pytest.fixture(scope="module")
def watched(data, tmp_path_factory):
    """One training with everything attached."""
    import mlflow

    folder = tmp_path_factory.mktemp("watched")
    uri = f"sqlite:///{folder}/mlflow.db"
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("shapes", artifact_location=(folder / "artifacts").as_uri())
    run = client.create_run(experiment).info.run_id
    probe = probe_from_yolo(data, n=6, size=160)
    events = []
    yolo = new_yolo()
    yolo.add_callback("on_fit_epoch_end", lambda trainer: events.append(trainer.epoch))
    methods = ("eigencam", "layercam")
    watch = attach(yolo, probe, methods, max_images=2, mlflow=run, tracking_uri=uri, on_error="raise", batch_size=4)
    save_dir = train(yolo, data, folder)
    return SimpleNamespace(**locals())


@pytest.fixture(scope="module")
def unwatched(data, tmp_path_factory):
    yolo = new_yolo()
    return SimpleNamespace(yolo=yolo, save_dir=train(yolo, data, tmp_path_factory.mktemp("unwatched")))


def test_one_record_an_epoch_for_every_level_of_the_head(watched):
    records = list(RecordStore(watched.save_dir / "cam"))
    assert len(watched.events) == EPOCHS + 1  # the event fires once more, after the final validation
    assert [(r.look, r.epoch, r.step) for r in records] == [(0, 0, 2), (1, 1, 4), (2, 2, 6)]
    assert watched.watch.store.folder == watched.save_dir / "cam" and watched.watch.failed_looks == 0
    assert watched.watch.store.manifest["layers"] == LAYERS
    for record in records:
        assert [record.maps["layercam", layer].shape for layer in LAYERS] == [(6, 20, 20), (6, 10, 10), (6, 5, 5)]
        assert record.scores.shape == (6,)
        for layer in LAYERS:
            assert np.isfinite(record.metrics[f"cam/on_target_enrichment/eigencam/{layer}"])
            assert np.isfinite(record.metrics[f"cam/drift_ref/eigencam/{layer}"])
        assert "metrics/mAP50(B)" in record.user_metrics
    assert records[0].metrics["cam/drift_ref/eigencam/model.15"] == 0
    assert records[2].metrics["cam/drift_ref/layercam/model.15"] > 0  # the weights are not those of the first look
    assert not np.array_equal(records[0].scores, records[1].scores)


def test_looks_are_at_the_averaged_weights(watched, data, tmp_path):
    """The last record is what a fresh look at the EMA weights gives, and not what one at the trained weights does."""
    from cam_callbacks import CAMMonitor

    last = watched.watch.store[-1]
    trainer = watched.yolo.trainer
    for model, same in ((trainer.ema.ema, True), (trainer.model, False)):
        again = CAMMonitor(watched.probe, "layercam", batch_size=4).look(model)
        assert np.allclose(again.scores, last.scores, atol=1e-4) == same


def test_pictures_and_numbers_reach_tensorboard(watched):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(watched.save_dir), size_guidance={"images": 0})
    events.Reload()
    shown = [watched.probe.ids[0], watched.probe.ids[5]]
    wanted = {
        f"cam/{m}/{layer}/{what}"
        for m in watched.methods
        for layer in LAYERS
        for what in [*shown, "sheet", "under_the_focus", "film_strip"]
    }
    assert set(events.Tags()["images"]) == wanted
    sheets = events.Images("cam/layercam/model.15/sheet")
    assert [image.step for image in sheets] == [0, 1, 2]
    assert len({image.encoded_image_string for image in sheets}) == 3
    assert len(events.Images("cam/layercam/model.15/film_strip")) == 1
    for record in watched.watch.store:
        key = "cam/entropy/layercam/model.18"
        assert events.Scalars(key)[record.look].step == record.epoch
        assert events.Scalars(key)[record.look].value == pytest.approx(record.metrics[key], rel=1e-5)


def test_records_pictures_and_numbers_reach_mlflow(watched):
    import mlflow

    run = watched.client.get_run(watched.run)
    last = watched.watch.store[-1]
    key = "cam/on_target_enrichment/eigencam/model.18"
    assert run.data.metrics[key] == pytest.approx(last.metrics[key])
    assert [m.step for m in sorted(watched.client.get_metric_history(watched.run, key), key=lambda m: m.step)] == [
        0,
        1,
        2,
    ]
    assert {f.path for f in watched.client.list_artifacts(watched.run)} >= {"cam", "cam_report.html", "cam_latest.png"}
    copied = RecordStore(mlflow.artifacts.download_artifacts(
        run_id=watched.run, artifact_path="cam/records", tracking_uri=watched.uri))  # fmt: skip
    assert [r.epoch for r in copied] == [0, 1, 2]
    np.testing.assert_array_equal(copied[-1].maps["layercam", "model.21"], last.maps["layercam", "model.21"])


def test_the_training_is_bit_identical(watched, unwatched):
    theirs, ours = (torch.load(w.save_dir / "weights" / "last.pt", weights_only=False) for w in (unwatched, watched))
    theirs, ours = ((c["ema"] or c["model"]).state_dict() for c in (theirs, ours))
    assert theirs.keys() == ours.keys()
    assert [name for name in theirs if not torch.equal(theirs[name], ours[name])] == []
    live = (w.yolo.trainer.model.state_dict() for w in (unwatched, watched))
    assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in live), strict=True))
    rows = [(w.save_dir / "results.csv").read_text().splitlines() for w in (unwatched, watched)]
    assert [[c for i, c in enumerate(r.split(",")) if i != 1] for r in rows[0]] == [
        [c for i, c in enumerate(r.split(",")) if i != 1]
        for r in rows[1]  # column 1 is the time
    ]


def test_checkpoints_hold_nothing_of_ours(watched):
    from ultralytics import YOLO

    for name in ("last.pt", "best.pt"):
        path = watched.save_dir / "weights" / name
        with zipfile.ZipFile(path) as archive:
            pickled = b"".join(archive.read(n) for n in archive.namelist() if n.endswith(".pkl"))
        assert b"cam_callbacks" not in pickled and b"cam_engine" not in pickled
        assert b"ultralytics" in pickled  # it is the pickle that names modules
        net = YOLO(path).model
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    ema = watched.yolo.trainer.ema.ema
    assert not any(m._forward_hooks for m in ema.modules()) and not any(p.requires_grad for p in ema.parameters())


def test_an_error_is_counted_and_the_training_goes_on(data, tmp_path):
    yolo = new_yolo()
    broken = attach(
        yolo, probe_from_yolo(data, n=2), layers="model.99", mlflow="no such run", tracking_uri="sqlite:///:memory:"
    )
    with pytest.warns(UserWarning, match=r"look skipped; training goes on.*model\.99"):
        save_dir = train(yolo, data, tmp_path, epochs=2)
    assert broken.failed_looks == 2 and (save_dir / "weights" / "last.pt").exists()
    broken.detach()
    assert not any(
        "Watch" in getattr(f, "__qualname__", "") for functions in yolo.callbacks.values() for f in functions
    )


def test_a_resumed_training_goes_on_with_its_records(data, tmp_path):
    from ultralytics import YOLO

    class Killed(Exception):
        pass

    def kill(trainer):
        if trainer.epoch == 1:
            raise Killed

    yolo = new_yolo()
    attach(yolo, "val", "eigencam", "model.18", on_error="raise", tensorboard=False)
    yolo.add_callback("on_fit_epoch_end", kill)
    with pytest.raises(Killed):
        train(yolo, data, tmp_path, epochs=4)
    save_dir = Path(yolo.trainer.save_dir)
    assert [r.epoch for r in RecordStore(save_dir / "cam")] == [0, 1]

    resumed = YOLO(save_dir / "weights" / "last.pt")
    watch = attach(resumed, "val", "eigencam", "model.18", on_error="raise", tensorboard=False)
    resumed.train(resume=True)
    assert watch.store.folder == save_dir / "cam"
    assert [(r.look, r.epoch) for r in watch.store] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert watch.store[2].metrics["cam/drift_prev/eigencam"] > 0  # measured from the look before the interruption


def test_pictures_and_numbers_go_to_the_active_run_of_weights_and_biases(data, tmp_path, monkeypatch):
    import wandb

    for name, value in (OFFLINE | {"WANDB_DIR": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    yolo = new_yolo()
    watch = attach(yolo, "val", "eigencam", "model.18", on_error="raise", tensorboard=False, wandb=True)
    wandb.init(project="mine", dir=tmp_path, mode="offline")  # the run of the first look
    train(yolo, data, tmp_path, epochs=2)
    wandb.finish()
    shown = [row for row in history(tmp_path) if "cam/eigencam/sheet" in row]
    assert [row["cam/epoch"] for row in shown] == [0, 1]
    assert [row["cam/entropy/eigencam"] for row in shown] == pytest.approx(
        [record.metrics["cam/entropy/eigencam"] for record in watch.store]
    )


def test_wrong_arguments_are_errors_at_once():
    yolo = new_yolo()
    with pytest.raises(ValueError, match="probe="):
        attach(yolo, "train")
    with pytest.raises(ValueError, match="on_error="):
        attach(yolo, "val", on_error="ignore")
    assert not any("cam" in repr(f) for functions in yolo.callbacks.values() for f in functions)


def test_the_pages_snippet_runs_as_written(data, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "detection.md").read_text()
    snippet = page.split("## With ultralytics")[1].split("```python\n")[1].split("```")[0]
    assert "shapes.yaml" in snippet and "size=640" in snippet and "epochs=50" in snippet
    quick = snippet.replace("size=640", "size=64").replace("epochs=50", "epochs=1, imgsz=64, amp=False, plots=False")
    monkeypatch.chdir(data.parent)
    names: dict = {}
    exec(quick.replace("data=", f"project={str(tmp_path)!r}, data="), names)
    assert [r.epoch for r in names["watch"].store] == [0] and names["watch"].failed_looks == 0
