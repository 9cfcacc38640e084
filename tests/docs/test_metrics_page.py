"""docs/metrics.md lists every number, and its pictures show a low and a high case of each."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cam_engine.metrics import available_metrics

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
# The same functions on another input, and one that is 0 or 1: said in words.
IN_WORDS = {"drift_prev", "nuisance_enrichment", "nuisance_mass", "confidence_increase"}


@pytest.fixture(scope="module")
def pictures():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import metric_pictures
    finally:
        sys.path.pop(0)
    return metric_pictures


def test_every_metric_is_in_the_table():
    table = "\n".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `"))
    assert set(available_metrics()) <= set(re.findall(r"`(\w+)`", table))


def test_every_metric_has_a_low_and_a_high_case(pictures):
    rows = [row for group in pictures.GROUPS.values() for row in group()]
    assert {name for name, _, _ in rows} == set(available_metrics()) - IN_WORDS | {"max_t", "max_t_p"}
    for name, low, high in rows:
        assert low.value < high.value, name


def test_the_page_shows_the_pictures_that_the_script_draws(pictures, tmp_path):
    pictures.draw(pictures.shape(), tmp_path / "shape.png")
    shown = re.findall(r"!\[[^\]]{40,}\]\(metrics/(\w+)\.png\)", PAGE)
    assert shown == list(pictures.GROUPS)
    assert (
        np.asarray(Image.open(tmp_path / "shape.png")).shape
        == np.asarray(Image.open(pictures.FOLDER / "shape.png")).shape
    )
