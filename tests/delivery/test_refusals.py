"""Servers that refuse something, or answer nonsense: nothing else is held up, and nothing is lost. A real MLflow server, behind a
proxy that answers some requests itself."""

from __future__ import annotations

import json
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient
from proxy import Answer
from pytorch_lightning import Callback
from pytorch_lightning.loggers import MLFlowLogger
from small_training import callback, train

from cam_callbacks.cli import main
from cam_callbacks.delivery.background import Background
from cam_callbacks.delivery.outbox import Outbox
from cam_callbacks.delivery.sync import sync
from cam_callbacks.loggers import DurableMLFlowLogger
from cam_callbacks.loggers.durable import DurableClient

pytestmark = pytest.mark.timeout(600)  # a server is started


def queue(folder: Path, uri: str) -> Outbox:
    """Of a run to be made, that nobody delivers but the test."""
    run = {"tracking_uri": uri, "run_id": None, "experiment_name": folder.name, "artifact_location": None, "tags": {}}
    return Outbox(folder / "queue", run)


@pytest.fixture
def _by_hand(monkeypatch):
    monkeypatch.setattr(Background, "wake", lambda background: None)


def run_of(box: Outbox, uri: str):
    return MlflowClient(uri).get_run(box.run["run_id"])


@pytest.mark.usefixtures("_by_hand")
def test_a_refused_name_takes_no_neighbour_along(tmp_path, mlflow_server, caplog):
    """Metrics that were merged, metrics of one call, and parameters: what is refused is kept aside, named, and shown by sync."""
    box = queue(tmp_path, mlflow_server)
    client, run = DurableClient(box), box.run["id"]
    for step in range(40):
        client.log_metric(run, f"good_{step}", float(step), timestamp=step)
        if step == 17:
            client.log_metric(run, "acc(%)", 0.5)
    client.log_batch(run, params=[Param(name, "1") for name in ("lr", "width", "depth")])
    client.log_batch(run, metrics=[Metric(name, 1.0, 1, 0) for name in ("a", "b<", "c")], params=[Param("lr", "2")])
    box.deliver()
    assert box.waiting() == []
    data = run_of(box, mlflow_server).data
    assert {k for k in data.metrics if k.startswith("good_")} == {f"good_{step}" for step in range(40)}
    assert {"a", "c"} <= set(data.metrics) and data.params == {"lr": "1", "width": "1", "depth": "1"}
    refused = [what.partition(" (")[0] for what in box.refused()]
    assert refused == ["metric acc(%)", "metric b<", "param lr"]
    assert all(f"MLflow refused {what}" in caplog.text for what in refused)
    for _ in range(2):
        (delivered, kept) = sync(tmp_path)
        assert "0 calls delivered" in delivered and all(what in kept for what in refused)
    again = Outbox(box.folder)
    DurableClient(again).log_metric(run, "later", 1.0)
    again.deliver()
    assert again.refused() == box.refused() and "later" in run_of(box, mlflow_server).data.metrics


def test_a_file_too_large_for_the_server_holds_up_nothing(tmp_path, proxy, mlflow_server, capsys):
    """nginx's answer to a checkpoint: what is behind it goes on, FINISHED too, and after some tries it is set aside."""
    proxy.rule = lambda method, path: (413, b"<html>too large</html>") if path.endswith("big.bin") else None
    (tmp_path / "big.bin").write_bytes(b"big")
    (tmp_path / "small.txt").write_text("small")
    logger = DurableMLFlowLogger(tmp_path.name, tracking_uri=proxy.uri, queue=tmp_path / "queues")
    logger.log_metrics({"before": 1.0}, 0)
    for name in ("big.bin", "small.txt"):
        logger.experiment.log_artifact(logger.run_id, str(tmp_path / name))
    logger.log_metrics({"behind": 2.0}, 1)
    logger.finalize("success")
    run = MlflowClient(mlflow_server).get_run(logger.run_id)
    assert run.info.status == "FINISHED" and run.data.metrics == {"before": 1.0, "behind": 2.0}
    assert [f.path for f in MlflowClient(mlflow_server).list_artifacts(logger.run_id)] == ["small.txt"]
    assert main(["sync", str(tmp_path)]) == 0
    assert "log_artifact big.bin" in capsys.readouterr().out and logger.experiment.queue.waiting() == []
    assert [path.read_bytes() for path in tmp_path.glob("queues/*/*/big.bin")] == [b"big"]
    assert 3 <= sum("big.bin" in request for request in proxy.asked) <= 5


