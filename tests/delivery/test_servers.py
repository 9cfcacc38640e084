"""Trainings whose MLflow server is down, comes back, or dies; trainings that are killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from mlflow.tracking import MlflowClient
from small_training import callback, data, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cam_callbacks import CAMCallback, ProbeSet, RecordStore
from cam_callbacks.cli import main
from cam_callbacks.loggers import DurableMLFlowLogger


def pictures(board) -> Counter:
    """How often each (tag, step) is in a TensorBoard."""
    events = EventAccumulator(str(board), size_guidance={"images": 0})
    events.Reload()
    return Counter((tag, image.step) for tag in events.Tags()["images"] for image in events.Images(tag))


def check_run(uri: str, run_id: str, epochs: int = 3) -> None:
    """All of a run is there, and nothing twice."""
    client = MlflowClient(uri)
    run = client.get_run(run_id)
    assert run.data.params["width"] == "4" and run.info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(run_id, "val_loss")] == [2 * e + 1 for e in range(epochs)]
    assert [m.step for m in client.get_metric_history(run_id, "loss")] == list(range(2 * epochs))
    assert len(client.get_metric_history(run_id, "cam/drift_ref/gradcam")) == epochs
    images = Counter(
        f.path.split("+timestamp+")[0] for f in client.list_artifacts(run_id, "images") if ".png" in f.path
    )
    assert images == {f"images/cam~gradcam~{i}+step+{e}": 1 for i in range(3) for e in range(epochs)}
    records = {Path(f.path).name for f in client.list_artifacts(run_id, "cam/records")}
    looks = {f"look-{e:06d}.{kind}" for e in range(epochs) for kind in ("npz", "user.json")}
    assert records == {"manifest.json", "probe.npz"} | looks
    assert {"cam_report.html", "cam_latest.png", "last"} <= {f.path for f in client.list_artifacts(run_id)}


@pytest.mark.timeout(600)
def test_a_server_that_is_down_comes_back_and_dies(server, tmp_path, monkeypatch, capsys):
    """One server for both: starting one takes long."""
    import pytorch_lightning
    from lightning.pytorch.callbacks import ModelCheckpoint as OtherModelCheckpoint

    monkeypatch.chdir(tmp_path)
    plain = train("pytorch_lightning", False)

    # Down from the start: the training is as without, TensorBoard has all, MLflow gets it afterwards.
    checkpoint = pytorch_lightning.callbacks.ModelCheckpoint(tmp_path / "one", save_last=True)
    board = pytorch_lightning.loggers.TensorBoardLogger(tmp_path / "boards", "")
    logger = DurableMLFlowLogger("e", tracking_uri=server.uri, log_model=True)
    watched = train("pytorch_lightning", [board, logger], callback(), checkpoint, enable_checkpointing=True)
    for ours, theirs in zip(watched.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert logger.run_id.startswith("queued-") and len(logger.experiment.queue.waiting()) > 20
    drawn = pictures(board.log_dir)
    assert set(drawn.values()) == {1} and sum(step == 2 for _, step in drawn) == 6  # 3 images, sheet, wall, film strip
    assert main(["sync", str(tmp_path)]) == 2
    assert "no MLflow server answers" in capsys.readouterr().err

    server.start()
    assert main(["sync", str(tmp_path)]) == 0
    run_id = logger.experiment.queue.run["run_id"] or MlflowClient(server.uri).search_runs(["1"])[0].info.run_id
    check_run(server.uri, run_id)
    assert main(["sync", str(tmp_path)]) == 0
    check_run(server.uri, run_id)
    assert pictures(board.log_dir) == drawn

    # Up at the start, killed after the first epoch, in the other Lightning.
    import lightning.pytorch as other

    class Kill(other.Callback):
        def on_train_epoch_end(self, trainer, module):
            server.kill()

    second = DurableMLFlowLogger("e", tracking_uri=server.uri, log_model=True, queue=tmp_path / "second")
    checkpoint = OtherModelCheckpoint(tmp_path / "two", save_last=True)
    killed = train(
        "lightning.pytorch", second, callback(folder=tmp_path / "r2"), checkpoint, Kill(), enable_checkpointing=True
    )
    for ours, theirs in zip(killed.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not second.run_id.startswith("queued-") and second.experiment.queue.waiting()
    server.start()
    assert main(["sync", str(tmp_path / "second")]) == 0
    assert second.experiment.queue.waiting() == []
    check_run(server.uri, second.run_id)


def test_every_logger_gets_its_pictures_though_one_cannot_be_opened(tmp_path):
    import pytorch_lightning

    class Broken(pytorch_lightning.loggers.TensorBoardLogger):
        usable = True
        log_metrics = save = finalize = lambda *_, **__: None

        @property
        def experiment(self):
            if self.usable:
                return super().experiment
            raise OSError("quota exceeded")

    class Break(pytorch_lightning.Callback):
        def on_validation_start(self, trainer, module):
            Broken.usable = False

    broken, good = Broken(tmp_path / "broken"), pytorch_lightning.loggers.TensorBoardLogger(tmp_path / "good", "")
    images, labels = data().tensors
    watch = CAMCallback(ProbeSet(images[:3], labels[:3]), "gradcam")
    with pytest.warns(UserWarning, match="no pictures for Broken.*quota exceeded"):
        train("pytorch_lightning", [broken, good], watch, Break(), epochs=1)
    assert len(pictures(good.log_dir)) == 6 and len(watch.store) == 1


def test_a_full_disk_costs_the_records_and_no_picture(tmp_path, monkeypatch, caplog):
    import pytorch_lightning

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.fsync", full)
    board = pytorch_lightning.loggers.TensorBoardLogger(tmp_path / "boards", "")
    watch = callback()
    trainer = train("pytorch_lightning", board, watch)
    assert "No space left on device" in caplog.text and not list(watch.store.folder.glob("*.npz"))
    assert len(pictures(board.log_dir)) == 3 * 5 + 1 and trainer.current_epoch == 3
    assert float(trainer.callback_metrics["cam/failed_looks"]) == 0


def test_killed_in_the_middle_of_a_write(tmp_path):
    """SIGKILL between the temporary file and its name: earlier looks are there, and are delivered later, once."""
    script = tmp_path / "train.py"
    script.write_text(
        f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import small_training as t
replace = os.replace
def killing(source, target):
    if "look-000002" in str(target):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = killing
from pytorch_lightning.loggers import MLFlowLogger, TensorBoardLogger
flow = MLFlowLogger("e", tracking_uri="sqlite:///m.db", artifact_location={str(tmp_path / "store")!r})
t.train("pytorch_lightning", [TensorBoardLogger("boards", ""), flow], t.callback(folder="records"), epochs=5)
"""
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    store = RecordStore(tmp_path / "records")
    assert store.looks == [0, 1] and [r.look for r in store] == [0, 1] and store.manifest["methods"] == ["gradcam"]
    synced = subprocess.run(
        [sys.executable, "-m", "cam_callbacks.cli", "sync", "."], cwd=tmp_path, capture_output=True, text=True
    )
    assert synced.returncode == 0, synced.stderr
    client = MlflowClient(f"sqlite:///{tmp_path}/m.db")
    run_id = client.search_runs(["1"])[0].info.run_id
    images = Counter(
        f.path.split("+timestamp+")[0] for f in client.list_artifacts(run_id, "images") if ".png" in f.path
    )
    assert images == {f"images/cam~gradcam~{i}+step+{e}": 1 for i in range(3) for e in range(2)}
    assert {t for t in pictures(tmp_path / "boards" / "version_0") if "sheet" in t[0]} == {
        ("cam/gradcam/sheet", 0),
        ("cam/gradcam/sheet", 1),
    }
