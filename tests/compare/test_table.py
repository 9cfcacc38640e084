import base64
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from cam_callbacks.compare import blocks, compare_runs
from cam_callbacks.compare.numbers import user_number, value_text
from cam_callbacks.keys import Key
from cam_callbacks.records import Alert, RecordStore
from cam_callbacks.text_table import columns
from cam_engine.metrics import jensen_shannon


def cells(comparison, group, number):
    rows = next(g.rows for g in comparison.table if g.title.startswith(group))
    return next(row.cells for row in rows if row.number.key == number)


def test_final_and_best_are_those_of_the_records(write_run):
    folders = write_run("clean"), write_run("shortcut", "nuisance")
    comparison = compare_runs(*folders)

    accuracy = cells(comparison, "logged", "val_acc")
    assert [(c.final, c.best, c.best_at) for c in accuracy] == [(0.7, 0.75, 5)] * 2
    loss = cells(comparison, "logged", "val_loss")
    assert [(c.final, c.best, c.best_at) for c in loss] == [(1 / 8, 1 / 8, 7)] * 2
    for folder, target, tag in zip(
        folders,
        cells(comparison, "gradcam", "on_target_enrichment"),
        cells(comparison, "gradcam", "nuisance_enrichment"),
        strict=True,
    ):
        records = list(RecordStore(folder))
        on_target = [record.metrics["cam/on_target_enrichment/gradcam"] for record in records]
        nuisance = [record.metrics["cam/nuisance_enrichment/gradcam"] for record in records]
        assert (target.final, target.best, target.best_at) == (
            on_target[-1],
            max(on_target),
            on_target.index(max(on_target)),
        )
        assert (tag.final, tag.best, tag.best_at) == (nuisance[-1], min(nuisance), nuisance.index(min(nuisance)))


def test_a_magnitude_has_no_best_value(write_run):
    (drift,) = cells(compare_runs(write_run("clean")), "gradcam", "drift_ref")
    assert drift.best is None
    assert drift.final > 0


def test_an_undefined_final_value_stays_undefined(write_run):
    drift = cells(compare_runs(write_run("a", nan=(7,)), write_run("b")), "gradcam", "drift_ref")
    assert math.isnan(drift[0].final)
    assert not math.isnan(drift[1].final)


def test_the_text_of_two_runs(write_run):
    text = compare_runs(write_run("clean"), write_run("shortcut", "nuisance")).text()

    assert all(len(line) <= 100 for line in text.splitlines())
    lines = {line[:25].strip(): line[25:].split() for line in text.splitlines()}
    assert lines["val_acc ↑"] == ["0.700", "0.750", "@", "5", "0.700", "0.750", "@", "5"]
    assert lines["drift from reference"][0] < lines["drift from reference"][1]
    head = text.splitlines()[0]
    assert head.endswith("shortcut")
    assert text.splitlines()[1].endswith("best")
    assert len({len(line) for line in text.splitlines() if " @ " in line and "best @" not in line}) == 1


def test_many_runs_are_set_in_blocks(write_run):
    text = compare_runs(*[write_run("run", epochs=2) for _ in range(5)]).text()
    assert max(map(len, text.splitlines())) <= 100
    assert all(f"run ({number})" in text for number in range(2, 6))


def test_hostile_names_keep_thecolumns(write_run):
    names = ["\x1b[31mred\nnew line", "漢字" * 30, "x" * 500]
    text = compare_runs(*[write_run(name, epochs=2) for name in names]).text()
    assert "\x1b" not in text
    assert {columns(text.splitlines()[0])} == {100}


def test_another_target_is_not_compared(write_run):
    comparison = compare_runs(write_run("a"), write_run("b", target="predicted"))
    assert comparison.agreed.parts == ()
    assert comparison.agreed.notes[0] == (
        "The maps of 'b' are not compared with those of 'a': target predicted against label."
    )
    assert [group.title for group in comparison.table] == ["logged by the trainer", "looks"]
    assert "! No maps can be compared; only numbers that the trainer logged" in comparison.text()


def test_another_probe_is_not_compared_but_the_others_are(write_run):
    other = {"fingerprint": "ab" * 32, "n": 6, "image_size": [32, 32], "ids": list("abcdef")}
    comparison = compare_runs(write_run("a"), write_run("b", probe=other), write_run("c"))

    assert not comparison.agreed.same_probe
    assert comparison.agreed.notes[0] == (
        "The maps of 'b' are not compared with those of 'a': probe fingerprint abababababab against 5f5f5f5f5f5f "
        "(32×32 against 48×48 pixels)."
    )
    assert [cell is None for cell in cells(comparison, "gradcam", "entropy")] == [False, True, False]


def test_methods_layers_and_grids_that_differ_are_named(write_run):
    comparison = compare_runs(
        write_run("a", methods=["eigencam", "gradcam"]),
        write_run("b", methods=["gradcam"], reference="first"),
        write_run("c", methods=["gradcam"], grid=(7, 7)),
    )
    assert [(part.method, part.runs) for part in comparison.agreed.parts] == [("gradcam", (0, 1))]
    assert comparison.agreed.notes == (
        "eigencam on layer4 is not in 'b', 'c'.",
        "gradcam on layer4 of 'c' is not compared: its grid is 7×7, that of 'a' is 12×12.",
        "Drift of 'b' is not measured as that of 'a': reference first against settled.",
    )