@pytest.mark.usefixtures("_by_hand")
def test_one_broken_endpoint_holds_up_no_other_and_a_broken_server_keeps_all(tmp_path, proxy, mlflow_server):
    box = queue(tmp_path, proxy.uri)
    client, run = DurableClient(box), box.run["id"]
    client.log_text(run, "words", "notes.txt")
    client.log_metric(run, "loss", 1.0)
    proxy.rule = lambda method, path: (500, b"no disk") if method == "PUT" else None
    for _ in range(5):
        with pytest.raises(RuntimeError, match=r"1 calls wait: log_artifact notes\.txt"):
            box.deliver()
    assert len(box.waiting()) == 1 and run_of(box, mlflow_server).data.metrics == {"loss": 1.0} and not box.refused()
    proxy.rule = lambda method, path: (500, b"no database") if "log-batch" in path or method == "PUT" else None
    for step in range(30):
        client.log_batch(run, params=[Param(f"p{step}", "1")])
    asked = len(proxy.asked)
    with pytest.raises(Exception, match="500"):
        box.deliver()
    assert len(box.waiting()) == 31 and len(proxy.asked) - asked < 20  # not each of them
    proxy.rule = lambda method, path: None
    box.deliver()
    assert box.waiting() == [] and len(run_of(box, mlflow_server).data.params) == 30
    assert [f.path for f in MlflowClient(mlflow_server).list_artifacts(box.run["run_id"])] == ["notes.txt"]


@pytest.mark.usefixtures("_by_hand")
def test_a_server_that_answers_nothing_but_braces_loses_nothing(tmp_path, proxy, mlflow_server):
    """A portal or a proxy says 200 and {}, which is also how MLflow says that it took something."""
    box = queue(tmp_path, proxy.uri)
    client, run = DurableClient(box), box.run["id"]
    for step in range(3):  # before there is a run, and after
        client.log_metric(run, "loss", float(step), timestamp=step, step=step)
        proxy.rule = lambda method, path: (200, b"{}")
        for _ in range(2):
            with pytest.raises(Exception, match=r"no MLflow server|has no run|failed"):
                box.deliver()
        assert len(box.waiting()) == 1
        proxy.rule = lambda method, path: None
        box.deliver()
    history = MlflowClient(mlflow_server).get_metric_history(box.run["run_id"], "loss")
    assert [metric.step for metric in history] == [0, 1, 2] and box.waiting() == []


@pytest.mark.usefixtures("_by_hand")
def test_a_portal_that_comes_up_in_mid_delivery_loses_nothing(tmp_path, proxy, mlflow_server, monkeypatch):
    """Whichever request is the first that it answers."""
    monkeypatch.chdir(tmp_path)  # where MLflow's client would put files, if it asked the portal where they belong
    for first in count():
        proxy.rule = lambda method, path: None
        box = queue(tmp_path / f"from-{first}", proxy.uri)
        client, run = DurableClient(box), box.run["id"]
        client.log_metric(run, "loss", 1.0, timestamp=1)
        client.log_text(run, "words", "notes.txt")
        client.set_tag(run, "kind", "test")
        client.set_terminated(run, "FINISHED")
        begin = len(proxy.asked) + first
        proxy.rule = lambda method, path, begin=begin: (200, b"{}") if len(proxy.asked) > begin else None
        try:
            box.deliver()
            is_through = True
        except Exception:
            is_through = False
        proxy.rule = lambda method, path: None
        box.deliver()
        found = run_of(box, mlflow_server)
        assert found.data.metrics == {"loss": 1.0} and found.data.tags["kind"] == "test" and box.waiting() == []
        assert found.info.status == "FINISHED"
        assert [f.path for f in MlflowClient(mlflow_server).list_artifacts(found.info.run_id)] == ["notes.txt"]
        if is_through:
            break
    assert first > 10


@pytest.mark.parametrize("first", ["/manifest.json", "/look-000001.npz", "/images/", "set-tag", "film_strip"])
def test_a_portal_that_comes_up_in_the_middle_of_a_look_loses_none(tmp_path, proxy, mlflow_server, monkeypatch, first):
    """Nor the run's summary, and what was said of the run before it."""

    def rule(method: str, path: str) -> Answer | None:
        if first in path and method != "GET":
            proxy.rule = lambda method, path: (200, b"{}")
        return None

    monkeypatch.chdir(tmp_path)
    logger = MLFlowLogger(tmp_path.name, tracking_uri=proxy.uri)
    _ = logger.experiment
    watch = callback(folder=tmp_path / "records", wait=60)
    proxy.rule = rule
    train("pytorch_lightning", logger, watch, epochs=2, num_sanity_val_steps=0)
    proxy.rule = lambda method, path: None
    sync(tmp_path / "records")
    client = MlflowClient(mlflow_server)
    files = {Path(f.path).name for f in client.list_artifacts(logger.run_id, "cam/records")}
    assert {"manifest.json", "probe.npz", "look-000000.npz", "look-000001.npz"} <= files
    assert len(client.list_artifacts(logger.run_id, "images")) == 2 * 3 * 2
    assert "cam_report.html" in {f.path for f in client.list_artifacts(logger.run_id)}
    tags = client.get_run(logger.run_id).data.tags
    assert {"cam.methods", "cam.verdict", "mlflow.loggedImages"} <= set(tags)


