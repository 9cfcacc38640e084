"""Looks in Weights & Biases, offline: what its own file holds after a training, after a kill, and after a delivery later."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from small_training import callback, data, train
from wandb_files import OFFLINE, history, kinds

from cam_callbacks import CAMCallback, ProbeSet, RecordStore
from cam_callbacks.drawing import Drawing
from cam_callbacks.loop import CAMLoop
from cam_engine.render import encode_jpeg

pytestmark = pytest.mark.timeout(900)  # W&B starts a process of its own, each time
PICTURES = ("0", "1", "2", "sheet")


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    yield
    import wandb

    wandb.finish()


def pictures(rows, axis="cam/epoch") -> Counter:
    """How often each (key, place on the axis) is there."""
    return Counter((key, row[axis]) for row in rows for key, value in row.items() if _is_picture(value))


def _is_picture(value) -> bool:
    return isinstance(value, dict) and value.get("_type") == "image-file"


@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
def test_a_training_shows_its_looks_there(package, tmp_path):
    """Each look is a row, at its epoch; numbers go Lightning's way; nothing that the training logs is changed."""
    loggers, lightning = (importlib.import_module(name) for name in (f"{package}.loggers", package))

    class User(lightning.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            trainer.logger.experiment.log({"mine": trainer.global_step})  # W&B fills in the step that was logged last

    logger = loggers.WandbLogger(name="first try", save_dir=tmp_path, offline=True, id="abc")
    alert = {"name": "collapsed", "below": 2.0, "looks": 1}  # raised at every look but the first
    watch = callback(alerts=[alert], wait=300)
    watched, plain = train(package, logger, watch, User(), default_root_dir=tmp_path), train(package, False)
    assert watch.store.folder == tmp_path / "cam_records" / "first try"
    for ours, theirs in zip(watched.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    import wandb

    wandb.finish()
    rows = history(tmp_path)
    strip = {("cam/gradcam/film_strip", 2): 1}
    assert pictures(rows) == {(f"cam/gradcam/{name}", epoch): 1 for name in PICTURES for epoch in range(3)} | strip
    shown = [row for row in rows if "cam/gradcam/sheet" in row]
    drawing, sheet = Drawing(watch.store), shown[1]["files"] / shown[1]["cam/gradcam/sheet"]["path"]
    assert sheet.read_bytes() == encode_jpeg(drawing.sheet(watch.store[1], *drawing.series[0]))
    ours = {metric.name for metric in kinds(tmp_path, "metric") if metric.step_metric == "cam/epoch"}
    assert ours == {f"cam/gradcam/{name}" for name in (*PICTURES, "film_strip")}  # the numbers' are Lightning's
    numbers = [row for row in rows if "cam/entropy/gradcam" in row]
    assert [row["cam/entropy/gradcam"] for row in numbers] == pytest.approx(
        [record.metrics["cam/entropy/gradcam"] for record in watch.store], rel=1e-5
    )
    steps = [row["_step"] for row in rows]
    assert steps == sorted(set(steps)) and {"val_loss", "epoch"}.isdisjoint(shown[0])
    mine = [row["trainer/global_step"] for row in rows if "mine" in row]
    assert mine == sorted(mine) and len(mine) == 6
    assert [a.title for a in kinds(tmp_path, "alert")] == ["cam/alert/collapsed"]


def test_a_loop_of_ones_own_has_numbers_and_pictures_in_a_row(tmp_path):
    import wandb

    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, 2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    images, labels = data().tensors
    with pytest.warns(UserWarning, match="W&B is left out.*no run is active; call wandb.init"):
        CAMLoop(ProbeSet(images[:3]), tmp_path / "none", wandb=True).look(net)
    with (
        wandb.init(project="mine", dir=tmp_path) as run,
        CAMLoop(
            ProbeSet(images[:3], labels[:3]),
            tmp_path / "looks",
            wandb=True,
            methods="gradcam",
            on_error="raise",
            wait=300,
        ) as watch,
    ):
        for epoch in (2, 5):
            run.log({"loss": 0.5})
            watch.look(net, epoch)
    rows = [row for row in history(tmp_path) if "cam/entropy/gradcam" in row]
    assert [row["cam/epoch"] for row in rows] == [2, 5] and all("loss" not in row for row in rows)
    for row, record in zip(rows, watch.store, strict=True):
        assert row["cam/entropy/gradcam"] == pytest.approx(record.metrics["cam/entropy/gradcam"], nan_ok=True)
    assert pictures(rows) == {(f"cam/gradcam/{name}", epoch): 1 for name in PICTURES for epoch in (2, 5)}
    axes = {metric.name: metric.step_metric for metric in kinds(tmp_path, "metric")}
    assert axes["cam/entropy/gradcam"] == axes["cam/gradcam/sheet"] == "cam/epoch" and "loss" not in axes


def test_any_image_id_is_a_picture_inside_the_run(tmp_path):
    from pytorch_lightning.loggers import WandbLogger

    ids = ["../../../out", "x/" * 200, "plain-1.x"]
    images, labels = data().tensors
    watch = CAMCallback(ProbeSet(images[:3], labels[:3], ids=ids), "gradcam", name="late", on_error="raise", wait=300)
    train("pytorch_lightning", WandbLogger(save_dir=tmp_path, offline=True), watch, epochs=1, default_root_dir=tmp_path)
    import wandb

    wandb.finish()
    (row,) = [row for row in history(tmp_path) if "cam/late/gradcam/sheet" in row]
    keys = [key for key in row if _is_picture(row[key])]
    assert len(keys) == 4 and "cam/late/gradcam/plain-1.x" in keys and row["cam/late/epoch"] == 0
    for key in keys:
        assert (row["files"] / "media" / "images") in (row["files"] / row[key]["path"]).resolve().parents
    assert len(list(tmp_path.rglob("*.jpg"))) == len(keys) + 1  # and the film strip: none elsewhere


def test_a_killed_training_is_delivered_later_and_nothing_twice(tmp_path):
    """Look 0 was taken, look 1 was on its way, look 2 was being written. W&B writes its file every some seconds; before 0.31 that
    of a small run at its end, so that what it had taken dies with it."""
    (tmp_path / "train.py").write_text(
        f"""
import os, signal, sys, time
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import small_training as t
from pathlib import Path
from pytorch_lightning.loggers import WandbLogger
from cam_callbacks.loggers import WandbSink
deliver = WandbSink.deliver
WandbSink.deliver = lambda sink, record, drawing: time.sleep(600) if record.look else deliver(sink, record, drawing)
replace, began = os.replace, time.monotonic()
def killing(source, target):
    while "look-000002" in str(target):
        written = any(b"cam/gradcam/sheet" in file.read_bytes() for file in Path().rglob("*.wandb"))
        if Path("records/delivered.json").exists() and (written or time.monotonic() > began + 20):
            Path("written" if written else "in W&B's memory").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.1)
    replace(source, target)
os.replace = killing
t.train("pytorch_lightning", WandbLogger(save_dir=".", offline=True, id="abc"), t.callback(folder="records"), epochs=5)
"""
    )
    env = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # this process's own
    run = {"cwd": tmp_path, "capture_output": True, "text": True, "env": env, "timeout": 400}
    done = subprocess.run([sys.executable, "train.py"], **run)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert RecordStore(tmp_path / "records").looks == [0, 1]
    for delivered in (1, 0):
        synced = subprocess.run([sys.executable, "-m", "cam_callbacks.cli", "sync", "records"], **run)
        assert f"{delivered} looks delivered to wandb:abc" in synced.stdout, synced.stderr
        assert len(list(tmp_path.glob("wandb/offline-run-*-abc"))) == 2
    rows = history(tmp_path)
    strip, first = {("cam/gradcam/film_strip", 1): 1}, 0 if (tmp_path / "written").exists() else 1
    assert (
        pictures(rows) == {(f"cam/gradcam/{name}", epoch): 1 for name in PICTURES for epoch in range(first, 2)} | strip
    )
    import wandb

    assert first == 0 or tuple(map(int, wandb.__version__.split(".")[:2])) < (0, 31)
