"""What the packages import is declared, and the version is written once."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import cam_callbacks
import cam_engine

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# Where a package is imported as something else.
DISTRIBUTIONS = {"PIL": "pillow", "cv2": "opencv-python", "sklearn": "scikit-learn", "yaml": "pyyaml"}
# Imported only for a user who has it: its own objects come in, or a file of its own is read.
BROUGHT_BY_THE_USER = {"lightning", "transformers", "safetensors", "timm", "torchvision", "ultralytics"}


def imported() -> set[str]:
    """Names of the packages that any file of ours imports, anywhere in it."""
    names = set()
    for package in (cam_engine, cam_callbacks):
        for file in Path(package.__file__).parent.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names.add(node.module)
    ours = {"cam_engine", "cam_callbacks"}
    return {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - ours


def test_every_package_that_is_imported_is_declared():
    extras = PROJECT["project"]["optional-dependencies"]
    declared = [*PROJECT["project"]["dependencies"], *extras["demo"], *extras["wandb"]]
    names = {re.match(r"[\w-]+", line)[0].lower() for line in declared}
    found = {DISTRIBUTIONS.get(name, name).lower().replace("_", "-") for name in imported()}
    assert {"torch", "werkzeug", "pandas", "pyyaml"} <= found
    assert found - BROUGHT_BY_THE_USER <= names


def test_the_version_is_written_once():
    assert cam_callbacks.__version__ == cam_engine.__version__
    assert "version" not in PROJECT["project"] and "version" in PROJECT["project"]["dynamic"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "cam_engine.__version__"}
