"""Records from elsewhere: whatever their files are, nothing ends or waits, and good runs are shown beside them."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cam_callbacks import Record, RecordStore
from cam_callbacks.compare import load_run
from cam_callbacks.compare.page import page
from cam_callbacks.compare.run import LoadError
from cam_callbacks.compare.select import select_runs
from cam_callbacks.records import MANIFEST, PROBE, RecordError
from cam_callbacks.records.files import to_json
from cam_callbacks.tensorboard_plugin.watch import Watch

N = 3


def record(look=0):
    maps = np.ones((N, 2, 2), np.float32) + np.arange(N, dtype=np.float32)[:, None, None]
    return Record(look, look, look, {"cam/entropy/gradcam": 0.5}, {("gradcam", "layer"): maps})


def manifest(**changes):
    probe = {
        "fingerprint": "0" * 64,
        "n": N,
        "image_size": [4, 4],
        "ids": list("abc"),
        "class_names": None,
        "groups": None,
    }
    return {"run": "r", "methods": ["gradcam"], "layers": ["layer"], "target": "label", "probe": probe} | changes


@pytest.fixture
def write(tmp_path):
    """``write(name, **changes of the manifest)``: a folder of records."""

    def make(name, /, **changes):
        store = RecordStore(tmp_path / name)
        store.write_probe({"pictures": np.zeros((N, 4, 4, 3), np.uint8), "labels": np.arange(N)})
        store.write_manifest(manifest(**changes))
        store.write(record())
        return store.folder

    return make


def goes_on(folder, good):
    """Is the good run shown beside this one, by compare and in the tab?"""
    runs = select_runs([str(good), str(folder)]).runs if (folder / MANIFEST).is_file() else [load_run(good)]
    assert good.name in {run.source.rpartition("/")[2] for run in runs}
    assert page(runs)
    watch = Watch(str(folder.parent))
    rows = {row["name"]: row for row in watch.listing()}
    assert watch.data([good.name, *([folder.name] if folder.name in rows else [])])
    return runs


WRONG = {
    "run": 3,
    "methods": "gradcam",
    "layers": [1],
    "target": {},
    "grids": {"layer": "2"},
    "probe": [],
    "created": "today",
    "store_images": "yes",
    "name": ["x"],
    "picture_step": 7,
}
WRONG_PROBE = {
    "n": "3",
    "ids": ["a"],
    "class_names": 5,
    "groups": ["g"],
    "image_size": [1],
    "mean": "0.5",
    "std": [[1]],
    "fingerprint": 0,
}


@pytest.mark.parametrize(
    "changes", [*({k: v} for k, v in WRONG.items()), *({"probe": {k: v}} for k, v in WRONG_PROBE.items())]
)
def test_a_wrongly_typed_manifest_takes_no_other_run_along(write, changes):
    good = write("good")
    if isinstance(changes.get("probe"), dict):
        changes = {"probe": manifest()["probe"] | changes["probe"]}
    bad = write("bad", **changes)
    with pytest.raises(RecordError, match="damaged"):
        _ = RecordStore(bad).manifest
    assert [run.name for run in goes_on(bad, good)] == ["r"]


def replace(path, make):
    path.unlink()
    make(path)


FILES = {
    "a FIFO": os.mkfifo,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to another run's file": lambda path: path.symlink_to(path.parent.parent / "good" / path.name),
    "a link that leads nowhere": lambda path: path.symlink_to("nowhere"),
    "a folder": lambda path: path.mkdir(),
    "two hundred gigabytes of nothing": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 200 << 30),
}


@pytest.mark.parametrize("name", [MANIFEST, PROBE, "look-000000.npz", "look-000000.user.json"])
@pytest.mark.parametrize("kind", FILES)
def test_only_regular_files_of_a_sane_size_are_read(write, kind, name):
    good, bad = write("good"), write("bad")
    (bad / "look-000000.user.json").write_text("{}")
    replace(bad / name, FILES[kind])
    started = time.monotonic()
    goes_on(bad, good)
    assert time.monotonic() - started < 60  # a FIFO would be waited for


def test_looks_that_unpack_to_much_more_than_they_take_are_left_out(write, monkeypatch):
    folder = write("packed")
    monkeypatch.setattr("cam_callbacks.compare.run.LARGEST", 1 << 20)
    for look in range(1, 5):
        maps = np.zeros((N, 1000, 100), np.float32)  # 1.2 MB, in some kilobytes
        RecordStore(folder).write(Record(look, look, look, {}, {("gradcam", "layer"): maps}))
    run = load_run(folder)
    assert len(run.records) < 5 and any("unpack" in warning for warning in run.warnings)


def test_a_look_of_other_images_is_left_out(write):
    folder = write("other")
    RecordStore(folder).write(Record(1, 1, 1, {}, {("gradcam", "layer"): np.ones((N + 1, 2, 2), np.float32)}))
    run = load_run(folder)
    assert len(run.records) == 1 and "another number of images" in " ".join(run.warnings)


def test_hyperparameters_that_name_themselves_again_and_again_are_not_read(write):
    folder = write("yaml")
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (folder / "hparams.yaml").write_text("\n".join(lines))
    assert load_run(folder).params == {}
    (folder / "hparams.yaml").write_text("lr: 0.1\nna\u202eme: \x7f\n", encoding="utf-8")
    assert load_run(folder).params.get("lr") in ("0.1", None)


def test_what_would_steer_a_terminal_is_an_escape(write):
    folder = write("steering", run="\x1b[2Jrun\u202e", probe=manifest()["probe"] | {"ids": ["a\u202eb", "\x07", "c"]})
    run = load_run(folder)
    assert run.name == "\\x1b[2Jrun\\u202e" and run.manifest["probe"]["ids"] == ["a\\u202eb", "\\x07", "c"]
    assert not any(c in page([run]) for c in "\x1b\x07\u202e")


def test_names_of_a_megabyte_are_refused(write):
    bad = write("long", run="x" * 2_000_000)
    with pytest.raises(RecordError, match="'run' is"):
        _ = RecordStore(bad).manifest
    with pytest.raises((RecordError, LoadError)):
        load_run(bad)


def test_the_working_folder_hides_no_package(tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    (tmp_path / "mine.py").write_text("from torch import nn\n\ndef net():\n    return nn.Conv2d(3, 4, 3)\n")
    code = "import sys; sys.path.pop(0); from cam_engine.loading import import_model; print(import_model('mine:net')); "
    code += "import importlib; sys.modules.pop('json'); importlib.import_module('json')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "Conv2d" in done.stdout, done.stderr[-800:]


# --- by structure: every field of a header replaced by something else ---

TEXT = st.text(max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def with_header(data, changes):
    """The record's bytes with some fields of its header changed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(np.load(io.BytesIO(files["header.npy"])).tobytes())
    buffer = io.BytesIO()
    np.save(buffer, np.frombuffer(to_json(header | changes).encode(), np.uint8))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in (files | {"header.npy": buffer.getvalue()}).items():
            archive.writestr(name, content)
    return out.getvalue()


