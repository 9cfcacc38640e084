"""Sharded trainings that take minutes: four processes, ten epochs, nodes that share no disk."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from sharded_runs import assert_same_records, launched

from cam_callbacks import RecordStore

SCRIPT = Path(__file__).with_name("sharded_long.py")
pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]


def test_ten_epochs_on_four_processes_are_bit_identical_and_looked_at_as_on_one(tmp_path):
    """Two looks an epoch, some in the middle of an accumulation, at a moving average that stands in for the weights."""
    for (same,) in launched(SCRIPT, tmp_path / "run", "long", ranks=4):
        assert len(same) > 50 and all(same)
    looks = RecordStore(tmp_path / "run" / "looks")
    assert [record.epoch for record in looks] == [epoch for epoch in range(10) for _ in range(2)]
    assert_same_records(looks, RecordStore(tmp_path / "run" / "replayed"), "net.8", "8")


def test_nodes_that_share_no_disk(tmp_path):
    """Rank 0 writes, to its own disk; the other node finds the same values for its monitors, and writes nothing."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    running = []
    for node in (0, 1):
        (disk := tmp_path / f"node{node}").mkdir()
        says = shared | {"RANK": node, "GROUP_RANK": node, "TORCHELASTIC_RUN_ID": "one"}
        environment = os.environ | {name: str(value) for name, value in says.items()}
        command = [sys.executable, str(SCRIPT), str(disk / "run"), "nodes"]
        running.append(subprocess.Popen(command, cwd=disk, env=environment, stderr=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=500)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    answers = [json.loads((tmp_path / f"node{node}" / f"run-{node}.json").read_text()) for node in (0, 1)]
    assert all(all(same) and len(same) > 5 for same, _ in answers)
    assert answers[0][1] == answers[1][1] and answers[0][1]["cam/failed_looks"] == 0
    (manifest,) = (tmp_path / "node0").rglob("manifest.json")
    assert [record.epoch for record in RecordStore(manifest.parent)] == [0, 1]
    assert [path.name for path in (tmp_path / "node1").rglob("*") if path.is_file()] == ["run-1.json"]
