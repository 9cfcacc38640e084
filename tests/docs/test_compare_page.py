"""docs/compare.md: its grammar is the parser's, its examples run."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from cam_callbacks import CAMMonitor, ProbeSet
from cam_callbacks.cli import main
from cam_callbacks.compare import gate

PAGE = (Path(__file__).parents[2] / "docs" / "compare.md").read_text(encoding="utf-8")


def test_the_grammar_is_the_parsers():
    documented = re.search(r"```\n(condition .*?)```", PAGE, re.DOTALL)[1]
    assert [line.strip() for line in documented.splitlines()] == [
        line.strip() for line in re.search(r"\n\n(    condition .*?)\n\n", gate.__doc__, re.DOTALL)[1].splitlines()
    ]


@pytest.mark.parametrize(("accuracy", "code"), [(0.95, 0), (0.85, 1)])
def test_the_gates_example_runs(cnn, photos, tmp_path, monkeypatch, capsys, accuracy, code):
    monkeypatch.chdir(tmp_path)
    probe = ProbeSet(photos, labels=[i % 5 for i in range(len(photos))], masks=(photos > 0).any(1))
    for run in ("baseline", "candidate"):
        monitor = CAMMonitor(probe, "gradcam", "stage1", folder=f"{run}/cam", run=run)
        record = monitor.look(cnn)
        monitor.store.write(replace(record, user_metrics={"val_acc": accuracy}))
        assert record.aggregates["entropy/gradcam"]["worst_class"] < 0.95

    block = re.search(r"## Gates\n\n```sh\n(.*?)```", PAGE, re.DOTALL)[1]
    _, *arguments = shlex.split(block.replace("\\\n", " "))
    assert arguments.count("--fail-if") == 2 and main(arguments) == code
    assert capsys.readouterr().out.count("FAILED") == 2 * code  # both runs are below the bar of val_acc


def test_the_snippet(cnn, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    masks = (photos > 0).any(1)
    for name in ("clean", "shortcut"):
        CAMMonitor(ProbeSet(photos, masks=masks), "gradcam", folder=f"runs/{name}/cam", run=name).look(cnn)
    scope = {}
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], scope)
    assert len(scope["frame"]) == 2 and not scope["verdict"].failed
    assert (tmp_path / "page.html").is_file()
