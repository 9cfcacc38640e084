"""docs/metrics.md lists every number as the registry describes it, and its pictures show a low and a high case."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cam_engine.metrics import descriptions

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")


def script(name):
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def pictures():
    return script("metric_pictures")


@pytest.fixture(scope="module")
def tables():
    return script("metric_table")


def test_the_table_is_that_of_the_registry(tables):
    assert tables.updated(PAGE) == PAGE, "python scripts/metric_table.py brings docs/metrics.md up to date"
    assert all(number.meaning and number.range for number in descriptions())


def test_pictures_show_a_low_and_a_high_case(pictures):
    rows = [row for group in pictures.GROUPS.values() for row in group()]
    assert {name for name, _, _ in rows} <= {number.name for number in descriptions()}
    for name, low, high in rows:
        assert low.value < high.value, name


def test_the_page_shows_the_pictures_that_the_script_draws(pictures, tmp_path):
    pictures.draw(pictures.shape(), tmp_path / "shape.png")
    shown = re.findall(r"!\[[^\]]{40,}\]\(metrics/(\w+)\.png\)", PAGE)
    assert shown == list(pictures.GROUPS)
    drawn, kept = (Image.open(folder / "shape.png").size for folder in (tmp_path, pictures.FOLDER))
    assert np.abs(np.subtract(drawn, kept)).max() <= 2  # versions of matplotlib round a title's height