FIELDS = ("look", "epoch", "step", "metrics", "aggregates", "reference", "user_metrics", "seconds", "time", "maps", "per_image",
          "t_maps", "alerts", "judged", "exchanged", "schema")  # fmt: skip


@contextmanager
def bounded(seconds=5.0, mebibytes=200):
    """Of processor time, and of memory beyond what the process has."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    memory, started = peak(), time.process_time()
    yield
    assert time.process_time() - started < seconds
    assert peak() - memory < mebibytes


def peak():
    """MiB that this process has had at most."""
    return int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def check_any_record(changes):
    data = with_header(record().to_bytes(), changes)
    with bounded(), suppress(RecordError):
        read = Record.from_bytes(data)
        assert isinstance(read.look, int) and all(isinstance(v, float) for v in read.metrics.values())
        read.to_bytes()


def check_any_manifest(folder, changes):
    (folder / MANIFEST).write_text(to_json({"schema": 1} | manifest() | changes))
    with bounded(), suppress(RecordError, LoadError):
        assert page([load_run(folder)])


def test_what_takes_too_much_is_found():
    with pytest.raises(AssertionError), bounded():
        np.ones(2**26)
    with pytest.raises(AssertionError), bounded(seconds=0.1):
        sum(range(20_000_000))


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3))
def test_any_header_is_a_record_or_an_error_of_ours(changes):
    check_any_record(changes)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from([*WRONG, "schema"]), VALUES, max_size=2))
def test_any_manifest_is_shown_or_an_error_of_ours(write, changes):
    check_any_manifest(write("fuzzed"), changes)


@pytest.mark.soak
@settings(max_examples=8000, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4))
def test_eight_thousand_headers(changes):
    check_any_record(changes)


@pytest.mark.soak
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from([*WRONG, "schema"]), VALUES, max_size=3))
def test_two_thousand_manifests(write, changes):
    check_any_manifest(write("fuzzed"), changes)
