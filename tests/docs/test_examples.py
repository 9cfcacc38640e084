"""Every public name has an example in its docstring, and examples give what they say."""

import doctest
import importlib
import pkgutil

import pytest
from docstring_examples import ELSEWHERE, public, run
from wandb_files import OFFLINE

import cam_callbacks
import cam_engine
from cam_callbacks.loggers import registry as sinks
from cam_engine.detect import families
from cam_engine.exchange import parts
from cam_engine.methods import registry as methods
from cam_engine.metrics import registry as metrics

PUBLIC = public()
MODULES = [
    module.name
    for package in (cam_engine, cam_callbacks)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if module.name not in ELSEWHERE and not module.name.endswith("__main__")
]
LISTS = {
    sinks: ["_SINKS"],
    families: ["FAMILIES"],
    parts: ["_PARTS"],
    methods: ["_METHODS"],
    metrics: ["_METRICS", "_OTHERS"],
}


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """What an example writes or registers is gone when it has run."""
    monkeypatch.chdir(tmp_path)
    for name, value in OFFLINE.items():  # W&B reads them once in a process
        monkeypatch.setenv(name, value)
    for module, names in LISTS.items():
        for name in names:
            monkeypatch.setattr(module, name, getattr(module, name).copy())


@pytest.mark.parametrize(("package", "name"), PUBLIC)
def test_every_public_name_has_an_example_that_runs(package, name):
    run(package, name)


def test_the_packages_offer_what_has_examples():
    for package in (cam_engine, cam_callbacks):
        assert {(package.__name__, name) for name in package.__all__} <= set(PUBLIC)


def test_the_examples_of_what_is_not_public():
    public_ones = {id(getattr(importlib.import_module(package), name)) for package, name in PUBLIC}
    runner = doctest.DocTestRunner()
    for module in map(importlib.import_module, MODULES):
        names = vars(module) | {"np": importlib.import_module("numpy")}
        for test in doctest.DocTestFinder().find(module, globs=names):
            if id(getattr(module, test.name.rpartition(".")[2], None)) not in public_ones:
                runner.run(test)
    assert runner.tries and not runner.failures
