"""Trainings on several processes, run as scripts: started here, and their records compared with those of one process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cam_callbacks import RecordStore


def launched(script: Path, out: Path, *arguments: str, ranks: int = 2) -> list[dict[str, Any]]:
    """What each rank of ``script OUT …`` wrote down in ``OUT-<rank>.json``."""
    command = [sys.executable, str(script), str(out), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=out.parent, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(Path(f"{out}-{rank}.json").read_text()) for rank in range(ranks)]


def assert_same_records(many: RecordStore, one: RecordStore, layer: str, layer_of_one: str) -> None:
    """Maps and numbers of several processes equal those of one to 1e-6."""
    assert len(many) == len(one) > 0
    for a, b in zip(many, one, strict=True):
        for method in ("eigencam", "gradcam"):
            scale = float(np.abs(b.maps[method, layer_of_one]).max())
            np.testing.assert_allclose(a.maps[method, layer], b.maps[method, layer_of_one], rtol=0, atol=1e-6 * scale)
        untimed = {k for k in b.metrics if "seconds" not in k and "overhead" not in k}
        assert len(untimed) > 15
        for key in untimed:
            assert a.metrics[key] == pytest.approx(b.metrics[key], rel=1e-6, abs=1e-6, nan_ok=True), key
