from __future__ import annotations

import itertools
import json
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cam_callbacks import Record, RecordError, RecordStore


def record(look=0, **changes):
    rng = np.random.default_rng(look)
    fields = {
        "look": look, "epoch": look, "step": 10 * look,
        "metrics": {"cam/entropy/gradcam": 0.5, "cam/drift_ref/gradcam": float("nan")},
        "maps": {
            ("gradcam", "layer4"): rng.random((3, 4, 5)).astype(np.float32),
            ("gradcam++", "a/b"): np.ones((3, 2, 2), np.float32),
        },
        "per_image": {"entropy/gradcam": np.array([0.1, np.nan, 0.3])},
        "aggregates": {"entropy/gradcam": {"mean": 0.2, "worst_class": float("nan")}},
        "predictions": np.array([0, 1, 2]),
        "reference": {"gradcam/layer4": {"look": 0, "settled": False, "floor": 0.01}},
    }  # fmt: skip
    return Record(**(fields | changes))


@pytest.fixture
def store(tmp_path):
    return RecordStore(tmp_path / "cam")


def test_what_was_written_is_read(store):
    for look in range(3):
        store.write(record(look))
    assert len(store) == 3 and [r.epoch for r in store] == [0, 1, 2]
    read, written = store[-1], record(2)
    assert (read.look, read.epoch, read.step) == (2, 2, 20)
    assert read.metrics["cam/entropy/gradcam"] == 0.5 and np.isnan(read.metrics["cam/drift_ref/gradcam"])
    assert read.maps.keys() == written.maps.keys()
    for key, value in written.maps.items():
        np.testing.assert_array_equal(read.maps[key], value)
        assert read.maps[key].dtype == np.float32
    np.testing.assert_array_equal(read.per_image["entropy/gradcam"], [0.1, np.nan, 0.3])
    assert np.isnan(read.aggregates["entropy/gradcam"]["worst_class"])
    assert read.predictions.tolist() == [0, 1, 2] and read.confidences is None
    assert read.reference == written.reference
    assert [r.look for r in store[1:]] == [1, 2]


def test_a_reader_beside_a_writer_sees_whole_records_only(store, monkeypatch):
    store.write(record(0))
    monkeypatch.setattr(os, "replace", lambda a, b: (_ for _ in ()).throw(OSError("killed before the rename")))
    store.write(record(1))
    reader = RecordStore(store.folder)
    assert reader.looks == [0] and reader[-1].look == 0
    assert [p.name for p in store.folder.iterdir()] == ["look-000000.npz"]


def test_what_a_full_disk_refused_is_kept_and_written_when_there_is_room(store, monkeypatch, caplog):
    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        store.write_manifest({"methods": ["gradcam"]})
        for look in range(30):
            store.write(record(look))
            store.annotate(look, {"val_acc": look / 30})
    assert "No space left on device" in caplog.text
    assert store.looks == list(range(14, 30)) and store[-1].look == 29 and store.manifest["methods"] == ["gradcam"]
    assert list(store.folder.iterdir()) == []
    assert store[-1].user_metrics == {"val_acc": 29 / 30}
    store.write(record(30))
    written = RecordStore(store.folder)
    assert written.looks == list(range(14, 31)) and written.manifest
    assert [r.user_metrics for r in written[:-1]] == [{"val_acc": look / 30} for look in range(14, 30)]
    assert len(list(store.folder.iterdir())) == 16 * 2 + 1 + 1  # the last look has no numbers; and the manifest


def test_threads_write_side_by_side_also_while_the_disk_refuses(store, monkeypatch):
    """The training writes looks while the delivery keeps parameters; what waited is written by whoever comes next."""
    refusals, real = itertools.cycle([True, True, False]), os.fsync

    def sometimes_full(descriptor):
        time.sleep(0.001)  # lets the others in
        if next(refusals):
            raise OSError(28, "No space left on device")
        real(descriptor)

    def write(thread):
        for look in range(thread * 4, thread * 4 + 4):
            store.write(record(look))
            store.write_params({f"{thread}": str(look)})

    monkeypatch.setattr(os, "fsync", sometimes_full)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    monkeypatch.undo()
    copy = pickle.loads(pickle.dumps(store))
    for each in (store, copy):
        each.write(record(16))
        assert RecordStore(store.folder).looks == list(range(17)) and len(each.params) == 1 and not each._unwritten


def test_damage_is_named_and_costs_one_record(store):
    for look in range(3):
        store.write(record(look))
    data = store.path(1).read_bytes()
    store.path(1).write_bytes(data[: len(data) // 2])
    with pytest.raises(RecordError, match=r"look-000001\.npz is damaged"):
        store.read(1)
    assert store[0].look == 0 and store[2].look == 2


def test_the_trainers_numbers_stand_beside_the_record(store):
    store.write(record(3))
    before = store.path(3).stat()
    path = store.annotate(3, {"val_acc": 0.5, "val_loss": float("nan"), "lr": np.float32(0.25)})
    assert path.name == "look-000003.user.json" and store.path(3).stat() == before
    assert json.loads(path.read_text()) == {
        "schema": 1,
        "user_metrics": {"val_acc": 0.5, "val_loss": None, "lr": 0.25},
    }
    np.testing.assert_equal(store.read(3).user_metrics, {"val_acc": 0.5, "val_loss": np.nan, "lr": 0.25})
    assert store.looks == [3] and store.files(3) == ["look-000003.npz", "look-000003.user.json"]
    assert store.files(4) == []
    store.write(record(3))  # made again: what was measured beside the old one is not of this one
    assert store.read(3).user_metrics == {} and store.files(3) == ["look-000003.npz"]
    store.annotate(3, {"val_acc": 0.5})
    store.remove(3)
    store.remove(3)
    assert store.looks == [] and list(store.folder.iterdir()) == []


def test_numbers_in_the_header_of_an_older_record_are_read(store):
    store.write(record(0, user_metrics={"val_acc": 0.5}))
    assert store.read(0).user_metrics == {"val_acc": 0.5}


@pytest.mark.parametrize(
    "damage",
    [b"", b'{"schema": 1, "user_metr', b"[1]", b'{"schema": 99, "user_metrics": {}}', b"\xff", b'{"schema": 1}'],
)
def test_a_damaged_file_beside_a_record_loses_no_look(store, damage, caplog):
    store.write(record(0))
    store.annotate(0, {"val_acc": 0.5}).write_bytes(damage)
    assert [r.user_metrics for r in (store[0], store[0])] == [{}, {}]
    np.testing.assert_equal(store[0].metrics, record(0).metrics)
    assert caplog.text.count("look-000000.user.json is damaged") == 1


def test_pickles_are_never_opened(store, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    store.folder.mkdir()
    np.savez(store.path(0), header=np.array([Evil()], dtype=object))
    store.path(1).write_bytes(pickle.dumps(Evil()))
    for look in (0, 1):
        with pytest.raises(RecordError):
            store.read(look)
    assert not (tmp_path / "owned").exists()


def test_a_newer_schema_is_refused_with_the_remedy(store):
    store.write_manifest({"run": "x"})
    manifest = json.loads((store.folder / "manifest.json").read_text())
    (store.folder / "manifest.json").write_text(json.dumps(manifest | {"schema": 99}))
    with pytest.raises(RecordError, match=r"schema 99.*Update cam-callbacks"):
        _ = store.manifest


def test_missing_folder_and_index(store):
    assert len(store) == 0 and store.manifest == {} and store.probe == {}
    with pytest.raises(IndexError, match="record -1 of 0"):
        _ = store[-1]
