"""A folder from elsewhere is synchronised: what it may name, and what is never done for it."""

from __future__ import annotations

import json
import os
import stat

import mlflow
import numpy as np
import pytest

from cam_callbacks import Record, RecordStore
from cam_callbacks.cli import main
from cam_callbacks.delivery.addresses import ADDRESSES
from cam_callbacks.delivery.outbox import Outbox
from cam_callbacks.delivery.places import is_known, remember
from cam_callbacks.delivery.sync import sync
from cam_callbacks.failures import one_line
from cam_callbacks.loggers import DurableMLFlowLogger
from cam_callbacks.text_table import printable


@pytest.fixture(autouse=True)
def _new_machine(tmp_path, monkeypatch):
    """One that has delivered to nothing yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def records(folder, **address):
    """Records with one look, and where they go."""
    store = RecordStore(folder)
    probe = {"n": 1, "ids": ["a"], "class_names": None, "fingerprint": "0", "image_size": [4, 4]}
    store.write_probe({"pictures": np.zeros((1, 4, 4, 3), np.uint8)})
    store.write_manifest({"run": "r", "methods": ["gradcam"], "layers": ["l"], "target": "label", "probe": probe})
    store.write(Record(0, 0, 0, {}, {("gradcam", "l"): np.ones((1, 2, 2), np.float32)}))
    (folder / ADDRESSES).write_text(json.dumps([{"max_images": 1, **address}]))
    return folder


def test_an_address_that_was_never_used_is_asked_about_first(tmp_path):
    uri = f"sqlite:///{tmp_path}/theirs.db"
    client = mlflow.MlflowClient(uri)
    run = client.create_run(client.create_experiment("x", str(tmp_path / "artifacts"))).info.run_id
    folder = records(tmp_path / "cam", kind="mlflow", name="mlflow", tracking_uri=uri, run_id=run, every_n_looks=1)
    asked = []
    with pytest.raises(ConnectionError, match=r"never used from this machine.*--tracking-uri"):
        sync(folder, approve=lambda place: asked.append(place) or False)
    assert asked == [uri] and not client.list_artifacts(run)
    assert main(["sync", str(folder)]) == 2  # no terminal: nobody to ask
    assert sync(folder, approve=lambda place: True) and client.list_artifacts(run)
    assert sync(folder)  # and is remembered


def test_trainings_that_begin_at_once_are_all_remembered():
    """Eight processes, each with twenty places."""
    children = []
    for number in range(8):
        if child := os.fork():
            children.append(child)
            continue
        for place in range(20):
            remember([f"http://host-{number}:{place}"])
        os._exit(0)
    assert {os.waitpid(child, 0)[1] for child in children} == {0}
    assert all(is_known(f"http://host-{number}:{place}") for number in range(8) for place in range(20))


def test_saying_the_address_is_approval(tmp_path):
    uri = f"sqlite:///{tmp_path}/ours.db"
    client = mlflow.MlflowClient(uri)
    run = client.create_run(client.create_experiment("x", str(tmp_path / "artifacts"))).info.run_id
    folder = records(
        tmp_path / "cam",
        kind="mlflow",
        name="mlflow",
        tracking_uri="http://evil.example:5000",
        run_id=run,
        every_n_looks=1,
    )
    assert sync(folder, uri) and client.list_artifacts(run)


def test_event_files_are_written_below_the_folder_or_into_its_log_folder(tmp_path):
    inside = records(tmp_path / "log" / "cam", kind="tensorboard", name="tb", log_dir=str(tmp_path / "log"))
    assert sync(inside) and list((tmp_path / "log").glob("*tfevents*"))
    target = tmp_path / "home" / ".config"
    outside = records(tmp_path / "other" / "cam", kind="tensorboard", name="tb", log_dir=str(target))
    with pytest.raises(ConnectionError, match="never used"):
        sync(outside)
    assert not target.exists()


def test_links_are_not_followed_and_their_targets_not_sent(tmp_path, make_queue):
    secret = tmp_path / "secret.txt"
    secret.write_text("key")
    uri = f"sqlite:///{tmp_path}/m.db"
    queue = make_queue(tmp_path / "queue" / "q")
    (tmp_path / "file.txt").write_text("mine")
    queue.append("log_artifact", {"artifact_path": None}, tmp_path / "file.txt")
    queue.background.flush(60)
    queue.background.stop()
    number = queue.calls._next
    kept = queue.folder / f"{number:08d}"
    kept.mkdir()
    (kept / "file.txt").symlink_to(secret)
    call = {"call": "log_artifact", "file": "file.txt", "arguments": {"artifact_path": "stolen"}}
    (queue.folder / f"{number:08d}.json").write_text(json.dumps(call))
    sync(tmp_path / "queue", uri)
    run = mlflow.MlflowClient(uri)
    found = {f.path for f in run.list_artifacts(Outbox(queue.folder).run["run_id"])}
    assert found == {"file.txt"} and list(queue.folder.glob("*.damaged"))
    (tmp_path / "linked").symlink_to(tmp_path / "queue")
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "nothing here")


@pytest.mark.timeout(300)  # a FIFO would be waited for
@pytest.mark.parametrize("kind", ["a link", "a FIFO"])
def test_no_file_of_a_queue_or_a_ledger_may_be_a_link_or_a_fifo(tmp_path, make_queue, kind):
    """Calls, what was refused, the run, the lock, what was delivered: each beside a good call, which arrives."""
    uri = f"sqlite:///{tmp_path}/m.db"
    queue = make_queue(tmp_path / "queues" / "q")
    queue.calls.append("log_batch", {"tags": [["mine", "1"]]})
    elsewhere = {
        "00000007.json": {"call": "log_batch", "arguments": {"tags": [["stolen", "key"]]}},
        "00000008.refused": [{"what": "stolen", "why": "key"}],
        ".lock": "as it was",
        "other/run.json": {"tracking_uri": uri, "run_id": None, "id": "queued-stolen", "experiment_name": "stolen"},
        "cam/delivered.json": {"looks": {}, "summaries": {}},
    }
    store = records(tmp_path / "queues" / "q" / "cam", kind="tensorboard", name="tb", log_dir=str(queue.folder / "cam"))
    (queue.folder / "other").mkdir()
    for name, content in elsewhere.items():
        target = tmp_path / name.replace("/", "-")
        target.write_text(json.dumps(content))
        path = queue.folder / name
        path.unlink(missing_ok=True)
        path.symlink_to(target) if kind == "a link" else os.mkfifo(path)
    os.mkfifo(store / "events.out.tfevents.1")
    delivered = sync(tmp_path / "queues", uri)
    assert not any("stolen" in line for line in delivered)
    client = mlflow.MlflowClient(uri)
    (found,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert found.data.tags.get("mine") == "1" and "stolen" not in found.data.tags
    assert (queue.folder / "00000007.damaged").exists() and not (store / "delivered.json").is_symlink()
    for name, content in elsewhere.items():
        assert json.loads((tmp_path / name.replace("/", "-")).read_text()) == content


def test_no_password_is_printed_or_kept(tmp_path):
    error = ConnectionError("no answer from https://me:s3cret@example.org:5000/api (and http://t0ken@host)")
    for text in (one_line(error), printable(str(error))):
        assert "s3cret" not in text and "t0ken" not in text and "https://…@example.org:5000/api" in text
    flow = DurableMLFlowLogger(
        tracking_uri=f"sqlite:///{tmp_path}/m.db", artifact_location="ftp://me:s3cret@host/x", queue=tmp_path / "queue"
    )
    _ = flow.experiment
    files = [path for path in (tmp_path / "queue").rglob("*") if path.is_file()]
    assert files and not any(b"s3cret" in path.read_bytes() for path in files)


def test_what_may_hold_a_secret_is_its_owners_alone(tmp_path):
    os.umask(0o022)
    flow = DurableMLFlowLogger(tracking_uri=f"sqlite:///{tmp_path}/m.db", queue=tmp_path / "queue")
    _ = flow.experiment
    (folder,) = (tmp_path / "queue").iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "run.json").stat().st_mode) == 0o600
