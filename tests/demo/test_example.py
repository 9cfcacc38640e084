"""The example in examples/ runs as it is written."""

import subprocess
import sys
from pathlib import Path

from cam_callbacks import RecordStore

SCRIPT = Path(__file__).parents[2] / "examples" / "planted_shortcut.py"


def test_planted_shortcut(tmp_path):
    command = [sys.executable, SCRIPT, "--epochs", "1", "--train-images", "128", "--folder", tmp_path / "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "Comparison page" in done.stdout
    assert (tmp_path / "out" / "compare.html").is_file()
    assert all(len(RecordStore(path)) == 1 for path in (tmp_path / "out" / "tensorboard").glob("*/*/cam"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
