"""Records of every version of the format are read to the numbers that they were written with (docs/record_format.md)."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from cam_callbacks import RecordStore
from cam_callbacks.compare import compare_runs
from cam_callbacks.records.files import SCHEMA

ROOT = Path(__file__).parents[2]
KEPT = sorted((ROOT / "tests" / "data" / "records").iterdir(), key=lambda folder: int(folder.name))


def same(read, written):
    """Equal, NaN being written as null."""
    assert read.keys() == written.keys()
    for key, value in written.items():
        assert math.isnan(read[key]) if value is None else read[key] == pytest.approx(value, rel=1e-12), key


def test_records_of_every_version_are_kept_and_the_docs_list_it():
    assert [int(folder.name) for folder in KEPT] == list(range(1, SCHEMA + 1))
    page = (ROOT / "docs" / "record_format.md").read_text(encoding="utf-8")
    assert [int(number) for number in re.findall(r"^\| (\d+) \| \d", page, re.MULTILINE)] == list(range(1, SCHEMA + 1))


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_they_are_read_to_what_was_written(folder, tmp_path):
    store, expected = RecordStore(folder), json.loads((folder / "expected.json").read_text())
    assert store.manifest["schema"] == int(folder.name) and len(store) == len(expected) == 3
    assert store.probe["pictures"].shape == (9, 16, 16, 3) and store.probe["nuisance"].sum() == 81
    for record, written in zip(store, expected, strict=True):
        same(record.metrics, written["metrics"])
        same(record.user_metrics, written["user_metrics"])
        for key, total in written["maps"].items():
            np.testing.assert_allclose(record.maps[tuple(key.split("/"))].sum(), total, rtol=1e-6)
        assert record.predictions.tolist() == written["predictions"]
        assert [alert.name for alert in record.alerts] == written["alerts"]
        assert [[j.rule, j.method, j.state] for j in record.judged] == written["judged"]
        assert {part: int(classes.sum()) for part, classes in record.exchanged.items()} == written["exchanged"]
        assert {of: found["look"] for of, found in record.reference.items()} == written["reference"]
    page = compare_runs(folder).write(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "on_target_enrichment" in page
