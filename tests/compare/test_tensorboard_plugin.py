"""A real TensorBoard process with the tab CAM, asked over HTTP."""

import base64
import hashlib
import importlib.metadata
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cam_callbacks.records import RecordStore
from cam_callbacks.tensorboard_plugin import CAMLoader
from cam_callbacks.tensorboard_plugin.watch import RESCAN, Watch, roots


@pytest.fixture(scope="session")
def board(start_tensorboard, tmp_path_factory):
    """A TensorBoard on an empty log folder: ``.ask(path)``, ``.logdir``, ``.process``."""
    logdir = tmp_path_factory.mktemp("logdir")
    address, process = start_tensorboard(logdir)
    return SimpleNamespace(ask=asker(address), logdir=logdir, process=process)


def asker(base: str):
    def ask(path: str, **headers: str) -> SimpleNamespace:
        request = urllib.request.Request(f"{base}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return SimpleNamespace(code=answer.status, body=answer.read().decode(), headers=answer.headers)
        except urllib.error.HTTPError as error:
            return SimpleNamespace(code=error.code, body=error.read().decode(), headers=error.headers)

    return ask


def page(board, *names: str, of: str = "data", **headers: str) -> SimpleNamespace:
    return board.ask(f"/data/plugin/cam/{of}?{urllib.parse.urlencode({'run': names}, doseq=True)}", **headers)


def listed(board, *wanted: str) -> dict[str, dict]:
    """The runs that the tab lists, once it has seen those wanted."""
    deadline = time.monotonic() + 20 * RESCAN
    while time.monotonic() < deadline:
        runs = {run["name"]: run for run in json.loads(board.ask("/data/plugin/cam/runs").body)["runs"]}
        if set(wanted) <= set(runs):
            return runs
        time.sleep(0.2)
    raise AssertionError(f"{wanted} are not among {sorted(runs)}")


def test_the_package_brings_the_tab_along():
    (entry,) = [e for e in importlib.metadata.entry_points(group="tensorboard_plugins") if e.name == "cam"]
    assert entry.load() is CAMLoader


def test_importing_it_imports_nothing_heavy():
    code = (
        "import sys, cam_callbacks.tensorboard_plugin; first = set(sys.modules);"
        "import cam_callbacks.tensorboard_plugin.plugin;"
        "print('cv2' in first, 'scipy' in first, *[m for m in ('torch', 'pytorch_lightning', 'lightning', 'mlflow', 'pandas')"
        " if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() == ["False"] * 2


def test_runs_are_listed_and_shown_by_a_process_without_torch(board, write_run):
    folders = [write_run(name, on, folder=board.logdir / "digits" / name / "cam")
               for name, on in (("clean", "masks"), ("shortcut", "nuisance"))]  # fmt: skip
    runs = listed(board, "digits/clean", "digits/shortcut")
    assert runs["digits/clean"]["looks"] == 8 and not runs["digits/clean"]["problem"]
    plugins = json.loads(board.ask("/data/plugins_listing").body)
    assert plugins["cam"]["enabled"] and plugins["cam"]["tab_name"] == "CAM"

    data = json.loads(page(board, "digits/clean", "digits/shortcut").body)
    assert [run["name"] for run in data["runs"]] == ["digits/clean", "digits/shortcut"] and data["same_probe"]
    for run, folder in zip(data["runs"], folders, strict=True):
        shown = next(s for s in run["series"] if s["metric"] == "on_target_enrichment")["mean"]
        recorded = [r.metrics["cam/on_target_enrichment/gradcam"] for r in RecordStore(folder)]
        np.testing.assert_allclose(shown, recorded, rtol=1e-4)
    maps = Path(f"/proc/{board.process.pid}/maps")
    if maps.exists():
        loaded = maps.read_text()
        assert "numpy" in loaded and "libtorch" not in loaded


def test_the_page_is_let_in_by_tensorboards_security_policy(board, write_run):
    write_run("clean", folder=board.logdir / "policy" / "cam")
    listed(board, "policy")
    answer = page(board, "policy", of="page")
    scripts = re.findall(r"<script>(.*?)</script>", answer.body, re.DOTALL)
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    allowed = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts]
    assert len(scripts) == 1 and allowed[0] in policy["script-src"] and "unsafe-inline" not in policy["script-src"]
    source = re.search(r'data-src="([^"]+)"', answer.body)[1].replace("&amp;", "&")
    assert json.loads(board.ask(f"/data/plugin/cam/{source}").body)["runs"][0]["name"] == "policy"
    for asset, word in (("index.js", "export async function render"), ("index.css", "color-scheme")):
        assert word in board.ask(f"/data/plugin/cam/{asset}").body


def test_it_follows_a_training(board, write_run):
    folder = write_run("live", epochs=3, folder=board.logdir / "live" / "cam")
    before = listed(board, "live")["live"]
    first = page(board, "live")
    assert page(board, "live", **{"If-None-Match": first.headers["ETag"]}).code == 304

    further = RecordStore(write_run("further", epochs=8))
    for look in (3, 4):
        RecordStore(folder).write(further.read(look))
    second = page(board, "live", **{"If-None-Match": first.headers["ETag"]})
    after = listed(board, "live")["live"]
    assert (before["looks"], after["looks"]) == (3, 5) and before["version"] != after["version"]
    assert json.loads(first.body)["places"] == [0, 1, 2]
    assert second.code == 200 and json.loads(second.body)["places"] == [0, 1, 2, 3, 4]

    RecordStore(folder).annotate(4, {"val_f1": 0.25})  # comes after the look itself
    third = page(board, "live", **{"If-None-Match": second.headers["ETag"]})
    (curve,) = [s["mean"] for s in json.loads(third.body)["runs"][0]["series"] if s["metric"] == "val_f1"]
    assert curve == [None, None, None, None, 0.25]

    shutil.rmtree(folder)  # the user cleans up; what remains is still served
    assert page(board, "live").code == 404
    assert listed(board)


def test_a_broken_folder_does_no_harm(board, write_run):
    good = write_run("good", folder=board.logdir / "broken" / "good" / "cam")
    write_run("empty", epochs=0, folder=board.logdir / "broken" / "empty" / "cam")
    half = write_run("half", epochs=2, folder=board.logdir / "broken" / "half" / "cam")
    RecordStore(half).path(1).write_bytes(b"PK\x03\x04 half of it")
    for name, manifest in (("damaged", "{not json"), ("list", "[]"), ("newer", '{"schema": 99}')):
        shutil.copytree(good, board.logdir / "broken" / name / "cam")
        (board.logdir / "broken" / name / "cam" / "manifest.json").write_text(manifest)
    names = ["broken/good", "broken/half", *(f"broken/{name}" for name in ("empty", "damaged", "list", "newer"))]
    runs = listed(board, *names)

    assert "no look yet" in runs["broken/empty"]["problem"]
    for name in ("damaged", "list", "newer"):
        assert runs[f"broken/{name}"]["problem"].startswith("manifest.json"), runs[f"broken/{name}"]
        assert page(board, f"broken/{name}").code == 404
    data = json.loads(page(board, *names).body)
    assert [run["name"] for run in data["runs"]] == ["broken/good", "broken/half"]
    assert len([note for note in data["notes"] if note.startswith("Left out: broken/")]) == 4
    assert any("look 1 is left out" in note for note in data["notes"])


def test_hostile_names_are_text(board, write_run):
    name = "<script>alert(1)</script> & \"quoted\" 'x' 😀 " + "y" * 150
    write_run(name, folder=board.logdir / name.replace("/", "_") / "cam")
    listed(board, name.replace("/", "_"))
    answer = page(board, name.replace("/", "_"), of="page")
    assert "<script>alert" not in answer.body
    data = page(board, name.replace("/", "_"))
    assert data.headers["Content-Type"].startswith("application/json")
    assert json.loads(data.body)["runs"][0]["name"] == name.replace("/", "_")


def test_nothing_outside_the_log_folder_is_read(board, write_run, tmp_path):
    outside = write_run("secret", folder=tmp_path / "outside" / "cam")
    inside = write_run("inside", folder=board.logdir / "confined" / "cam")
    os.symlink(outside, board.logdir / "linked")
    look = RecordStore(inside).path(8)
    os.symlink(RecordStore(outside).path(0), look)
    (tmp_path / "secret.json").write_text('{"schema": 1, "user_metrics": {"secret": 1}}')
    os.symlink(tmp_path / "secret.json", inside / "look-000007.user.json")
    manifest = write_run("manifest", folder=board.logdir / "linked-manifest" / "cam") / "manifest.json"
    manifest.unlink()
    os.symlink(outside / "manifest.json", manifest)
    runs = listed(board, "confined", "linked-manifest")

    assert "linked" not in runs and runs["confined"]["looks"] == 8
    assert "is a link" in runs["linked-manifest"]["problem"]
    assert page(board, "linked-manifest").code == 404
    confined = page(board, "confined")
    assert confined.code == 200 and "secret" not in confined.body
    relative = os.path.relpath(outside, board.logdir)
    for name in (str(outside), relative, f"confined/../{relative}", "..", "", "confined\0", "linked", "/etc"):
        answer = page(board, name)
        assert answer.code == 404 and "secret" not in answer.body, name
    for path in ("../../../etc/passwd", "%2e%2e/%2e%2e/watch.py", "..%2fwatch.py", "watch.py", "index.js/../plugin.py"):
        answer = board.ask(f"/data/plugin/cam/{path}")
        assert answer.code in (301, 400, 404) or ("root:" not in answer.body and "import" not in answer.body), path


def test_the_image_tab_keeps_working(board):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(board.logdir / "images") as writer:
        writer.add_image("cam/gradcam/0", np.zeros((4, 4, 3), np.uint8), 0, dataformats="HWC")
    deadline = time.monotonic() + 60
    while not json.loads(board.ask("/data/plugins_listing").body)["images"]["enabled"]:
        assert time.monotonic() < deadline
        time.sleep(0.3)
    assert "cam/gradcam/0" in board.ask("/data/plugin/images/tags").body


def test_a_plugin_that_cannot_be_made_is_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        assert CAMLoader().load(object()) is None
    assert "no CAM tab" in caplog.text


def test_a_look_is_read_once(write_run, tmp_path, monkeypatch):
    write_run("a", folder=tmp_path / "logs" / "a" / "cam")
    watch, read = Watch(str(tmp_path / "logs")), []
    plain = RecordStore.read
    monkeypatch.setattr(RecordStore, "read", lambda store, look: read.append(look) or plain(store, look))
    watch.data(["a"])
    RecordStore(tmp_path / "logs" / "a" / "cam").write(RecordStore(tmp_path / "logs" / "a" / "cam").read(7))
    read.clear()
    watch.data(["a"])
    assert read == [7]


def test_parameters_are_read_below_the_log_folder_alone(write_run, tmp_path):
    (tmp_path / "hparams.yaml").write_text("secret: 1")
    for name in ("a", "b"):
        write_run(name, folder=tmp_path / "logs" / name / "cam", epochs=1)
    (tmp_path / "logs" / "a" / "hparams.yaml").write_text(
        "{lr: 0.1, sizes: [1, 2], nested: {deep: {x: true}}, odd: [[1], [2]]}"
    )
    os.symlink(tmp_path / "hparams.yaml", tmp_path / "logs" / "b" / "hparams.yaml")
    write_run("c", folder=tmp_path / "top", epochs=1)

    found = Watch(str(tmp_path / "logs")).runs()
    assert found["a"].run().params == {"lr": "0.1", "sizes": "[1, 2]", "nested/deep/x": "True"}
    assert found["b"].run().params == {}
    assert Watch(str(tmp_path / "top")).runs()["."].run().params == {}


def test_log_folders_as_tensorboard_takes_them(tmp_path):
    (tmp_path / "a,b").mkdir()
    assert roots(str(tmp_path / "a,b")) == {tmp_path / "a,b": ""}
    assert roots(f"one:{tmp_path}/x,{tmp_path}/y") == {tmp_path / "x": "one", tmp_path / "y": ""}
    assert roots("gs://bucket/logs") == {} and roots(None) == {} and roots("") == {}
