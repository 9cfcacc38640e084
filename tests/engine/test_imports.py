"""What importing a part of the packages brings along: readers of records do without torch."""

import subprocess
import sys

import pytest

import cam_callbacks
import cam_engine

HEAVY = ("torch", "lightning", "pytorch_lightning", "mlflow", "tensorboard", "pandas")


def imported(code: str) -> list[str]:
    """Which heavy packages a fresh interpreter has imported after this code."""
    code = f"{code}\nimport sys; print(*[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize(
    "code", ["import cam_engine.metrics, cam_engine.render", "import cam_callbacks.compare, cam_callbacks.cli"]
)
def test_records_are_read_and_drawn_without_torch(code):
    assert imported(code) == []


def test_the_test_is_not_blind():
    assert "torch" in imported("from cam_engine import CAM")


@pytest.mark.parametrize("package", [cam_engine, cam_callbacks])
def test_every_public_name_is_there_and_listed(package):
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="no_such_name"):
        package.no_such_name  # noqa: B018


def test_a_function_is_not_hidden_by_a_module_imported_first():
    code = "import cam_engine.explanation.auto_save, cam_engine.loading; from cam_engine import explain, autosave"
    assert imported(f"{code}\nassert callable(explain) and callable(autosave)") == ["torch"]


def test_subpackages_are_attributes():
    assert imported("import cam_engine; cam_engine.metrics.entropy, cam_engine.targets.ClassTarget") == ["torch"]


@pytest.mark.parametrize(
    "module",
    ["loading", "names", "explanation", "explanation.reading", "explanation.detectors", "explanation.auto_save"],
)
def test_a_module_can_be_imported_first(module):
    assert imported(f"import cam_engine.{module}") == ["torch"]
