"""Every run has a folder of its own, whatever it is called and however often it is started."""

from __future__ import annotations

import copy
import pickle
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from cam_callbacks import CAMCallback, ProbeSet, RecordStore
from cam_callbacks.cli import main


@pytest.mark.parametrize(
    ("run", "folder"), [("..", "run"), ("a/../b", "a_.._b"), ("lr=0.1 🙂" * 40, ("lr=0.1 🙂" * 40)[:80])]
)
def test_the_folder_of_any_run_name(fit, pl, tmp_path, run, folder):
    flow = pl("pytorch_lightning").loggers.MLFlowLogger("e", run, f"sqlite:///{tmp_path}/m.db")
    callback = CAMCallback(methods="eigencam", max_images=0, on_error="raise")
    fit(callback, logger=flow, epochs=1)
    assert callback.store.folder == tmp_path / "cam_records" / folder and len(callback.store) == 1


def test_beside_what_a_csv_logger_writes(fit, pl, tmp_path, package):
    logger = pl(package).loggers.CSVLogger(tmp_path, "runs")
    callback = CAMCallback(methods="eigencam", on_error="raise")
    fit(callback, logger=logger, epochs=1, package=package)
    assert (
        callback.store.folder == tmp_path / "runs" / "version_0" / "cam" and callback.store.manifest["run"] == "runs/0"
    )
    assert (tmp_path / "runs" / "version_0" / "metrics.csv").is_file()


def test_a_logger_that_has_a_name_for_the_run_names_the_folder(fit, pl, tmp_path):
    """And a number behind it keeps a second one of that name apart."""

    class Named(pl("pytorch_lightning").loggers.Logger):
        name, version = "mine", "try a"
        log_hyperparams = log_metrics = lambda *_, **__: None

    for folder in ("mine_try a", "mine_try a-2"):
        callback = CAMCallback(methods="eigencam", on_error="raise")
        fit(callback, logger=Named(), epochs=1)
        assert callback.store.folder == tmp_path / "cam_records" / folder


def test_without_a_logger_that_shows_pictures_one_line_says_where_they_are(fit, pl, tmp_path, caplog, monkeypatch):
    """And what it says to type makes a page of them."""
    monkeypatch.chdir(tmp_path)
    where = CAMCallback(methods="eigencam", folder=tmp_path / "my looks", on_error="raise")
    for logger, said in ((pl("pytorch_lightning").loggers.CSVLogger(tmp_path), 1), (False, 2)):
        fit(where, logger=logger, epochs=1)
        told = [r.message for r in caplog.records if "no logger here shows pictures" in r.message]
        assert len(told) == said
        program, *arguments = shlex.split(told[-1].partition("with: ")[2])
        assert program == "cam-callbacks" and arguments == ["report", str(where.store.folder)]
        assert main(arguments) == 0 and (tmp_path / "cam_report.html").stat().st_size > 5000
    caplog.clear()
    fit(CAMCallback(methods="eigencam"), logger=pl("pytorch_lightning").loggers.TensorBoardLogger(tmp_path), epochs=1)
    assert "shows pictures" not in caplog.text


def test_a_second_run_never_mixes_with_an_older_one(fit, tmp_path):
    first, second = CAMCallback(folder=tmp_path / "mine"), CAMCallback(folder=tmp_path / "mine")
    fit(first, epochs=2)
    fit(second, epochs=1)
    assert (len(first.store), len(second.store)) == (2, 1)
    assert second.store.folder == tmp_path / "mine-2"


class TestUsedAgain:
    """One callback object in several fits: nothing crashes, and no record is written over."""

    def test_by_another_trainer_it_starts_a_new_series(self, fit, pl, tmp_path, image_tags):
        boards = [pl("pytorch_lightning").loggers.TensorBoardLogger(tmp_path, name) for name in ("one", "two")]
        callback = CAMCallback(methods="eigencam", max_images=1, on_error="raise")
        for board in boards:
            fit(callback, logger=board, epochs=2)
        for board in boards:
            records = list(RecordStore(Path(board.log_dir) / "cam"))
            assert [(r.look, r.epoch) for r in records] == [(0, 0), (1, 1)]
            assert records[0].metrics["cam/drift_prev/eigencam"] == 0
            assert len(image_tags(board)) == 4  # the panel, the sheet, the crops under the focus, the film strip

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

    def test_it_can_be_copied_and_sent_after_a_fit(self, fit, pl, tmp_path, data, mlflow_logger):
        pl = pl("pytorch_lightning")
        callback = CAMCallback(ProbeSet(data.tensors[0][:4]), "eigencam", max_images=1)

        class Copy(pl.callbacks.Callback):
            def on_train_epoch_end(self, trainer, pl_module):
                assert pickle.loads(pickle.dumps(callback)).store.folder == callback.store.folder

        fit(callback, Copy(), epochs=1, logger=[pl.loggers.TensorBoardLogger(tmp_path), mlflow_logger(pl, tmp_path)])
        again = copy.deepcopy(callback)
        fit(again, epochs=1)
        assert len(again.store) == len(callback.store) == 1 and again.store.folder != callback.store.folder


BEGIN_AT_ONCE = """
import sys, time, torch
from cam_callbacks import CAMMonitor, ProbeSet
torch.set_num_threads(1)
net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 4), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
monitor = CAMMonitor(ProbeSet(torch.rand(4, 3, 16, 16)), "eigencam", folder=sys.argv[1], alerts=[], exchange=[])
print("ready", flush=True)
sys.stdin.readline()
for epoch in range(3):
    monitor.look(net, epoch)
"""


def test_processes_that_start_at_once_have_a_folder_each(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BEGIN_AT_ONCE, str(tmp_path / "cam")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 3
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.wait(240) for process in processes] == [0] * 3
    assert sorted(len(RecordStore(folder)) for folder in tmp_path.iterdir()) == [3, 3, 3]
