"""The examples that need no other library run as they are written. (tests/models runs the others.)"""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_gradcampp_class(tmp_path):
    command = [sys.executable, EXAMPLES / "gradcampp_class.py", "--folder", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "heatmaps (2, 427, 640)" in done.stdout and "difference from gradcam++: 0.000" in done.stdout
    assert (tmp_path / "out" / "compared" / "methods.png").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
