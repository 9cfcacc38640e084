"""The examples in docstrings give what they say, and every number has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import cam_engine
from cam_engine import metrics
from cam_engine.methods import registry

MODULES = ["cam_engine", *(m.name for m in pkgutil.walk_packages(cam_engine.__path__, "cam_engine."))]
FUNCTIONS = {name: getattr(metrics, name) for name in metrics.__all__ if inspect.isfunction(getattr(metrics, name))}
NUMBERS = [name for name, function in FUNCTIONS.items() if function.__module__ != "cam_engine.metrics.registry"]


@pytest.fixture(autouse=True)
def as_registered(monkeypatch):
    """What an example registers is gone when it has run."""
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module(name):
    module = importlib.import_module(name)
    globs = vars(module) | {"np": importlib.import_module("numpy")}
    assert doctest.testmod(module, globs=globs).failed == 0


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_an_example_that_runs(name):
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(getattr(metrics, name)))
    assert examples and not any(doctest.SKIP in example.options for example in examples)
