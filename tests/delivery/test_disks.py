"""Disks that are full, out of inodes or not to be written to: the loggers get everything all the same."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from pytorch_lightning import Callback
from pytorch_lightning.loggers import MLFlowLogger, TensorBoardLogger
from small_training import callback, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from cam_callbacks import RecordStore
from cam_callbacks.delivery import Delivery
from cam_callbacks.delivery.addresses import read_addresses
from cam_callbacks.delivery.background import Background
from cam_callbacks.delivery.outbox import Outbox
from cam_callbacks.delivery.sync import sync
from cam_callbacks.loggers import DurableMLFlowLogger
from cam_callbacks.loggers.durable import DurableClient
from cam_callbacks.loggers.tensorboard import TensorBoardSink

pytestmark = pytest.mark.timeout(600)  # a server is started

DISKS = ("a file in the way", "no inodes", "no room", "read-only")


def fill(rest: Path) -> None:
    """A file that takes all the room that is left."""
    with suppress(OSError), open(rest, "wb", buffering=0) as file:
        while file.write(bytes(2**16)):
            pass


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """``disk(kind)``: a folder on which nothing can be written; where nothing may be mounted, one that a file stands in for."""
    mounted = []

    def make(kind: str) -> Path:
        place = tmp_path / "disk"
        options = {
            "no inodes": "size=1m,nr_inodes=1",
            "small": "size=16m",
            "no room": "size=1m",
            "read-only": "size=1m,ro",
        }
        if kind in options:
            place.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", options[kind], "tmpfs", str(place)]
            if subprocess.run(command, capture_output=True).returncode:
                pytest.skip("nothing may be mounted here")
            mounted.append(place)
            if kind == "no room":
                fill(place / "rest")
        else:
            place.write_text("a file")
        return place

    yield make
    for place in mounted:
        # A thread that goes on delivering may have a file open there: the place is free at once, the disk once that is closed.
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def pictures(board: str) -> Counter:
    events = EventAccumulator(board, size_guidance={"images": 0})
    events.Reload()
    return Counter((tag, image.step) for tag in events.Tags()["images"] for image in events.Images(tag))


@pytest.mark.parametrize("kind", ["a file in the way", "no inodes"])
def test_records_that_cannot_be_written_reach_the_loggers(kind, disk, tmp_path, monkeypatch, caplog):
    board = TensorBoardLogger(tmp_path / "boards", "")
    flow = MLFlowLogger("e", tracking_uri=f"sqlite:///{tmp_path}/m.db", artifact_location=str(tmp_path / "store"))
    watch = callback(folder=disk(kind) / "cam")
    train("pytorch_lightning", [board, flow], watch)
    assert len(watch.store) == 3 and not list(tmp_path.glob("disk/cam/*.npz"))
    drawn = pictures(board.log_dir)
    assert set(drawn.values()) == {1} and len(drawn) == 3 * 5 + 1
    client = MlflowClient(f"sqlite:///{tmp_path}/m.db")
    images = [file.path for file in client.list_artifacts(flow.run_id, "images")]
    assert len(images) == 3 * 3 * 2 and len(set(images)) == len(images)
    kept = {Path(file.path).name for file in client.list_artifacts(flow.run_id, "cam/records")}
    looks = {f"look-{e:06d}.{kind}" for e in range(3) for kind in ("npz", "user.json")}
    assert kept == {"manifest.json", "probe.npz"} | looks
    assert "could not be written" in caplog.text


def check_whole(uri: str, run_id: str) -> None:
    """Metrics, pictures and artifacts of three epochs are there, each once."""
    client = MlflowClient(uri)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED" and run.data.params["width"] == "4"
    assert [m.step for m in client.get_metric_history(run_id, "loss")] == list(range(6))
    assert [m.step for m in client.get_metric_history(run_id, "val_loss")] == [1, 3, 5]
    images = [file.path for file in client.list_artifacts(run_id, "images")]
    assert len(images) == 3 * 3 * 2 and len(set(images)) == len(images)
    assert "cam_report.html" in {file.path for file in client.list_artifacts(run_id)}


@pytest.mark.parametrize("kind", DISKS)
def test_a_queue_that_cannot_be_written_is_sent_from_memory(kind, disk, tmp_path, mlflow_server, caplog):
    """Numbers, pictures and files, while the server is up."""
    logger = DurableMLFlowLogger(tmp_path.name, tracking_uri=mlflow_server, queue=disk(kind) / "queues", wait=120)
    train("pytorch_lightning", logger, callback(folder=tmp_path / "records", wait=120))
    check_whole(mlflow_server, logger.run_id)
    assert caplog.text.count("sent from memory") == 1 and logger.experiment.queue.waiting() == []


class FullInTheSecondEpoch(Callback):
    """The disk has no room in the second epoch."""

    def __init__(self, disk: Path) -> None:
        self.rest = disk / "rest"

    def on_train_epoch_start(self, trainer, module):
        self.rest.unlink(missing_ok=True)
        if trainer.current_epoch == 1:
            fill(self.rest)


def test_a_disk_that_fills_while_the_server_is_down_loses_nothing(disk, tmp_path, proxy, mlflow_server):
    """What was in memory meanwhile is on disk as soon as there is room."""
    place = disk("small")
    proxy.rule = lambda method, path: (503, b"down")
    logger = DurableMLFlowLogger(tmp_path.name, tracking_uri=proxy.uri, queue=place / "queues", wait=1)
    train("pytorch_lightning", logger, callback(folder=place / "records", wait=1), FullInTheSecondEpoch(place))
    assert logger.experiment.queue.calls.to_disk()
    proxy.rule = lambda method, path: None
    sync(place)
    check_whole(mlflow_server, Outbox(logger.experiment.queue.folder).run["run_id"])


def test_records_learn_where_they_go_once_there_is_room(disk, tmp_path):
    """Or ``sync`` would not know it."""
    place = disk("no room")
    store = RecordStore(place / "cam")
    delivery = Delivery(store, [TensorBoardSink(SummaryWriter(str(tmp_path / "board")))])
    assert read_addresses(store.folder) == []
    (place / "rest").unlink()
    delivery.offer()
    (address,) = read_addresses(store.folder)
    assert address["log_dir"] == str(tmp_path / "board")
    assert delivery.finish()


def test_calls_on_a_disk_that_becomes_read_only_are_sent_once(disk, tmp_path, mlflow_server, monkeypatch):
    """Their files stay, and are not sent again and again."""
    monkeypatch.setattr(Background, "wake", lambda background: None)
    place = disk("small")
    run = {
        "tracking_uri": mlflow_server,
        "run_id": None,
        "experiment_name": tmp_path.name,
        "artifact_location": None,
        "tags": {},
    }
    queue = Outbox(place / "queue", run)
    client = DurableClient(queue)
    client.log_metric(queue.run["id"], "before", 1.0)
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    client.log_metric(queue.run["id"], "after", 2.0)
    queue.deliver()
    assert queue.waiting() == [] and list(queue.folder.glob("0*.json"))
    assert MlflowClient(mlflow_server).get_run(queue.run["run_id"]).data.metrics == {"before": 1.0, "after": 2.0}
