"""Looks at models under DeepSpeed's ZeRO-3, on two CPU processes over gloo: the cases of tests/callbacks/test_sharded*.py."""

from pathlib import Path

import deepspeed  # noqa: F401  # of requirements-peers.txt: without it nothing here would be tested
import pytest
from sharded_runs import (
    answered,
    assert_failed_together,
    assert_halved,
    assert_never_changed,
    assert_rests,
    assert_same_records,
    assert_told_apart,
    assert_variants_halved,
    launched,
)

from cam_callbacks import RecordStore

CALLBACKS = Path(__file__).parents[1] / "callbacks"


def answers_of(folder, *names):
    found = answered(folder, 2, *(f"zero3:{name}" for name in names))
    return {name: found[f"zero3:{name}"] for name in names}


@pytest.fixture(scope="module")
def equal(tmp_path_factory):
    names = ("same", "same_with_more_processes_than_images", "same_of_methods_that_read_parameters", "gathered_at_once")
    return answers_of(tmp_path_factory.mktemp("equal"), *names)


@pytest.fixture(scope="module")
def failures(tmp_path_factory):
    names = ("failing", "out_of_memory", "out_of_memory_of_variants", "out_of_step", "silent")
    return answers_of(tmp_path_factory.mktemp("failures"), *names)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("zero3") / "run"
    return out, launched(CALLBACKS / "sharded_training.py", out, "zero3")


def test_maps_and_numbers_equal_those_of_the_whole_model(equal):
    for answer in (*equal["same"], *equal["same_of_methods_that_read_parameters"]):
        assert answer["maps"] < 1e-6 and answer["metrics"] == []
    assert equal["same_with_more_processes_than_images"] == [pytest.approx(0, abs=1e-6)] * 2


def test_a_look_gathers_no_more_parameters_at_once_than_a_training_step(equal):
    for look, step, whole in equal["gathered_at_once"]:
        assert look <= step < whole


def test_the_training_is_never_changed(tmp_path):
    """Shards, gradients, optimizer, buffers, modes, random streams, what is gathered, and how far DeepSpeed is in what it has
    learned to gather ahead: with small parameters that stay, in bfloat16, offloaded, checkpointed, and in an accumulation."""
    assert_never_changed(answered(tmp_path, 2, "zero3:unchanged")["zero3:unchanged"], 7)


def test_an_error_on_one_rank_ends_the_look_on_all_and_nothing_else(failures):
    assert_failed_together(failures["failing"], 9)


def test_memory_that_runs_out_on_one_rank_halves_the_batches_of_all(failures):
    assert_halved(failures["out_of_memory"])
    assert_variants_halved(failures["out_of_memory_of_variants"])


def test_processes_that_do_different_things_fail_instead_of_waiting(failures):
    assert_told_apart(failures["out_of_step"])


def test_a_process_that_is_silent_ends_the_looks_of_the_others_in_bounded_time(failures):
    assert_rests(failures["silent"])


def test_a_training_in_lightning_is_bit_identical_and_looked_at_as_in_one_process(trained):
    """By DeepSpeedStrategy without its refusal of a CPU; resumed too, with a part of the module explained by a call of its own."""
    out, ranks = trained
    for answer in ranks:
        assert all(answer["same"]) and answer["moments"] > 15 and answer["resumed"] == [0, 1, 2]
    looked, replayed = RecordStore(out / "looks"), RecordStore(out / "replayed")
    assert [r.epoch for r in looked] == [r.epoch for r in replayed] == [0, 1, 2]
    assert_same_records(looked, replayed, "net.8", "8")
