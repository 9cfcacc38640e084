"""Looks at a model that is spread over real processes, over gloo: what one process says of the whole model, and a training that
never notices. The cases are in sharded_cases.py and beside it; each launch of processes runs several."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from sharded_runs import (
    answered,
    assert_failed_together,
    assert_halved,
    assert_never_changed,
    assert_rests,
    assert_told_apart,
    assert_variants_halved,
)

from cam_callbacks import CAMMonitor, ProbeSet
from cam_callbacks.lightning_trainer import not_looked_at

ENGINES = ("fsdp2", "fsdp1")


@pytest.fixture(scope="module", params=ENGINES)
def equal(request, tmp_path_factory):
    names = ("same", "same_with_more_processes_than_images", "same_of_methods_that_read_parameters", "gathered_at_once")
    answers = answered(tmp_path_factory.mktemp("equal"), 2, *(f"{request.param}:{name}" for name in names))
    return {name: answers[f"{request.param}:{name}"] for name in names}


@pytest.fixture(scope="module")
def looks(tmp_path_factory):
    return answered(
        tmp_path_factory.mktemp("looks"), 2, "tensor_parallel_layers", "refused", "fsdp1:same_of_a_unit_inside"
    )


@pytest.fixture(scope="module", params=ENGINES)
def failures(request, tmp_path_factory):
    cases = [
        f"{request.param}:{case}" for case in ("failing", "out_of_memory", "out_of_memory_of_variants", "out_of_step")
    ]
    answers = answered(tmp_path_factory.mktemp("failures"), 2, *cases)
    return {case.partition(":")[2]: answer for case, answer in answers.items()}


def test_maps_and_numbers_equal_those_of_the_whole_model(equal):
    """Exchange tests, noise floor, a metric that asks again and the counterfactual gap among them, on a share that is padded."""
    for answer in equal["same"]:
        assert answer["maps"] < 1e-6 and answer["metrics"] == []
        assert any(0 < share < 1 for share in answer["follows"])
        assert {"cam/noise_floor/gradcam", "cam/deletion/gradcam", "cam/counterfactual_gap"} <= set(answer["keys"])
    for answer in equal["same_of_methods_that_read_parameters"]:
        assert answer["maps"] < 1e-6 and answer["metrics"] == []
    assert equal["same_with_more_processes_than_images"] == [pytest.approx(0, abs=1e-6)] * 2


def test_a_unit_of_fsdp1_inside_of_another_is_looked_at_by_itself(looks):
    for answer in looks["fsdp1:same_of_a_unit_inside"]:
        assert answer["maps"] < 1e-6 and answer["metrics"] == [] and answer["gradients"]


@pytest.mark.parametrize("layer", ["end", "put together"])
def test_tensor_parallel_layers_give_the_maps_of_the_whole_model(looks, layer):
    """All processes are given the same images; activations that come as DTensors are put together."""
    for answer in looks["tensor_parallel_layers"]:
        assert answer[layer]["maps"] < 1e-6 and answer[layer]["metrics"] == []


def test_a_layer_that_returns_only_a_part_on_each_process_is_refused(looks):
    for answer in looks["tensor_parallel_layers"]:
        assert "Choose layers= at the end of the block" in answer["a part"]


def test_what_is_not_looked_at_is_refused_in_a_line_that_says_what_would_work(looks):
    for *pieces, part, stage in looks["refused"]:
        assert "got PipelineStage" in stage and "cam-callbacks replay" in stage
        for piece in pieces:  # with original parameters, and without
            assert "FSDP1 flattened the parameters" in piece and "what FullyShardedDataParallel returned" in piece
        assert "call fully_shard on it too" in part


def test_a_part_of_a_model_under_zero_3_is_refused_in_a_line_that_says_what_would_work(net, data):
    """By what DeepSpeed puts on its parameters; tests/models/test_sharded_zero3.py looks at its engines."""
    net[0].weight.ds_tensor = torch.zeros(1)
    with pytest.raises(ValueError, match=r"ZeRO-3.*hand over the engine, what deepspeed.initialize returned"):
        CAMMonitor(ProbeSet(*(tensor[:4] for tensor in data.tensors)), "gradcam").look(net)


def test_xla_is_refused_in_a_line_that_says_what_would_work():
    class XLAFSDPStrategy:
        pass

    said = not_looked_at(SimpleNamespace(strategy=XLAFSDPStrategy()))
    assert (
        said is not None and said.startswith("under XLAFSDPStrategy") and "ModelParallelStrategy and DeepSpeed" in said
    )


@pytest.mark.soak
def test_two_dimensions(tmp_path):
    """Tensor parallel groups share the probe under FSDP2; replicas of shards, each a share."""
    for answer in answered(tmp_path, 4, "two_dimensions")["two_dimensions"]:
        assert answer["shares"] == [[0, 1], [2, 3]]
        for spread in ("end", "hybrid", "flat hybrid"):
            assert answer[spread]["maps"] < 1e-6 and answer[spread]["metrics"] == []


def test_a_look_gathers_no_more_parameters_at_once_than_a_training_step(equal):
    for look, step, whole in equal["gathered_at_once"]:
        assert look <= step < whole


@pytest.mark.parametrize("engine", ENGINES)
def test_the_training_is_never_changed(tmp_path, engine):
    """Shards, gradients, optimizer, buffers, modes, random streams, and which parameters are gathered when: under mixed precision,
    offloading (FSDP2), checkpointed and compiled blocks, and in the middle of an accumulation, inside of ``no_sync`` too."""
    assert_never_changed(
        answered(tmp_path, 2, f"{engine}:unchanged")[f"{engine}:unchanged"], 8 if engine == "fsdp2" else 10
    )


def test_an_error_on_one_rank_ends_the_look_on_all_and_nothing_else(failures):
    assert_failed_together(failures["failing"], 9)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("engine", ENGINES)
def test_four_processes(tmp_path, engine):
    """Numbers of one process, an exception on each rank in turn, and memory that runs out on one."""
    cases = [f"{engine}:{case}" for case in ("same", "failing", "out_of_memory")]
    answers = {case.partition(":")[2]: of for case, of in answered(tmp_path, 4, *cases, timeout=800).items()}
    for answer in answers["same"]:
        assert answer["maps"] < 1e-6 and answer["metrics"] == []
    assert_failed_together(answers["failing"], 17)
    for rank in answers["failing"]:
        assert {case[0] for case in rank} == {"0", "1", "2", "3"}
    assert_halved(answers["out_of_memory"])


def test_memory_that_runs_out_on_one_rank_halves_the_batches_of_all(failures):
    assert_halved(failures["out_of_memory"])
    assert_variants_halved(failures["out_of_memory_of_variants"])


def test_processes_that_do_different_things_fail_instead_of_waiting(failures):
    assert_told_apart(failures["out_of_step"])


@pytest.mark.parametrize("engine", ["fsdp2", pytest.param("fsdp1", marks=pytest.mark.soak)])
def test_a_process_that_is_silent_ends_the_looks_of_the_others_in_bounded_time(tmp_path, engine):
    assert_rests(answered(tmp_path, 2, f"{engine}:silent")[f"{engine}:silent"])
