"""docs/methods.md lists every method, and its snippet runs."""

import re
from pathlib import Path

from cam_engine import available_methods
from cam_engine.methods import registry

PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")


def test_every_method_has_a_row_in_order():
    rows = re.findall(r"^\| `([^`]+)` \|(.*)$", PAGE, re.MULTILINE)
    assert [name for name, _ in rows] == available_methods()
    for name, row in rows:
        columns = re.split(r"(?<!\\)\|", row)
        assert len(columns) == 7 and all(c.strip() for c in columns[:6]), name


def test_the_cost_column_is_true_to_the_registry():
    for name, row in re.findall(r"^\| `([^`]+)` \|(.*)$", PAGE, re.MULTILINE):
        needs = registry._METHODS[name].needs
        assert ("stops at the layer" in row) == (not needs - {"generator", "images"}), name


def test_the_snippet(cnn, photos):
    snippet = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    scope = {"model": cnn, "images": photos}
    try:
        exec(snippet, scope)
    finally:
        registry._METHODS.pop("gradient norm", None)
    assert scope["heat"].shape == (8, 48, 48) and scope["heat"].max() == 1
