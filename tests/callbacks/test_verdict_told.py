"""The sentence on a run: at the end of the training in the terminal, in MLflow's description, never over a user's own."""

from __future__ import annotations

import logging

import mlflow
import pytest

from cam_callbacks import CAMCallback, ProbeSet
from cam_callbacks.compare import load_run
from cam_callbacks.compare.verdict import said, verdict_of
from cam_callbacks.loop import CAMLoop


def test_it_ends_the_training_in_the_terminal_once(fit, caplog):
    callback = CAMCallback(methods="gradcam", on_error="raise")
    with caplog.at_level(logging.INFO):
        trainer = fit(callback, epochs=2)
    told = verdict_of(callback.store)
    assert caplog.text.count(told) == 1
    assert told == said(load_run(str(callback.store.folder)))
    callback.teardown(trainer, trainer.lightning_module, "validate")
    assert caplog.text.count(told) == 1


def test_a_plain_loop_says_it_too(net, data, tmp_path, caplog):
    with caplog.at_level(logging.INFO), CAMLoop(ProbeSet(*(t[:8] for t in data.tensors)), tmp_path / "looks") as watch:
        watch.look(net, 0, metrics={"val_acc": 0.25})
    assert "CAMLoop: looks: cannot judge: " in caplog.text and "validation accuracy 0.250" in caplog.text


def test_without_a_look_nothing_is_said(data, tmp_path, caplog):
    with caplog.at_level(logging.INFO), CAMLoop(ProbeSet(*(t[:8] for t in data.tensors)), tmp_path / "looks"):
        pass
    assert "judge" not in caplog.text


@pytest.mark.parametrize("own", ["", "the run with the new augmentation"])
def test_it_is_mlflows_description_unless_there_is_one(own, fit, pl, tmp_path, mlflow_logger):
    flow = mlflow_logger(pl("pytorch_lightning"), tmp_path)
    flow.log_hyperparams({"lr": 0.1})
    if own:
        flow.experiment.set_tag(flow.run_id, "mlflow.note.content", own)
    callback = CAMCallback(methods="gradcam", max_images=1, report_every_n_looks=1, on_error="raise")
    fit(callback, logger=flow, epochs=2)
    tags = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_run(flow.run_id).data.tags
    assert tags["cam.verdict"] == verdict_of(callback.store)
    assert tags["mlflow.note.content"] == (own or tags["cam.verdict"])  # its own of the first look is replaced
    assert load_run(str(callback.store.folder)).params["lr"] == "0.1"