def test_other_layers_grids_and_models_are_compared_through_enrichment_alone(write_run):
    runs = write_run("a"), write_run("b", layers=["blocks.11"], grid=(7, 7)), write_run("c", model="ViT")
    comparison = compare_runs(*runs)

    assert comparison.agreed.parts == ()
    (across,) = comparison.agreed.across
    assert across.layers == {0: "layer4", 1: "blocks.11", 2: "layer4"}
    (group,) = [group for group in comparison.table if group.title.startswith("gradcam")]
    assert group.title == "gradcam · across layers (layer4, blocks.11)"
    assert [row.number.key for row in group.rows] == ["on_target_enrichment", "nuisance_enrichment"]
    finals = [RecordStore(run)[-1].metrics["cam/on_target_enrichment/gradcam"] for run in runs]
    assert [cell.final for cell in group.rows[0].cells] == finals
    assert "'c' is compared with 'a' through enrichment only: model ViT against Net." in comparison.agreed.differences
    assert comparison.agreed.comparable(Key("on_target_enrichment", "gradcam", "layer4"), 0, 2)
    assert not comparison.agreed.comparable(Key("drift_ref", "gradcam", "layer4"), 0, 2)


def test_preprocessing_that_differs_is_told_from_other_pictures(write_run, probe_arrays):
    def probe(fingerprint, **scale):
        return {
            "fingerprint": fingerprint * 32,
            "n": 6,
            "image_size": [48, 48],
            "ids": [f"im{i}" for i in range(6)],
        } | scale

    runs = [write_run("a", probe=probe("aa", mean=[0.5], std=[0.25])), write_run("b", probe=probe("bb", mean=[0.5], std=[1.0])),
            write_run("c", probe=probe("cc"))]  # fmt: skip
    RecordStore(runs[2]).write_probe(probe_arrays | {"pictures": probe_arrays["pictures"] // 2})
    notes = compare_runs(*runs).agreed.notes

    assert "(the same pictures, preprocessed otherwise: std (1) against (0.25))" in notes[0]
    assert "(the same image names, but other pictures)" in notes[1]


def test_enrichment_on_other_masks_is_not_compared(write_run, probe_arrays):
    other = write_run("b")
    RecordStore(other).write_probe(probe_arrays | {"masks": probe_arrays["masks"][::-1]})
    comparison = compare_runs(write_run("a"), other)

    assert [cell is None for cell in cells(comparison, "gradcam", "on_target_enrichment")] == [False, True]
    assert [cell is None for cell in cells(comparison, "gradcam", "nuisance_enrichment")] == [False, False]
    assert (
        "on-target enrichment of 'b' is not compared: its masks are not those of 'a'." in comparison.agreed.differences
    )


def test_runs_that_end_at_different_epochs_are_named(write_run):
    notes = compare_runs(write_run("a"), write_run("b", epochs=4)).agreed.notes
    assert notes == ("The runs end at different epochs, and so do their final values: 'a' at epoch 7, 'b' at epoch 3.",)


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("val_acc", "higher"),
        ("val/Accuracy", "higher"),
        ("val_f1", "higher"),
        ("val_loss", "lower"),
        ("mAP50", "higher"),
        ("top5_error", "lower"),
        ("lr", None),
        ("place", None),
        ("val_lossless", None),
    ],
)
def test_the_better_direction_of_a_users_metric(name, better):
    assert user_number(name).better == better


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1234, "0.123"), (-0.0, "0.000"), (12.345, "12.35"), (3e-6, "3.0e-06"), (1234567.0, "1.2e+06"), (None, "–")],
)
def test_values_are_short(value, text):
    assert value_text(value).lstrip("-") == text


def test_alerts_are_said(write_run):
    folder = write_run("clean", epochs=2)
    alert = Alert("diffuse", "gradcam", "layer4", 1, 1, 1, 1, True, "entropy 0.97", ("im1",), "Look at them.")
    store = RecordStore(folder)
    store.write(replace(store.read(1), alerts=(alert,)))
    comparison = compare_runs(folder)

    assert "▲ clean: diffuse (gradcam) since epoch 1: entropy 0.97. Look at them." in comparison.text()
    assert comparison.numbers()["runs"][0]["alerts"][0]["places"] == [1]


def test_an_alert_says_what_was_measured_when_raised_and_what_is_now(write_run):
    store = RecordStore(write_run("clean", epochs=3))
    for look, measured in ((1, "entropy 0.97"), (2, "entropy 0.99")):
        alert = Alert("diffuse", "gradcam", "layer4", look, look, 1, 1, look == 1, measured, (), "Look at them.")
        store.write(replace(store.read(look), alerts=(alert,)))
    text = compare_runs(store.folder).text()
    assert "since epoch 1: entropy 0.97. Now: entropy 0.99. Look at them." in text
    assert "\nclean: validation accuracy 0.600, but diffuse; " in text


def test_table_and_json_encode_no_map_and_round_no_number(write_run, monkeypatch):
    encoded = []

    def b64encode(data):
        encoded.append(len(data))
        return base64.b64encode(data)

    monkeypatch.setattr(blocks, "base64", SimpleNamespace(b64encode=b64encode))
    folders = write_run("clean"), write_run("shortcut", "nuisance")
    comparison = compare_runs(*folders)
    text, found = comparison.text(), json.loads(comparison.json())
    assert "divergence" in found and "focus drift" in text and encoded == []

    last = [RecordStore(folder)[-1] for folder in folders]
    finals = {n["metric"]: [of["final"] for of in n["runs"].values()] for n in found["numbers"]}
    assert finals["focus_drift"] == [record.metrics["cam/focus_drift/gradcam"] for record in last]
    a, b = (record.maps["gradcam", "layer4"] for record in last)
    assert found["divergence"][0]["jsd"][0][1] == jensen_shannon(a, b).mean()

    comparison.page()
    assert sum(encoded) > 2 * 8 * 6 * 12 * 12  # runs, looks, images, cells: the count is not blind
