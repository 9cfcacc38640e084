"""A logger that the project has never heard of: one class and one line."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pytorch_lightning.loggers import Logger
from small_training import callback, data, train
from torch.utils.data import DataLoader

from cam_callbacks import RecordStore
from cam_callbacks.delivery.sync import sync
from cam_callbacks.loggers import register_sink
from cam_callbacks.loggers.registry import _SINKS


class FolderLogger(Logger):
    """Somebody's own logger: a folder, which may be away."""

    name, version = "folder", 0
    log_hyperparams = log_metrics = lambda *_, **__: None

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder


class FolderSink:
    """Pictures as files in a folder."""

    kind, logger_class = "folder", "FolderLogger"

    def __init__(self, folder, every_n_looks, name):
        self.folder, self.every_n_looks, self.name = Path(folder), every_n_looks, name
        self.address = {"kind": self.kind, "folder": str(folder), "every_n_looks": every_n_looks}

    @classmethod
    def from_logger(cls, logger, options):
        return cls(logger.folder, options.every_n_looks, f"folder-{options.number}")

    @classmethod
    def from_address(cls, address, moved):
        return cls(address["folder"], address["every_n_looks"], address["name"])

    def deliver(self, record, drawing):
        if not self.folder.is_dir():
            raise OSError(f"{self.folder} is not mounted")
        if record.look % self.every_n_looks == 0:
            for tag, picture in drawing.panels(record):
                Image.fromarray(picture).save(self.folder / f"{tag.replace('/', '-')}-{drawing.step(record)}.png")

    def finish(self, store, drawing):
        (self.folder / "run.json").write_text(json.dumps({"looks": len(store)}))


@pytest.fixture
def registered():
    register_sink(FolderSink)
    yield
    del _SINKS["folder"]


def pictures(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.png")}


def test_a_training_delivers_its_looks_to_it(registered, tmp_path):
    class Special(FolderLogger):  # one made from it is served too
        pass

    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    train(
        "pytorch_lightning",
        [FolderLogger(folders[0]), Special(folders[1])],
        callback(folder=tmp_path / "records", images_every_n_looks=2),
    )
    for folder in folders:
        assert pictures(folder) == {f"cam-gradcam-{image}-{epoch}.png" for image in range(3) for epoch in (0, 2)}
        assert json.loads((folder / "run.json").read_text()) == {"looks": 3}
        assert np.ptp(np.asarray(Image.open(folder / "cam-gradcam-0-0.png"))) > 100
    delivered = json.loads((tmp_path / "records" / "delivered.json").read_text())
    assert delivered["looks"] == {"folder-1": [0, 1, 2], "folder-2": [0, 1, 2]}


@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
def test_a_logger_that_takes_pictures_by_log_image_needs_no_class(package, tmp_path, caplog):
    """With W&B's signature. The second fit of the same trainer shows nothing twice."""

    class Gallery(importlib.import_module(f"{package}.loggers").Logger):
        name, version = "gallery", 3
        log_hyperparams = log_metrics = lambda *_, **__: None

        def __init__(self):
            super().__init__()
            self.shown = []

        def log_image(self, key, images, step=None, **options):
            self.shown += [(key, step, np.ptp(np.asarray(image)) > 100) for image in images]

    gallery, records = Gallery(), tmp_path / "records"
    trainer = train(package, gallery, callback(folder=records))
    tags = [f"cam/gradcam/{name}" for name in (0, 1, 2, "sheet")]
    looks = {(tag, epoch, True) for tag in tags for epoch in range(3)}
    assert len(gallery.shown) == 13 and set(gallery.shown) == looks | {("cam/gradcam/film_strip", 2, True)}
    assert list(json.loads((records / "delivered.json").read_text())["looks"]) == ["Gallery:gallery/3"]
    assert "shows pictures" not in caplog.text
    trainer.fit_loop.max_epochs = 4
    trainer.fit(trainer.lightning_module, DataLoader(data(), 8), DataLoader(data(), 8))
    assert set(gallery.shown[13:]) == {(tag, 3, True) for tag in (*tags, "cam/gradcam/film_strip")}


def test_what_it_could_not_take_is_delivered_later_from_its_address(registered, tmp_path, caplog):
    away = tmp_path / "away"
    train("lightning.pytorch", FolderLogger(away), callback(folder=tmp_path / "records"))
    assert "folder-1 did not get 3 of 3 looks" in caplog.text and len(RecordStore(tmp_path / "records")) == 3
    with pytest.raises(ConnectionError, match=r"3 looks in .* for folder-1"):
        sync(tmp_path / "records")
    away.mkdir()
    assert sync(tmp_path / "records") == [f"{tmp_path / 'records'}: 3 looks delivered to folder-1"]
    assert pictures(away) == {f"cam-gradcam-{image}-{epoch}.png" for image in range(3) for epoch in range(3)}
    assert sync(tmp_path / "records") == [f"{tmp_path / 'records'}: 0 looks delivered to folder-1"]


def test_a_kind_that_nobody_registered_holds_up_no_other(tmp_path):
    from pytorch_lightning.loggers import TensorBoardLogger

    board = TensorBoardLogger(tmp_path / "boards", "")
    records = tmp_path / "records"
    train("pytorch_lightning", board, callback(folder=records))
    (records / "delivered.json").unlink()
    addresses = records / "addresses.json"
    (known,) = json.loads(addresses.read_text())
    strange = [{"name": "x", "kind": "folder", "folder": "/"}, {"name": "y", "kind": "tensorboard"}, {}]
    addresses.write_text(json.dumps([*strange, known]))
    with pytest.raises(ConnectionError) as left:
        sync(records)
    words = str(left.value)
    assert "for x (LookupError: no logger of kind 'folder' is registered, only tensorboard, mlflow" in words
    assert "for y (KeyError: 'log_dir')" in words and "3 looks delivered to tensorboard" in words
    assert json.loads((records / "delivered.json").read_text())["looks"] == {"tensorboard": [0, 1, 2]}
