"""The benchmarks of ``make bench`` run, in their quick form, and say what they measured: no change breaks one unseen."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pytorch_grad_cam", reason="make test-peers runs this in .venv-peers")

pytestmark = [pytest.mark.peers, pytest.mark.timeout(600)]

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ROWS = ("bare", "eigen-exact", "stop", "metrics", "import")  # the others call the same, for longer


def quick(script: str, *options: str) -> str:
    command = [sys.executable, str(BENCHMARKS / script), "--quick", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_engine(row):
    said = quick("engine.py", f"--rows=^{row}$", "--threads=1")
    lines = said.rpartition("-----")[2].partition("\n\n")[0].splitlines()[1:]
    assert lines and all(re.search(r"\d", line) for line in lines)
    assert re.search(r"^\d+ of \d+ bars missed", said, re.MULTILINE)


def test_whole_trainings():
    said = quick("watching.py", "--threads=1", "--only", "both", "both-without-exchange")
    rows = re.findall(r"^(bare|both|both-without-exchange) +\d+\.\d s ", said, re.MULTILINE)
    assert rows == ["bare", "both", "both-without-exchange"]
    assert "processor time a look adds" not in said  # which takes rows that were not asked for
    assert re.search(r"^end of fit, both loggers +\d+\.\d+ s +≤ 2 s", said, re.MULTILINE)


def test_the_parts_of_a_look():
    parts = re.findall(r"^(.+?) +(\d+) ms$", quick("parts.py"), re.MULTILINE)
    assert len(parts) == 7 and all(int(milliseconds) > 0 for _, milliseconds in parts)


def test_growth():
    said = quick("growth.py")
    assert said.count("≤") == 4 and "images [[16, " in said
