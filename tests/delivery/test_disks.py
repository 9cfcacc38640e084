"""Disks that are full, out of inodes or not to be written to: the loggers get everything all the same."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from pytorch_lightning.loggers import MLFlowLogger, TensorBoardLogger
from small_training import callback, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """``disk(kind)``: a folder on which nothing can be written; where nothing may be mounted, one that a file stands in for."""
    mounted = []

    def make(kind: str) -> Path:
        place = tmp_path / "disk"
        options = {
            "no inodes": "size=1m,nr_inodes=1",
            "no room": "size=4k",
            "read-only": "size=1m,ro",
        }
        if kind in options:
            place.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", options[kind], "tmpfs", str(place)]
            if subprocess.run(command, capture_output=True).returncode:
                pytest.skip("nothing may be mounted here")
            mounted.append(place)
            if kind == "no room":
                (place / "rest").write_bytes(bytes(4096))
        else:
            place.write_text("a file")
        return place

    yield make
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)


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
