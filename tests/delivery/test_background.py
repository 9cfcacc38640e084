"""The queue on disk, piece by piece."""

from __future__ import annotations

import json
import os
import pickle
import random
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from cam_callbacks.delivery import Delivery, Ledger
from cam_callbacks.delivery.background import Background
from cam_callbacks.delivery.call_files import CallFiles
from cam_callbacks.delivery.outbox import Outbox
from cam_callbacks.delivery.sync import sync
from cam_callbacks.lightning_trainer import mlflow_run_name
from cam_callbacks.loggers.durable import DurableClient, DurableMLFlowLogger
from cam_callbacks.loggers.mlflow import MLflowSink
from cam_callbacks.records import Record, RecordStore


class Sink:
    """Keeps what it is given; ``fail`` is an exception to raise, ``gate`` something to wait for."""

    address = None

    def __init__(self, name: str = "sink") -> None:
        self.name = name
        self.taken: list[int] = []
        self.summaries = 0
        self.fail: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def deliver(self, record, drawing):
        self.gate.wait()
        if self.fail is not None:
            raise self.fail
        self.taken.append(record.look)

    def finish(self, store, drawing):
        self.summaries += 1


def record(look: int) -> Record:
    return Record(look, look, look, {}, {("gradcam", "l"): np.ones((1, 2, 2), np.float32)})


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    made = RecordStore(tmp_path / "cam")
    for look in range(3):
        made.write(record(look))
    return made


def test_each_look_once_also_after_a_restart(store):
    first, second = Sink(), Sink()
    assert Delivery(store, [first]).finish()
    store.write(record(3))
    assert Delivery(store, [second]).finish()
    assert first.taken == [0, 1, 2] and second.taken == [3] and first.summaries == second.summaries == 1
    third = Sink()
    assert Delivery(store, [third]).finish() and third.taken == [] and third.summaries == 0


def test_a_sink_that_fails_holds_up_no_other_and_gets_it_later(store, caplog):
    broken, good = Sink("broken"), Sink("good")
    broken.fail = ConnectionError("the server is down")
    delivery = Delivery(store, [broken, good])
    delivery.offer()
    assert not delivery.finish(20)
    assert good.taken == [0, 1, 2] and broken.taken == [] and delivery.pending() == {"broken": 3, "good": 0}
    assert caplog.text.count("could not take look 0 (ConnectionError: the server is down)") == 1
    assert "broken did not get 3 of 3 looks" in caplog.text and f"cam-callbacks sync {store.folder}" in caplog.text
    broken.fail = None
    assert Delivery(store, [broken]).finish() and broken.taken == [0, 1, 2]


def test_a_look_is_delivered_when_it_was_offered_and_not_before(store):
    """A thread that tries again must not take the look that is being made: the trainer's numbers are yet to join it."""
    sink = Sink()
    delivery = Delivery(store, [sink])
    delivery.offer()
    store.write(record(3))
    (worker,) = delivery._workers
    assert worker.background.flush(20) and sink.taken == [0, 1, 2]
    assert delivery.finish(20) and sink.taken == [0, 1, 2, 3]


def test_a_damaged_record_holds_up_no_other(store, caplog):
    store.path(1).write_bytes(b"damaged")
    sink = Sink()
    assert Delivery(store, [sink]).finish() and sink.taken == [0, 2]
    assert "look-000001.npz is damaged" in caplog.text


def test_the_end_waits_no_longer_than_told(store, caplog):
    slow = Sink()
    slow.gate.clear()
    assert not Delivery(store, [slow]).finish(0.1)  # would wait for ever
    assert "not within 0.1 s" in caplog.text
    slow.gate.set()


def test_looks_made_again_are_delivered_again(store):
    sink = Sink()
    Delivery(store, [sink]).finish()
    Ledger(store.folder).forget_from(1)
    Delivery(store, [sink]).finish()
    assert sink.taken == [0, 1, 2, 1, 2]


def test_a_damaged_ledger_is_an_empty_one(store):
    (store.folder / "delivered.json").write_text('{"looks": {"sink": [0, "x"')
    sink = Sink()
    assert Delivery(store, [sink]).finish() and sink.taken == [0, 1, 2]


