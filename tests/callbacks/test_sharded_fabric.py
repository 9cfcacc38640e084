"""CAMLoop in Lightning Fabric with ModelParallelStrategy (FSDP2) and FSDPStrategy on two CPU processes, two looks an epoch."""

from pathlib import Path

import pytest
from sharded_runs import assert_same_records, launched

from cam_callbacks import RecordStore


@pytest.fixture(scope="module", params=["fsdp2", "fsdp1"])
def trained(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("fabric") / "run"
    return out, launched(Path(__file__).with_name("sharded_fabric.py"), out, request.param)


def test_the_training_is_bit_identical_with_and_without_looks(trained):
    """Shards, gradients, optimizer and random streams, where each look is between a backward and its step."""
    for answer in trained[1]:
        assert len(answer["same"]) == 4 and all(answer["same"])


def test_two_processes_give_the_records_of_one(trained):
    """Also where ``watch.look`` is given what ``fabric.setup`` returned, as it has to be of FSDP1, whose network is named then."""
    out, answers = trained
    for looked_at, layer in answers[0]["looked_at"].items():
        looks = RecordStore(out / looked_at)
        assert [record.epoch for record in looks] == [0, 0, 1, 1]
        assert_same_records(looks, RecordStore(out / "one"), layer, "8")
