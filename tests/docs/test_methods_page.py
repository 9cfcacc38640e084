"""docs/methods.md lists every method, and its snippet runs."""

import re
from pathlib import Path

from cam_engine import available_methods, register
from cam_engine.methods import get_method, registry
from cam_engine.methods.needs import NEEDS

PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")


def rows() -> dict[str, list[str]]:
    """The table's columns behind each method's name."""
    found = re.findall(r"^\| `([^`]+)` \|(.*)\|$", PAGE, re.MULTILINE)
    return {name: [column.strip() for column in re.split(r"(?<!\\)\|", row)] for name, row in found}


def test_every_method_has_a_row_in_order():
    assert list(rows()) == available_methods()
    for name, columns in rows().items():
        assert len(columns) == 6 and all(columns), name


def test_a_new_method_is_missed():
    register("brand new")(lambda activations: activations)
    try:
        assert set(available_methods()) - rows().keys() == {"brand new"}
    finally:
        registry._METHODS.pop("brand new")


def test_the_cost_column_is_true_to_the_registry():
    for name, (_, cost, *_) in rows().items():
        method = get_method(name)
        needs = [NEEDS[need] for need in method.needs - {"gradients"}]  # the one gradient call is all methods' own
        assert ("stops at the layer" in cost) == (not method.explains_score), name
        assert ("a forward" in cost) == any(need.variants for need in needs), name
        assert ("one forward" in cost) == (sum(need.forwards for need in needs) == 1), name
        assert ("four forwards" in cost) == (sum(need.forwards for need in needs) == 4), name
        assert ("gradient call" in cost) == any(need.gradient_calls for need in needs), name
        costless = not any(need.reruns or need.gradient_calls for need in needs)
        assert (cost == "none") == (costless and method.explains_score), name


def test_the_snippet(cnn, photos):
    snippet = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    scope = {"model": cnn, "images": photos}
    try:
        exec(snippet, scope)
    finally:
        registry._METHODS.pop("gradient norm", None)
    assert scope["heat"].shape == (8, 48, 48) and scope["heat"].max() == 1
