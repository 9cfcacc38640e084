"""What importing a part of the packages brings along: readers of records do without torch. No two files import each other."""

import ast
import subprocess
import sys
from pathlib import Path

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
    ["loading", "layers", "explanation", "explanation.reading", "explanation.detectors", "explanation.auto_save"],
)
def test_a_module_can_be_imported_first(module):
    assert imported(f"import cam_engine.{module}") == ["torch"]


# --- arrows point one way ---

ROOT = Path(cam_engine.__file__).parents[1]


def module_files(root: Path, *packages: str) -> dict[str, Path]:
    """Every file of the packages by its dotted name; a package's ``__init__`` by that of the package."""
    files = [path for package in packages for path in sorted((root / package).rglob("*.py"))]
    parts = {path: path.relative_to(root).with_suffix("").parts for path in files}
    return {".".join(p[:-1] if p[-1] == "__init__" else p): path for path, p in parts.items()}


def imports_of(name: str, files: dict[str, Path]) -> set[str]:
    """The other files that a file imports, wherever in it: at the top, in a function or under TYPE_CHECKING."""
    package = name.split(".") if files[name].name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(files[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            inner = {alias.name: f"{source}.{alias.name}" for alias in node.names}
            found |= {inner[n] if inner[n] in files else source for n in inner}
    return {other for other in found if other in files and other != name}


def circles(imports: dict[str, set[str]]) -> dict[frozenset[str], list[str]]:
    """Files that import each other, directly or through others: each such group, with a shortest way round it."""
    found: dict[frozenset[str], list[str]] = {}
    for start in imports:
        ways = {start: [start]}  # breadth first: a shortest way to each file
        queue = [start]
        for name in queue:
            for other in sorted(imports[name]):
                if other == start:
                    way = [*ways[name], start]
                    if not any(set(way) <= group for group in found):
                        found[frozenset(way)] = way
                elif other not in ways:
                    ways[other] = [*ways[name], other]
                    queue.append(other)
    return found


def test_no_two_files_import_each_other():
    files = module_files(ROOT, "cam_engine", "cam_callbacks")
    found = circles({name: imports_of(name, files) for name in files})
    assert not found, f"these files import each other: {'; '.join(' → '.join(way) for way in found.values())}"


def test_the_engine_knows_nothing_of_the_callbacks():
    files = module_files(ROOT, "cam_engine", "cam_callbacks")
    engine = [name for name in files if name.split(".")[0] == "cam_engine"]
    assert len(engine) > 50
    found = {name: sorted(n for n in imports_of(name, files) if n.startswith("cam_callbacks")) for name in engine}
    assert {name: others for name, others in found.items() if others} == {}


def test_a_circle_is_found_wherever_the_imports_stand(tmp_path):
    package = tmp_path / "house"
    package.mkdir()
    (package / "__init__.py").write_text("from .roof import roof")
    (package / "roof.py").write_text("def roof():\n    from house import wall\n    return wall")
    (package / "wall.py").write_text("if TYPE_CHECKING:\n    from .floor import Floor")
    (package / "floor.py").write_text("import torch\nimport house.roof")
    (package / "garden.py").write_text("from house.wall import wall")
    files = module_files(tmp_path, "house")
    assert sorted(files) == ["house", "house.floor", "house.garden", "house.roof", "house.wall"]
    (way,) = circles({name: imports_of(name, files) for name in files}).values()
    assert way == ["house.floor", "house.roof", "house.wall", "house.floor"]
