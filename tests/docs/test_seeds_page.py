"""docs/seeds.md: every test and example that it names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "seeds.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (?P<there>.+) \| (?P<here>.+) \| (?P<test>.*) \|$", re.MULTILINE)
NAMED = re.compile(r"(?P<file>[\w/]+\.py)|::(?P<test>\w+)")


def named_tests(cell):
    """(file, test or None) of each reference in a cell; ``::test`` alone belongs to the file before it."""
    file, alone = None, False
    for match in NAMED.finditer(cell):
        if match["file"]:
            if alone:
                yield file, None
            file, alone = match["file"], True
        else:
            yield file, match["test"]
            alone = False
    if alone:
        yield file, None


def test_every_named_test_exists():
    features = PAGE.split("## Done differently")[0]
    rows = [row for row in ROW.finditer(features) if row["there"] not in ("there", "---")]
    assert len(rows) > 50
    for row in rows:
        found = list(named_tests(row["test"]))
        assert found or row["here"].startswith("not done"), f"no test shows {row['there']!r}"
        for file, test in found:
            path = ROOT / "tests" / file.removeprefix("tests/")
            assert path.is_file(), row["test"]
            assert test is None or re.search(rf"^def {test}\(", path.read_text(encoding="utf-8"), re.MULTILINE), test


def test_every_example_named_exists_and_is_run_by_a_test():
    examples = set(re.findall(r"`examples/(\w+)\.py`", PAGE))
    assert len(examples) == 4
    run = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for name in examples:
        assert (ROOT / "examples" / f"{name}.py").is_file() and name in run
