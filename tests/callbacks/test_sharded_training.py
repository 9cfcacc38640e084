"""Lightning's ModelParallelStrategy on two CPU processes: the training that it would have been, and the records of one process."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cam_callbacks import RecordStore

SCRIPT = Path(__file__).with_name("sharded_training.py")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of the records, and what each rank wrote down."""
    out = tmp_path_factory.mktemp("sharded") / "run"
    done = subprocess.run([sys.executable, SCRIPT, out], capture_output=True, text=True, timeout=500, cwd=out.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    return out, [json.loads(Path(f"{out}-{rank}.json").read_text()) for rank in (0, 1)]


def test_the_training_is_bit_identical_with_and_without_the_callback(trained):
    """At every step and after every validation: shards, gradients, optimizer, random streams, and what is gathered when."""
    for answer in trained[1]:
        assert all(answer["same"]) and answer["moments"] > 15


def test_every_rank_sees_the_same_values(trained):
    values = [answer["values"] for answer in trained[1]]
    assert values[0] == values[1] and values[0]["cam/failed_looks"] == 0 and "cam/focus_drift/gradcam" in values[0]


def test_replay_of_the_shards_in_one_process_gives_the_records_of_the_training(trained):
    looked, replayed = RecordStore(trained[0] / "looks"), RecordStore(trained[0] / "replayed")
    assert [r.epoch for r in looked] == [r.epoch for r in replayed] == [0, 1, 2]
    for a, b in zip(looked, replayed, strict=True):
        for method in ("eigencam", "gradcam"):
            scale = float(np.abs(b.maps[method, "8"]).max())
            np.testing.assert_allclose(a.maps[method, "net.8"], b.maps[method, "8"], rtol=0, atol=1e-6 * scale)
        untimed = {k for k in b.metrics if "seconds" not in k and "overhead" not in k}
        for key in untimed:
            assert a.metrics[key] == pytest.approx(b.metrics[key], rel=1e-6, abs=1e-6, nan_ok=True), key


def test_a_training_that_is_resumed_from_its_shards_goes_on_with_the_records(trained):
    for answer in trained[1]:
        assert answer["resumed"] == [0, 1, 2]
