"""docs/viewer.md: its snippet runs, its commands are commands, its pictures are there."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch

from cam_callbacks import CAMCallback, ProbeSet
from cam_callbacks.cli import parser

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "viewer.md").read_text(encoding="utf-8")


def test_the_snippet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("boxes.json").write_text(json.dumps({"format": 1, "size": [8, 8], "images": {"1": {"boxes": [[0, 0, 4, 4]]}}}))
    scope = {"ProbeSet": ProbeSet, "CAMCallback": CAMCallback, "images": torch.zeros(2, 3, 8, 8), "labels": [0, 1]}
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], scope)
    assert scope["probe"].region_masks.sum() == 16


@pytest.mark.parametrize("command", re.findall(r"`cam-callbacks ([^`]*)`", PAGE))
def test_its_commands_are_understood(command):
    words = shlex.split(
        command.replace("compare …", "compare RUN").replace("…", "").replace("--fail-if ", "--fail-if 'val_acc < 1'")
    )
    parser().parse_args(words if len(words) > 1 else [*words, "RECORDS"])


def test_its_pictures_are_there():
    pictures = re.findall(r'\]\(([\w-]+\.png)\)|src="([\w-]+\.png)"', PAGE)
    assert len(pictures) > 6
    assert [name for name in map("".join, pictures) if not (DOCS / name).is_file()] == []
