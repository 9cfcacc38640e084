"""Lightning's ModelParallelStrategy and FSDPStrategy on two CPU processes: the training that it would have been, and the records of
one process."""

from pathlib import Path

import pytest
from sharded_runs import assert_same_records, launched

from cam_callbacks import RecordStore

SCRIPT = Path(__file__).with_name("sharded_training.py")


@pytest.fixture(scope="module", params=["fsdp2", "fsdp1"])
def trained(request, tmp_path_factory):
    """The folder of the records, and what each rank wrote down."""
    out = tmp_path_factory.mktemp("sharded") / "run"
    return out, launched(SCRIPT, out, request.param)


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
    assert_same_records(looked, replayed, "net.8", "8")


def test_a_training_that_is_resumed_from_its_shards_goes_on_with_the_records(trained):
    """There a part of the module is explained, by a call of its own."""
    for answer in trained[1]:
        assert answer["resumed"] == [0, 1, 2]
