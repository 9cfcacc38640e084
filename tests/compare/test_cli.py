import subprocess
import sys
import types

import pytest

from cam_callbacks import __version__
from cam_callbacks.cli import main


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
    assert "MLflow run id" in capsys.readouterr().out


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
