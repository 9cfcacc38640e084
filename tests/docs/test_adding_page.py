"""The snippets of docs/adding.md and docs/record_format.md run, one after the other."""

import re
import sys
from pathlib import Path

import pytest

from cam_callbacks import RecordStore
from cam_callbacks.loggers.registry import _SINKS
from cam_engine.methods import registry

ROOT = Path(__file__).parents[2]


@pytest.fixture
def as_registered(monkeypatch):
    """What a page registers is gone after it."""
    numbers = sys.modules["cam_engine.metrics.registry"]
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    monkeypatch.setattr(numbers, "_METRICS", dict(numbers._METRICS))
    yield
    _SINKS.pop("folder", None)


def snippets(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.usefixtures("as_registered")
def test_adding(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope = {"__name__": "adding"}
    for number, snippet in enumerate(snippets("adding.md")):
        exec(compile(snippet, f"docs/adding.md, snippet {number}", "exec"), scope)
    assert scope["heat"].shape == (12, 32, 32) and scope["heat"].max() == 1
    assert "crowded" in capsys.readouterr().out and scope["record"].metrics["cam/alert/crowded"] == 1
    (record,) = RecordStore("looks")
    assert record.step == 10 and record.user_metrics == {"loss": 0.7}


def test_record_format(monkeypatch):
    monkeypatch.chdir(ROOT)
    scope = {}
    for snippet in snippets("record_format.md"):
        exec(snippet, scope)
    first = scope["store"][0]
    assert (scope["maps"]["gradcam", "features"] == first.maps["gradcam", "features"]).all()
    assert scope["header"]["metrics"].keys() == first.metrics.keys()
    page = (ROOT / "docs" / "record_format.md").read_text(encoding="utf-8")
    assert {*scope["header"], *scope["store"].manifest} <= set(re.findall(r"`(\w+)`", page)) | {
        "maps",
        "per_image",
        "t_maps",
        "exchanged",
    }
