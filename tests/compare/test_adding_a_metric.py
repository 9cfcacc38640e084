"""A metric is one pure function and one line: from there it is in the keys, the table, the page and the docs."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from cam_callbacks import CAMMonitor, ProbeSet
from cam_callbacks.compare import compare_runs
from cam_engine import metrics

ROOT = Path(__file__).parents[2]


def upper_half(maps):
    p = metrics.distributions(maps)
    return p[:, : p.shape[1] // 2].sum((1, 2))


@pytest.fixture
def toy(monkeypatch):
    registry = sys.modules["cam_engine.metrics.registry"]
    monkeypatch.setattr(registry, "_METRICS", dict(registry._METRICS))
    metrics.register_metric(
        "upper_half",
        upper_half,
        worse="low",
        verdict=True,
        neutral=0.5,
        range="0–1",
        meaning="Focus on the upper half.",
    )


@pytest.mark.usefixtures("toy")
def test_a_new_metric_is_measured_compared_drawn_and_documented(cnn, photos, tmp_path, monkeypatch):
    monitor = CAMMonitor(ProbeSet(photos), "gradcam", "stage1", metrics="upper_half", folder=tmp_path, run="toy")
    assert monitor.neutral()["cam/upper_half/gradcam"] == 0.5
    record = monitor.look(cnn)
    expected = np.nanmean(upper_half(record.maps["gradcam", "stage1"]))
    assert record.metrics["cam/upper_half/gradcam"] == pytest.approx(expected)

    comparison = compare_runs(tmp_path)
    assert "upper half ↑" in comparison.text()
    shown = comparison.data["numbers"]["upper_half"]
    assert (shown["meaning"], shown["better"], shown["curve"]) == ("Focus on the upper half.", "higher", True)
    assert any(series["metric"] == "upper_half" for series in comparison.data["runs"][0]["series"])

    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    updated = importlib.import_module("metric_table").updated(page)
    assert updated != page  # tests/docs/test_metrics_page.py asks for the new row
    assert "| `upper_half` | asked for | 0–1 | low | Focus on the upper half. |" in updated
