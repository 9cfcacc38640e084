"""Cases and trainings on several processes, run as scripts: started here, and their records compared with those of one process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cam_callbacks import RecordStore


def answered(folder: Path, processes: int, *cases: str, timeout: int = 400) -> dict[str, list[Any]]:
    """For each case of sharded_main.py the answers of all ranks."""
    script = Path(__file__).parent / "callbacks" / "sharded_main.py"
    command = [sys.executable, str(script), str(processes), str(folder / "answers"), *cases]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    answers: dict[str, list[Any]] = json.loads((folder / "answers").read_text())
    return answers


def assert_halved(ranks: list[Any]) -> None:
    """Of out_of_memory: all took two images at once from then on, and found what one process does."""
    for probes in ranks:
        assert all(size == 2 and difference < 1e-6 and exchanged for size, difference, exchanged in probes)


def assert_variants_halved(ranks: list[Any]) -> None:
    """Of out_of_memory_of_variants: one variant at once in the end, the maps of one process, and so the next look."""
    for most, difference, next_look in ranks:
        assert most == 1 and difference < 1e-6 and next_look == 0


def assert_told_apart(ranks: list[Any]) -> None:
    """Of out_of_step: an error instead of a wait, and the next look is the same."""
    for message, next_look in ranks:
        assert "different collective calls" in message and next_look == 0


def assert_failed_together(ranks: list[Any], cases: int) -> None:
    """Of failing: the look ended on all ranks with the error of one, nothing was changed, and the next look is the same."""
    for rank in ranks:
        assert len(rank) == cases
        for case, (message, changed, next_look) in rank.items():
            assert f"on rank {case[0]}" in message and "ZeroDivisionError" in message, (case, message)
            assert changed == [] and next_look == 0


def assert_never_changed(ranks: list[Any], settings: int) -> None:
    """Of unchanged: in no setting does anything differ from a training without looks at any moment."""
    for rank in ranks:
        assert len(rank) == settings
        for setting, moments in rank.items():
            assert not any(moments), (setting, moments)


def assert_rests(ranks: list[Any]) -> None:
    """Of silent: the looks ended in time, said so on rank 0, and the model is as it was."""
    for answer in ranks:
        assert answer["resting"] and answer["seconds"] < 60 and answer["same"]
    assert "did not answer within 4 s" in ranks[0]["said"]


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
