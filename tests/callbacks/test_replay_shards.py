"""Checkpoints that several processes share give the records of one that goes through them all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from cam_callbacks import ProbeSet, RecordStore, replay
from cam_callbacks.cli import main
from cam_callbacks.replay_shards import FOLDER, Shard

OPTIONS = {"methods": ("eigencam", "gradcam"), "metrics": ["deletion"], "exchange_pairs": 2}


@pytest.fixture
def probe(data, masks):
    images, labels = (tensor[:8] for tensor in data.tensors)
    return ProbeSet(images, labels, masks=masks[:8], counterfactual=images.flip(3))


@pytest.fixture
def checkpoints(net, data, tmp_path):
    """Five of a short training, the last ones close to each other, so that the focus settles in between."""
    (tmp_path / "saved").mkdir()
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for epoch, steps in enumerate((8, 8, 1, 0, 0)):
        for _ in range(steps):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(data.tensors[0]), data.tensors[1]).backward()
            optimizer.step()
        saved = {"state_dict": net.state_dict(), "epoch": epoch, "global_step": 10 * epoch}
        torch.save(saved, tmp_path / "saved" / f"epoch={epoch}.ckpt")
    return tmp_path / "saved"


def assert_same(shared, alone):
    assert [(r.look, r.epoch, r.step) for r in shared] == [(r.look, r.epoch, r.step) for r in alone]
    for a, b in zip(shared, alone, strict=True):
        assert all(np.array_equal(a.maps[series], b.maps[series]) for series in b.maps)
        assert a.alerts == b.alerts and repr(a.reference) == repr(b.reference)  # with NaNs
        timed = {"cam/seconds", "cam/exchange_seconds"}
        assert a.metrics.keys() == b.metrics.keys() and a.metrics["cam/seconds"] > 0
        assert all(np.array_equal(a.metrics[k], b.metrics[k], equal_nan=True) for k in a.metrics.keys() - timed)


def test_the_last_shard_writes_the_records_of_one_process(checkpoints, probe, net, tmp_path):
    """Exchange tests, deletion, the counterfactual gap, drift against a settled reference and alerts among them."""
    alone = replay(net, checkpoints, probe, folder=tmp_path / "alone", **OPTIONS)
    assert any(track["reference_set"] for track in alone[-1].reference.values())
    before = {k: v.clone() for k, v in net.state_dict().items()}
    for number in (3, 1):
        assert replay(net, checkpoints, probe, folder=tmp_path / "looks", shard=Shard(number, 3), **OPTIONS) == []
        assert len(RecordStore(tmp_path / "looks")) == 0
    shared = replay(net, checkpoints, probe, folder=tmp_path / "looks", shard=Shard(2, 3), **OPTIONS)
    assert_same(shared, alone)
    assert_same(list(RecordStore(tmp_path / "looks")), list(RecordStore(tmp_path / "alone")))
    assert not (tmp_path / "looks" / FOLDER).exists()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_what_shards_have_seen_on_other_disks_is_put_together_by_a_call_without_a_shard(
    checkpoints, probe, net, tmp_path
):
    """Of a shard that never ran, of a checkpoint that is newer, and of a damaged file, that call looks itself."""
    alone = replay(net, checkpoints, probe, **OPTIONS)
    for number in (1, 3):
        replay(net, checkpoints, probe, folder=tmp_path / str(number), shard=Shard(number, 3), **OPTIONS)
        shutil.copytree(tmp_path / str(number), tmp_path / "looks", dirs_exist_ok=True)
    (seen,) = (tmp_path / "looks" / FOLDER).iterdir()
    assert sorted(path.name for path in seen.iterdir()) == ["000000.pt", "000002.pt", "000003.pt"]
    (seen / "000002.pt").write_bytes(b"damaged")
    os.utime(seen / "000003.pt", (0, 0))
    assert_same(replay(net, checkpoints, probe, folder=tmp_path / "looks", **OPTIONS), alone)
    assert len(RecordStore(tmp_path / "looks")) == 5 and not seen.exists()


def test_what_was_seen_of_another_probe_is_not_taken(checkpoints, probe, data, net, tmp_path):
    other = ProbeSet(*(tensor[8:16] for tensor in data.tensors))
    for number, of in ((1, other), (2, probe)):
        assert replay(net, checkpoints, of, folder=tmp_path / "looks", shard=Shard(number, 2), methods="gradcam") == []


def test_a_shard(tmp_path, net, probe, checkpoints):
    assert [list(Shard(k, 3).own(5)) for k in (1, 2, 3)] == [[0, 3], [1, 4], [2]]
    assert Shard.parse("3/16") == Shard(3, 16) and str(Shard(3, 16)) == "3/16"
    assert Shard.of_launcher({"RANK": "2", "WORLD_SIZE": "16"}) == Shard(3, 16)
    assert Shard.of_launcher({}) is None and Shard.of_launcher({"RANK": "0", "WORLD_SIZE": "1"}) is None
    with pytest.raises(ValueError, match="the third of sixteen is 3/16"):
        Shard.parse("3")
    with pytest.raises(ValueError, match="0/4: shards are counted from 1"):
        Shard.parse("0/4")
    with pytest.raises(ValueError, match="pass folder="):
        replay(net, checkpoints, probe, shard=Shard(1, 2))


@pytest.fixture
def command(replay_command):
    """``cam-callbacks replay`` of three checkpoints, in a folder of its own."""
    return replay_command("sharded_net", range(3))


def test_the_command_takes_a_shard_or_what_torchrun_says(command, monkeypatch, capsys):
    assert main([*command, "--shard", "2/2"]) == 0
    assert "shard 2/2 is done" in capsys.readouterr().out and len(RecordStore("looks")) == 0
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(command) == 0
    assert "look 2, epoch 2" in capsys.readouterr().out and len(RecordStore("looks")) == 3
    assert main([*command, "--shard", "two"]) == 2
    assert "the third of sixteen is 3/16" in capsys.readouterr().err


@pytest.mark.soak
def test_torchrun(command):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launch, "-m", "cam_callbacks.cli", *command], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("is done;") == 1 and done.stdout.count("records:") == 1
    assert [record.epoch for record in RecordStore("looks")] == [0, 1, 2]