def test_a_failing_server_draws_nothing_from_pythons_random_stream(monkeypatch):
    """Retries wait for a random time; the numbers must not be the training's."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    listening = socket.create_server(("127.0.0.1", 0))

    def hang_up() -> None:
        while True:
            try:
                listening.accept()[0].close()
            except OSError:
                return

    threading.Thread(target=hang_up, daemon=True).start()
    client = MlflowClient(f"http://127.0.0.1:{listening.getsockname()[1]}")
    before = random.getstate()
    background = Background("test", lambda: client.set_tag("0" * 32, "key", "value"))
    assert not background.flush(60) and isinstance(background.error, MlflowException)
    assert random.getstate() == before
    listening.close()


def test_a_run_that_is_named_in_the_background_draws_nothing_from_it_either(tmp_path):
    """MLflow draws names of runs from Python's stream; what others do with MLflow goes on as ever."""
    uri = f"sqlite:///{tmp_path}/m.db"
    before = random.getstate()
    logger = DurableMLFlowLogger("e", tracking_uri=uri, queue=tmp_path / "queues")
    logger.log_metrics({"a": 1.0}, 0)
    logger.finalize("success")
    assert random.getstate() == before
    client = MlflowClient(uri)
    assert client.get_run(logger.run_id).info.run_name
    names = []
    for _ in range(2):
        random.seed(3)
        names.append(client.create_run(logger.experiment_id).info.run_name)
    assert names[0] == names[1] and random.getstate() != before


