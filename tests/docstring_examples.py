"""The examples of public names, run on what the site shows above them (scripts/example_setup.py)."""

import doctest
import importlib
import inspect
import sys
from pathlib import Path

before = list(sys.path)  # tests/models has a works_with too
sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
site, shared = (importlib.import_module(name) for name in ("site_pages", "example_setup"))
sys.path[:] = before

# Their libraries are in .venv-peers alone: tests/models/test_examples.py runs these.
ELSEWHERE = ("cam_callbacks.transformers", "cam_callbacks.ultralytics")


def public() -> list[tuple[str, str]]:
    """Package and name of every class and function that the reference has, but for ELSEWHERE's."""
    return [
        (package, name)
        for package, (_, names) in site.packages().items()
        for name in names
        if package not in ELSEWHERE and _has_a_docstring(getattr(importlib.import_module(package), name))
    ]


def run(package: str, name: str) -> None:
    """Run the examples of a public name, which has some and leaves none out."""
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(getattr(importlib.import_module(package), name)))
    assert examples and not any(doctest.SKIP in example.options for example in examples)
    names = {"__name__": "example"}
    exec(f"from {package} import {name}\n{shared.setup(package)}", names)
    test = doctest.DocTest(examples, names, f"{package}.{name}", None, None, None)
    assert doctest.DocTestRunner().run(test).failed == 0


def _has_a_docstring(thing: object) -> bool:
    """Constants and aliases of types have none of their own."""
    return inspect.isfunction(thing) or (inspect.isclass(thing) and thing.__module__.startswith("cam_"))
