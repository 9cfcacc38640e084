"""The built viewer is that of the sources beside it."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cam_callbacks.compare.markup import asset

VIEWER = Path(__file__).parents[2] / "viewer"


def test_the_assets_were_built_from_these_sources():
    digest = hashlib.sha256()
    names = sorted(f"src/{path.name}" for path in (VIEWER / "src").iterdir())
    for name in ["build.mjs", "package-lock.json", *names]:
        digest.update(f"{name}\n".encode() + (VIEWER / name).read_bytes())
    built_from = re.search(r"Built from sources (\w+)\.", asset("viewer.js"))[1]
    assert built_from == digest.hexdigest(), "viewer/ has changed: run make viewer and commit the assets"


def test_building_again_gives_the_same_assets(tmp_path):
    if not shutil.which("node") or not (VIEWER / "node_modules").is_dir():
        pytest.skip("needs Node and viewer/node_modules (make viewer)")
    subprocess.run(["node", "build.mjs", str(tmp_path)], cwd=VIEWER, check=True, timeout=60)
    for name in ("viewer.js", "viewer.css", "viewer.html"):
        assert (tmp_path / name).read_text(encoding="utf-8") == asset(name)


def test_the_chart_librarys_licence_is_in_the_script():
    assert "The MIT License" in asset("viewer.js")
    assert "Leon Sorokin" in asset("viewer.js")


def test_the_lock_file_names_no_registry():
    lock = (VIEWER / "package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in lock
    assert lock.count('"integrity"') > 20


def test_no_line_of_the_sources_is_longer_than_a_screen():
    sources = [*(VIEWER / "src").iterdir(), VIEWER / "build.mjs"]
    assert len(sources) > 10
    long = [
        f"{p.name}:{i}"
        for p in sources
        for i, line in enumerate(p.read_text("utf-8").splitlines(), 1)
        if len(line) > 132
    ]
    assert long == []