def test_a_server_that_listens_and_is_silent_does_not_hold_the_first_look(monkeypatch):
    monkeypatch.setattr("cam_callbacks.lightning_trainer.NAME_WAIT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = MlflowClient(f"http://127.0.0.1:{silent.getsockname()[1]}")
        logger = SimpleNamespace(run_id="0" * 32, experiment=client, _run_name="blue")
        assert mlflow_run_name(logger) == "blue"  # MLflow's own patience is minutes


def test_a_forked_process_has_no_thread(store):
    sink = Sink()
    delivery = Delivery(store, [sink])
    child = os.fork()
    if child == 0:
        delivery.offer()
        os._exit(threading.active_count() - 1)
    assert os.waitpid(child, 0)[1] == 0


class TestOutbox:
    @pytest.fixture
    def uri(self, tmp_path):
        return f"sqlite:///{tmp_path}/m.db"

    @pytest.fixture
    def box(self, tmp_path, uri):
        run = {
            "tracking_uri": uri,
            "run_id": None,
            "experiment_name": "e",
            "artifact_location": None,
            "tags": {"a": "1"},
        }
        return Outbox(tmp_path / "queue", run)

    def test_everything_arrives_once_and_in_order(self, box, uri, tmp_path):
        client, run = DurableClient(box), box.run["id"]
        box.background.stop()
        for step in range(5):
            client.log_metric(run, "loss", 5.0 - step, timestamp=step, step=step)
        client.log_param(run, "lr", 0.1)
        client.set_tag(run, "kind", "test")
        client.log_text(run, "words", "notes/a.txt")
        client.log_image(run, np.zeros((8, 8, 3), np.uint8), key="dog", step=3)
        client.log_dict(run, {"a": 1}, "d.json")
        client.set_terminated(run, "FINISHED")
        assert box.flush(60) and box.waiting() == []
        assert {path.name for path in box.folder.iterdir()} == {"run.json", ".lock"}
        real = MlflowClient(uri)
        found = real.get_run(box.run["run_id"])
        assert found.data.params == {"lr": "0.1"} and found.data.tags["kind"] == "test" and found.data.tags["a"] == "1"
        assert found.info.status == "FINISHED"
        assert [(m.step, m.value) for m in real.get_metric_history(found.info.run_id, "loss")] == [
            (step, 5.0 - step) for step in range(5)
        ]
        files = {f.path for f in real.list_artifacts(found.info.run_id)}
        assert files == {"d.json", "images", "notes"} and len(real.list_artifacts(found.info.run_id, "images")) == 2

    def test_a_crash_between_sending_and_forgetting_shows_nothing_twice(self, box, uri, monkeypatch):
        monkeypatch.setattr(CallFiles, "remove", lambda calls, number, files=True: None)
        monkeypatch.setattr(Background, "wake", lambda background: None)
        client, run = DurableClient(box), box.run["id"]
        client.log_metric(run, "loss", 1.0, timestamp=7, step=1)
        client.log_image(run, np.zeros((8, 8, 3), np.uint8), key="dog", step=3)
        box.deliver()
        again = Outbox(box.folder)
        again.deliver()
        again.run["run_id"] = None  # as if killed just after the run was made
        again.deliver()
        real = MlflowClient(uri)
        assert again.run["run_id"] == box.run["run_id"]
        assert len(real.get_metric_history(box.run["run_id"], "loss")) == 1
        assert len(real.list_artifacts(box.run["run_id"], "images")) == 2  # the picture and its thumbnail

    def test_what_the_server_refuses_or_cannot_be_read_holds_up_nothing(self, box, uri, caplog, monkeypatch):
        monkeypatch.setattr(Background, "wake", lambda background: None)
        client, run = DurableClient(box), box.run["id"]
        client.log_param(run, "lr", 1)
        client.log_param(run, "lr", 2)
        client.log_metric(run, "loss", 1.0)
        (box.folder / "00000001.json").write_text('{"call": "log_b')
        client.log_param(run, "lr", 3)
        box.deliver()
        assert box.waiting() == []
        assert "00000001.json is damaged" in caplog.text and "MLflow refused param lr" in caplog.text
        assert MlflowClient(uri).get_run(box.run["run_id"]).data.metrics == {"loss": 1.0}

    def test_many_points_are_sent_together(self, box, monkeypatch):
        monkeypatch.setattr(Background, "wake", lambda background: None)
        client, run = DurableClient(box), box.run["id"]
        for step in range(2500):
            client.log_batch(run, metrics=[Metric("loss", float(step), step, step)])
        sizes = [len(call["arguments"]["metrics"]) for _, call in box._calls()]
        assert sizes == [1000, 1000, 500]

    def test_no_password_is_written_to_disk(self, tmp_path):
        run = {"tracking_uri": "http://me:secret@host:5000/x", "run_id": "r", "experiment_name": "e", "tags": {}}
        box = Outbox(tmp_path / "q", run)
        assert "secret" not in (box.folder / "run.json").read_text() and "secret" in box.tracking_uri

    def test_a_path_in_a_queue_leads_nowhere_else(self, box, uri, tmp_path, monkeypatch, caplog):
        monkeypatch.setattr(Background, "wake", lambda background: None)
        (tmp_path / "secret.txt").write_text("secret")
        (box.folder / "00000000.json").write_text(
            '{"call": "log_artifact", "file": "../../secret.txt", "arguments": {"artifact_path": null}}'
        )
        box.deliver()
        assert "00000000.json is damaged" in caplog.text and box.waiting() == []
        assert MlflowClient(uri).list_artifacts(box.run["run_id"]) == []

    @pytest.mark.parametrize(
        "call",
        [
            {"call": "log_artifact", "file": "gone.txt", "arguments": {"artifact_path": None}},
            {"call": "log_artifact", "file": None, "arguments": {}},
            {"call": "log_batch", "arguments": {"metrics": [{"name": "loss"}]}},
            {"call": "update_run", "arguments": {"colour": "red"}},
            {"call": "log_batch", "arguments": 5},
        ],
    )
    def test_a_call_that_can_never_be_sent_holds_up_no_other(self, box, uri, call, monkeypatch):
        monkeypatch.setattr(Background, "wake", lambda background: None)
        DurableClient(box).log_metric(box.run["id"], "before", 1.0)
        (box.folder / "00000001.json").write_text(json.dumps(call))
        again = Outbox(box.folder)
        DurableClient(again).log_metric(box.run["id"], "after", 2.0)
        again.deliver()
        assert again.waiting() == [] and (box.folder / "00000001.damaged").is_file()
        assert MlflowClient(uri).get_run(again.run["run_id"]).data.metrics == {"before": 1.0, "after": 2.0}

    def test_a_file_system_without_locks_is_delivered_from(self, box, uri, monkeypatch):
        monkeypatch.setattr(Background, "wake", lambda background: None)
        monkeypatch.setattr("fcntl.flock", lambda *_: exec("raise OSError(38, 'Function not implemented')"))
        DurableClient(box).log_metric(box.run["id"], "loss", 1.0)
        box.deliver()
        assert box.waiting() == []

    def test_a_copy_of_a_logger_whose_server_was_down_logs_to_the_same_run(self, tmp_path, uri, monkeypatch):
        down = "http://127.0.0.1:9"
        logger = DurableMLFlowLogger("e", tracking_uri=down, queue=tmp_path / "queues", wait=0)
        logger.log_metrics({"a": 1.0}, 0)
        copy = pickle.loads(pickle.dumps(logger))
        copy.log_metrics({"b": 2.0}, 1)
        assert copy.run_id == logger.run_id and copy.run_id.startswith("queued-")
        assert len(sync(tmp_path / "queues", uri)) == 2
        (run,) = MlflowClient(uri).search_runs(["1"])
        assert run.data.metrics == {"a": 1.0, "b": 2.0}

    def test_records_find_the_run_of_a_queue_whose_folder_was_moved(self, box, uri, tmp_path, monkeypatch):
        store, asked = RecordStore(tmp_path / "cam"), []
        Delivery(store, [MLflowSink(DurableClient(box), box.run["id"])])  # writes down where the records go
        box.folder.rename(tmp_path / "moved")
        monkeypatch.setattr(
            "cam_callbacks.delivery.sync.Delivery.finish", lambda d, _: asked.append(d._workers[0].sink.run_id) or True
        )
        sync(tmp_path, uri)
        assert asked == [run.info.run_id for run in MlflowClient(uri).search_runs(["1"])] and len(asked) == 1
