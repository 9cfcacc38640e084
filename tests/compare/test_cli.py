import json
import os
import subprocess
import sys
import types

import pytest

from cam_callbacks import __version__
from cam_callbacks.cli import main
from cam_callbacks.records import RecordStore
from cam_engine.metrics import jensen_shannon


def test_compare_prints_a_table_and_writes_the_page(write_run, tmp_path, capsys):
    page = tmp_path / "out" / "page.html"
    assert main(["compare", str(write_run("clean")), str(write_run("shortcut", "nuisance")), "-o", str(page)]) == 0
    out = capsys.readouterr().out
    assert "on-target enrichment ↑" in out
    assert out.rstrip().endswith(str(page))
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_compare_as_a_process(write_run, tmp_path):
    command = [sys.executable, "-m", "cam_callbacks.cli", "compare", str(write_run("a", epochs=2)), "-o", "page.html"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page.html").is_file()


def test_a_reader_that_stops_early_costs_no_page(write_run, tmp_path):
    page = tmp_path / "page.html"
    read, written = os.pipe()
    os.close(read)  # as `| head` does when it has seen enough
    command = [sys.executable, "-m", "cam_callbacks.cli", "compare", str(write_run("clean")), "-o", str(page)]
    done = subprocess.run(command, stdout=written, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(written)
    assert page.stat().st_size > 10_000
    assert (done.returncode, done.stderr) == (141, "")


def test_a_mistake_is_one_line_and_exit_code_2(write_run, tmp_path, capsys):
    good = str(write_run("clean", epochs=1))
    mistakes = {
        ("compare", "nowhere"): "no folder 'nowhere'",
        ("compare", "0" * 32, "--tracking-uri", f"sqlite:///{tmp_path}/none.db"): "no MLflow database",
        ("compare", str(write_run("empty", epochs=0))): "no look yet",
        ("compare", good, "-o", str(tmp_path)): "is a folder",
    }
    for arguments, words in mistakes.items():
        assert main(list(arguments)) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.startswith("cam-callbacks: ")
        assert error.count("\n") == 1


def test_wrong_arguments(capsys):
    assert main([]) == 2
    assert main(["compare"]) == 2
    assert main(["demo", "--epochs", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"cam-callbacks {__version__}"
    assert main(["compare", "--help"]) == 0
    assert "an MLflow run id" in " ".join(capsys.readouterr().out.split())


@pytest.fixture
def demo(monkeypatch):
    module = types.ModuleType("cam_callbacks.demo.main")
    monkeypatch.setitem(sys.modules, "cam_callbacks.demo.main", module)
    return module


def test_demo_hands_its_options_on(demo, tmp_path):
    asked = []
    demo.run = lambda folder, **options: asked.append((folder, options)) or 3
    assert main(["demo", "--folder", str(tmp_path), "--epochs", "2", "--seed", "5"]) == 3
    assert asked == [(tmp_path, {"epochs": 2, "seed": 5})]


def test_an_interrupt_ends_quietly(demo, capsys):
    def run(*_, **__):
        raise KeyboardInterrupt

    demo.run = run
    assert main(["demo"]) == 130
    assert "interrupted" in capsys.readouterr().err


def run_json(capsys, *arguments):
    code = main(["compare", *map(str, arguments), "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out), captured.err


def test_json_prints_the_numbers_and_writes_no_page(write_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clean, shortcut = write_run("clean"), write_run("shortcut", "nuisance", nan=(7,))
    code, found, _ = run_json(capsys, clean, shortcut)

    assert code == 0 and not list(tmp_path.glob("*.html"))
    assert [run["name"] for run in found["runs"]] == ["clean", "shortcut"] and found["comparable"]
    numbers = {row["metric"]: row["runs"] for row in found["numbers"]}
    last = RecordStore(clean)[-1].metrics
    assert numbers["on_target_enrichment"]["clean"]["final"] == last["cam/on_target_enrichment/gradcam"]
    assert numbers["drift_ref"]["shortcut"]["final"] is None
    maps = [RecordStore(folder)[-1].maps["gradcam", "layer4"] for folder in (clean, shortcut)]
    assert found["divergence"][0]["jsd"][0][1] == pytest.approx(jensen_shannon(*maps).mean(), rel=1e-4)


def test_a_gate_decides_the_exit_code(write_run, tmp_path, capsys):
    runs = [str(write_run("clean")), str(write_run("shortcut", "nuisance"))]
    page = ["-o", str(tmp_path / "page.html")]
    gate = "on_target_enrichment/gradcam < baseline - 0.2"

    assert main(["compare", *runs, *page, "--fail-if", gate]) == 1
    assert "FAILED shortcut: on_target_enrichment/gradcam < baseline - 0.2" in capsys.readouterr().out
    assert main(["compare", *runs[::-1], *page, "--fail-if", gate, "--fail-if", "val_acc < 0.5"]) == 0
    assert capsys.readouterr().out.count("passed ") == 3
    code, found, _ = run_json(capsys, *runs, "--fail-if", gate)
    assert code == 1 and found["gates"][0]["failed"] is True
    assert main(["compare", *runs, *page, "--fail-if", "nonsense"]) == 2


def test_strict_is_an_error_where_runs_differ(write_run, tmp_path, capsys):
    a, b, c = (str(write_run(name, **more)) for name, more in (("a", {}), ("b", {}), ("c", {"layers": ["blocks.11"]})))
    page = ["-o", str(tmp_path / "page.html")]
    assert main(["compare", a, b, "--strict", *page]) == 0
    assert main(["compare", a, c, *page]) == 0
    (tmp_path / "page.html").unlink()
    capsys.readouterr()
    assert main(["compare", a, c, "--strict", *page]) == 1
    assert "not comparable: gradcam on layer4 is not in 'c'" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_a_log_folder_stands_for_its_runs_and_last_for_the_newest(write_hparams, tmp_path, capsys):
    for number in range(4):
        folder = write_hparams(f"v{number}", 0.5, lr=number)
        os.utime(folder, (10**9 + number, 10**9 + number))
    code, found, _ = run_json(capsys, tmp_path / "logs")
    assert code == 0 and [run["name"] for run in found["runs"]] == ["v0", "v1", "v2", "v3"]
    assert found["runs"][3]["params"] == {"lr": "3"}
    assert [run["name"] for run in run_json(capsys, tmp_path / "logs", "--last", 2)[1]["runs"]] == ["v2", "v3"]
    assert main(["compare", str(tmp_path / "logs"), "--last", "0"]) == 2
    assert main(["compare", str(tmp_path / "logs"), "--query", "x"]) == 2


def test_runs_that_cannot_be_read_are_a_line_each_and_the_rest_works(write_run, tmp_path, capsys):
    empty, damaged, half = write_run("empty", epochs=0), write_run("damaged", epochs=1), write_run("half", epochs=3)
    newer = write_run("newer")
    RecordStore(damaged).path(0).write_bytes(b"PK")
    (newer / "manifest.json").write_text('{"schema": 99}')
    RecordStore(half).path(2).write_bytes(RecordStore(half).path(2).read_bytes()[:500])  # copied while it was written
    (half / ".look-000003.npz.123.tmp").write_bytes(b"x")  # a look on its way
    runs = [str(write_run("good")), *map(str, (empty, damaged, newer, half)), str(write_run("short", epochs=2))]

    assert main(["compare", *runs, "-o", str(tmp_path / "page.html")]) == 0
    lines = capsys.readouterr().out.splitlines()
    said = [line for line in lines if line.startswith("! ")]
    for words in (
        "has no look yet",
        "none of the 1 looks",
        "schema 99",
        "'half': look 2 is left out",
        "end at different",
    ):
        assert len([line for line in said if words in line]) == 1, words
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Left out: " in page and "has no look yet" in page
    assert main(["compare", *runs, "-o", str(tmp_path / "page.html"), "--fail-if", "entropy/gradcam > 2"]) == 1
    assert "FAILED could not be judged" in capsys.readouterr().out
    assert main(["compare", *runs, "--strict"]) == 1


def test_a_report_on_one_run(write_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(write_run("only"))]) == 0
    assert "on-target enrichment" in capsys.readouterr().out
    assert (tmp_path / "cam_report.html").is_file()
    assert main(["report", str(write_run("only")), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["name"] == "only"
    assert main(["report", str(write_run("empty", epochs=0))]) == 2


def test_a_run_of_a_thousand_looks(write_run, tmp_path, capsys):
    folder = write_run("long", epochs=1000)
    assert main(["compare", str(folder), str(write_run("short")), "-o", str(tmp_path / "page.html")]) == 0
    assert "val_acc" in capsys.readouterr().out
    assert (tmp_path / "page.html").stat().st_size < 15_000_000
