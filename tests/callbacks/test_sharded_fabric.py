"""CAMLoop in Lightning Fabric with ModelParallelStrategy (FSDP2) on two CPU processes, two looks an epoch."""

from pathlib import Path

import pytest
from sharded_runs import assert_same_records, launched

from cam_callbacks import RecordStore


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("fabric") / "run"
    return out, launched(Path(__file__).with_name("sharded_fabric.py"), out)


def test_the_training_is_bit_identical_with_and_without_looks(trained):
    """Shards, gradients, optimizer and random streams, where each look is between a backward and its step."""
    for answer in trained[1]:
        assert len(answer["same"]) == 4 and all(answer["same"])


@pytest.mark.parametrize(("looked_at", "layer"), [("looks", "8"), ("wrapped", "_forward_module.8")])
def test_two_processes_give_the_records_of_one(trained, looked_at, layer):
    """Also where ``watch.look`` is given what ``fabric.setup`` returned."""
    looks = RecordStore(trained[0] / looked_at)
    assert [record.epoch for record in looks] == [0, 0, 1, 1]
    assert_same_records(looks, RecordStore(trained[0] / "one"), layer, "8")