def test_looks_are_not_lost_to_such_a_server_either(tmp_path, proxy, mlflow_server, monkeypatch):
    class Portal(Callback):
        def on_validation_end(self, trainer, module):
            proxy.rule = lambda method, path: (200, b"{}")

    logger = MLFlowLogger(tmp_path.name, tracking_uri=proxy.uri)
    watch = callback(folder=tmp_path / "records", wait=5)
    train("pytorch_lightning", logger, Portal(), watch, epochs=2, num_sanity_val_steps=0)
    assert len(watch.store) == 2 and not (tmp_path / "records" / "delivered.json").exists()
    proxy.rule = lambda method, path: None
    sync(tmp_path / "records")
    files = {Path(f.path).name for f in MlflowClient(mlflow_server).list_artifacts(logger.run_id, "cam/records")}
    assert {"look-000000.npz", "look-000001.npz"} <= files


def test_the_run_has_the_servers_id_as_soon_as_that_has_answered(tmp_path, proxy, mlflow_server, monkeypatch):
    monkeypatch.setattr("cam_callbacks.loggers.durable.START_WAIT", 0.2)
    monkeypatch.setattr("cam_callbacks.delivery.background.RETRY", 0.2)
    proxy.rule = lambda method, path: (503, b"starting")
    logger = DurableMLFlowLogger(tmp_path.name, tracking_uri=proxy.uri, queue=tmp_path / "queues")
    ours = logger.run_id
    assert ours.startswith("queued-") and logger.experiment_id is None
    logger.experiment.log_metric(ours, "early", 1.0)
    proxy.rule = lambda method, path: None
    deadline = time.monotonic() + 120
    while logger.run_id == ours and time.monotonic() < deadline:
        time.sleep(0.1)
    client = MlflowClient(mlflow_server)
    assert client.get_run(logger.run_id).info.experiment_id == logger.experiment_id == logger.name
    logger.experiment.log_metric(ours, "with ours", 2.0)
    logger.log_metrics({"with its own": 3.0}, 1)
    logger.finalize("success")
    assert set(client.get_run(logger.run_id).data.metrics) == {"early", "with ours", "with its own"}
    (stored,) = tmp_path.glob("queues/*/run.json")
    assert json.loads(stored.read_text())["run_id"] == logger.run_id
    assert logger.first_run_id == ours  # a second fit knows by it what was delivered


@pytest.mark.parametrize(("ends", "budget"), [("well", 30), ("by an error", 3), ("by Ctrl-C", 3)])
def test_all_who_wait_at_the_end_have_one_budget(tmp_path, monkeypatch, ends, budget):
    """Two queues and the callback, whose server is silent; a clock that runs when somebody waits."""
    clock = SimpleNamespace(now=0.0)
    waits = []

    def silent(background, seconds):
        if "cam-callbacks run name" not in background.name:
            waits.append(seconds)
            clock.now += seconds
        return False

    class End(Callback):
        def on_train_epoch_end(self, trainer, module):
            waits.clear()
            if ends != "well" and trainer.current_epoch == 1:
                raise (ZeroDivisionError if ends == "by an error" else KeyboardInterrupt)

    for module in ("budget", "delivery"):
        monkeypatch.setattr(f"cam_callbacks.delivery.{module}.time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(Background, "flush", silent)
    loggers = [DurableMLFlowLogger(tracking_uri="http://127.0.0.1:9", queue=tmp_path / name) for name in ("a", "b")]
    for _ in range(2):  # the end of each training has the whole of it
        try:
            train("pytorch_lightning", loggers, callback(folder=tmp_path / "records"), End(), epochs=2)
        except (ZeroDivisionError, KeyboardInterrupt, SystemExit):
            assert ends != "well"
        assert len(waits) == 4 and sum(waits) == budget  # two sinks, two queues


@pytest.mark.usefixtures("_by_hand")
def test_numbers_and_paths_that_the_plain_client_takes_are_taken(tmp_path, mlflow_server):
    """numpy's integers as steps, a Path as an artifact's folder."""
    box = queue(tmp_path, mlflow_server)
    file = tmp_path / "a.txt"
    file.write_text("words")
    experiment = MlflowClient(mlflow_server).create_experiment("plain")
    plain_run = MlflowClient(mlflow_server).create_run(experiment).info.run_id
    for client, run in ((MlflowClient(mlflow_server), plain_run), (DurableClient(box), box.run["id"])):
        client.log_metric(run, "loss", np.float32(0.5), step=np.int64(3), timestamp=7)
        client.log_batch(run, metrics=[Metric("acc", np.float64(1), np.int64(8), np.int32(4))])
        client.log_param(run, "width", np.int64(4))
        client.log_image(run, np.zeros((8, 8, 3), np.uint8), key="dog", step=np.int64(3))
        client.log_artifact(run, file, Path("notes") / "today")
        client.set_terminated(run, end_time=np.int64(9))
    box.deliver()

    def stored(run):
        client = MlflowClient(mlflow_server)
        found = client.get_run(run)
        points = [
            (m.key, m.value, m.step, m.timestamp) for k in ("loss", "acc") for m in client.get_metric_history(run, k)
        ]
        notes = [f.path for f in client.list_artifacts(run, "notes/today")]
        return points, found.data.params, found.info.end_time, notes, len(client.list_artifacts(run, "images"))

    assert stored(box.run["run_id"]) == stored(plain_run)
