"""A number's key on disk leads back to its metric, method and layer, whatever the layer is called."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cam_callbacks.compare import compare_runs
from cam_callbacks.keys import Key, keys_of
from cam_callbacks.records import RecordStore

PYRAMID = ["neck.fpn[0]", "neck.fpn[1]"]


@pytest.fixture
def pyramid(write_run):
    return write_run("pyramid", layers=PYRAMID, methods=["gradcam++"], name="aux")


def test_table_and_gate_find_a_layer_whose_name_no_key_can_hold(pyramid):
    comparison = compare_runs(pyramid)
    last = RecordStore(pyramid)[-1].metrics

    (group,) = [g for g in comparison.table if "neck.fpn[1]" in g.title]
    entropy = next(row.cells[0] for row in group.rows if row.number.key == "entropy")
    assert entropy.final == last["cam/aux/entropy/gradcampp/neck.fpn_1_"]
    for spelled in ("'entropy/gradcam++/neck.fpn[1]'", "entropy/gradcampp/neck.fpn_1_"):
        (verdict,) = comparison.judge(f"{spelled} < 2")
        assert list(verdict.values.values()) == [entropy.final]
    series = [s for s in comparison.data["runs"][0]["series"] if s["metric"] == "entropy"]
    assert [(s["method"], s["layer"]) for s in series] == [("gradcam++", layer) for layer in PYRAMID]


METHODS = st.lists(st.sampled_from(["gradcam", "gradcam++", "cam", "my method"]), min_size=1, unique=True)
LAYERS = st.lists(st.sampled_from(["layer4", "blocks.11", "fpn[0]", "a/b", "1", "gradcam"]), min_size=1, unique=True)
METRICS = st.sampled_from(["entropy", "drift_ref", "drift_ref.clinic_A_n2"])


@given(METHODS, LAYERS, st.none() | st.sampled_from(["aux", "1"]), st.lists(METRICS, min_size=1), st.data())
def test_every_key_is_found_again(methods, layers, name, metrics, data):
    keys = [Key("seconds"), Key("alert/gradcam")]
    keys += [Key(metric, data.draw(st.sampled_from(methods)), data.draw(st.sampled_from(layers))) for metric in metrics]
    logged = {key.logged(layers, name): key for key in keys}
    assert {text: key for key, text in keys_of(logged, methods, layers, name).items()} == logged


def test_numbers_of_another_callback_are_left_out():
    logged = ["cam/aux/entropy/gradcam", "cam/aux/seconds", "cam/seconds"]
    assert keys_of(logged, ["gradcam"], ["layer4"], "aux") == {
        Key("entropy", "gradcam", "layer4"): "cam/aux/entropy/gradcam",
        Key("seconds"): "cam/aux/seconds",
    }
