"""docs/compare.md: its grammar is the parser's, its snippet runs."""

import re
from pathlib import Path

from cam_callbacks import CAMMonitor, ProbeSet
from cam_callbacks.compare import gate

PAGE = (Path(__file__).parents[2] / "docs" / "compare.md").read_text(encoding="utf-8")


def test_the_grammar_is_the_parsers():
    documented = re.search(r"```\n(condition .*?)```", PAGE, re.DOTALL)[1]
    assert [line.strip() for line in documented.splitlines()] == [
        line.strip() for line in re.search(r"\n\n(    condition .*?)\n\n", gate.__doc__, re.DOTALL)[1].splitlines()
    ]


def test_conditions_in_the_page_are_understood():
    conditions = re.findall(r'--fail-if "([^"]+)"', PAGE)
    assert len(conditions) == 2 and all(gate.parse_gate(condition).metrics for condition in conditions)


def test_the_snippet(cnn, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    masks = (photos > 0).any(1)
    for name in ("clean", "shortcut"):
        CAMMonitor(ProbeSet(photos, masks=masks), "gradcam", folder=f"runs/{name}/cam", run=name).look(cnn)
    scope = {}
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], scope)
    assert len(scope["frame"]) == 2 and not scope["verdict"].failed
    assert (tmp_path / "page.html").is_file()
