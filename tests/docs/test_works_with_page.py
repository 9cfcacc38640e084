"""docs/works_with.md: a row and a picture for each training that the tests run, and nothing else."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "works_with.md").read_text(encoding="utf-8")
TESTS = sorted((ROOT / "tests" / "models").glob("test_works_with_*.py"))


def rows():
    """Library, task, arguments and picture of each ``row(…)`` in the tests."""
    for path in TESTS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "row":
                library, task, arguments, _, picture = (getattr(arg, "value", None) for arg in node.args[:5])
                yield library, task, arguments or "none", f"{picture}.jpg"


def test_each_training_of_the_tests_has_its_row_and_its_picture():
    tested = list(rows())
    assert len(tested) > 15
    lines = PAGE.splitlines()
    for library, task, arguments, picture in tested:
        assert f"| {library} | {task} | {arguments} |" in lines
        assert f"(works_with/{picture})" in PAGE
    kept = {path.name: path.stat().st_size for path in (ROOT / "docs" / "works_with").iterdir()}
    assert set(kept) == {picture for *_, picture in tested} and max(kept.values()) < 80_000
    assert len(re.findall(r"^\| (?!library|---)", PAGE, re.MULTILINE)) == len(tested)
