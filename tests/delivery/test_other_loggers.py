"""Loggers of other services, offline, where they are installed: the pictures are in what they write."""

from __future__ import annotations

import zipfile

import pytest
from small_training import callback, train

LOOKS, PICTURES = 3, 4  # three images and their sheet


def test_comet(tmp_path, monkeypatch):
    comet = pytest.importorskip("comet_ml")
    from pytorch_lightning.loggers import CometLogger

    monkeypatch.setenv("COMET_START_ONLINE", "0")
    monkeypatch.setenv("COMET_OFFLINE_DIRECTORY", str(tmp_path / "comet"))
    logger = CometLogger(project="mine")
    assert isinstance(logger.experiment, comet.OfflineExperiment)
    train("pytorch_lightning", logger, callback(folder=tmp_path / "records"))
    logger.experiment.end()
    (file,) = (tmp_path / "comet").glob("*.zip")
    with zipfile.ZipFile(file) as archive:
        names = b"".join(archive.read(name) for name in archive.namelist() if name.endswith(".json")).decode()
        pictures = [name for name in archive.namelist() if archive.read(name).startswith(b"\x89PNG")]
    assert len(pictures) == LOOKS * PICTURES + 1  # and the film strip
    assert all(f"cam/gradcam/{name}" in names for name in (0, 1, 2, "sheet", "film_strip"))


def test_swanlab(tmp_path):
    swanlab = pytest.importorskip("swanlab")
    from swanlab.integration.pytorch_lightning import SwanLabLogger

    logger = SwanLabLogger(project="mine", mode="offline", log_dir=str(tmp_path / "swan"))
    train("lightning.pytorch", logger, callback(folder=tmp_path / "records"))
    swanlab.finish()
    assert len(list((tmp_path / "swan").rglob("media/**/*.png"))) == LOOKS * PICTURES + 1


def test_clearml_takes_what_tensorboard_shows(tmp_path, monkeypatch):
    monkeypatch.setenv("CLEARML_CACHE_DIR", str(tmp_path / "clearml"))
    monkeypatch.setenv("CLEARML_OFFLINE_MODE", "1")  # which it reads when it is imported
    clearml = pytest.importorskip("clearml")
    from pytorch_lightning.loggers import TensorBoardLogger

    task = clearml.Task.init("mine", "first try", auto_connect_arg_parser=False)
    train("pytorch_lightning", TensorBoardLogger(tmp_path / "board"), callback(folder=tmp_path / "records"))
    folder = task.get_offline_mode_folder()
    task.flush(wait_for_uploads=True)
    pictures = {path.parent.name for path in folder.rglob("*.jp*g")}
    task.close()
    assert pictures >= {f"gradcam_{name}" for name in (0, 1, 2, "sheet", "under_the_focus", "film_strip")}
