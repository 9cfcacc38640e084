import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import jensenshannon

from cam_callbacks.compare import load_run, page_data
from cam_callbacks.compare.blocks import quantise
from cam_callbacks.records import Alert
from cam_engine.render import COLORMAPS, colorize, overlay


def read(text, dtype, *shape):
    return np.frombuffer(base64.b64decode(text), dtype).reshape(shape)


@pytest.fixture
def two(write_run):
    return [
        load_run(write_run("clean", methods=["eigencam", "gradcam"])),
        load_run(write_run("shortcut", "nuisance", methods=["eigencam", "gradcam"], skip=(4,), nan=(6,))),
    ]


def test_maps_come_back_within_half_a_step_of_their_own_scale(two):
    (run, *_) = page_data(two)["runs"]
    field = run["maps"][1]
    codes = read(field["codes"], np.uint8, 8, 6, 12, 12)
    low, high = (read(field[name], "<f4", 8, 6)[..., None, None] for name in ("low", "high"))
    whole = np.stack([record.maps["gradcam", "layer4"] for record in two[0].records])

    assert (field["method"], field["layer"], field["grid"]) == ("gradcam", "layer4", [12, 12])
    assert np.abs(low + codes / 255 * (high - low) - whole).max() <= ((high - low) / 255 / 2).max() * 1.001
    assert (codes.max((2, 3)) == 255).all()
    drift = read(field["per_image"]["drift_ref"], "<f4", 8, 6)
    np.testing.assert_allclose(drift[3], two[0].records[3].per_image["drift_ref/gradcam"], rtol=1e-6)


def test_an_invalid_map_has_no_scale_and_negative_values_are_cut_off():
    maps = np.array([[[np.nan, 1.0]], [[0.0, 0.0]], [[-3.0, 2.0]], [[5.0, 5.0]]], np.float32)
    codes, low, high = quantise(maps)
    assert np.isnan(low).tolist() == [True, True, False, False]
    assert codes.tolist() == [[[0, 0]], [[0, 0]], [[0, 255]], [[0, 0]]]
    assert (low[2], high[2], low[3], high[3]) == (0, 2, 5, 5)


def test_the_page_knows_the_colours_of_the_pictures(two):
    tables = page_data(two)["colormaps"]
    assert set(tables) == set(COLORMAPS)
    levels = np.arange(256)[None] / 255
    for name in COLORMAPS:
        assert (read(tables[name], np.uint8, 1, 256, 3) == colorize(levels, name)).all()


def test_small_pictures_are_exact_and_large_ones_shrink(two, probe_arrays):
    pictures = page_data(two)["probes"][0]["pictures"]
    decoded = [np.asarray(Image.open(io.BytesIO(base64.b64decode(p.partition(",")[2])))) for p in pictures]
    assert (np.stack(decoded) == probe_arrays["pictures"]).all()

    large = replace(two[0], probe={"pictures": np.repeat(np.repeat(probe_arrays["pictures"], 14, 1), 14, 2)})
    picture = page_data([large])["probes"][0]["pictures"][0]
    shrunk = Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2])))
    assert shrunk.size == (320, 320)
    heat = np.ones((1, 1))  # a uniform map colours nothing away
    assert (
        np.abs(overlay(np.asarray(shrunk.convert("RGB")), heat, alpha=0).mean() - probe_arrays["pictures"][0].mean())
        < 2
    )


def test_outlines_are_polygons_around_the_masks(two):
    outlines = page_data(two)["probes"][0]["outlines"]
    (polygon,) = outlines["nuisance"][0]
    corners = {(polygon[i], polygon[i + 1]) for i in range(0, len(polygon), 2)}
    assert corners == {(40, 40), (40, 45), (45, 40), (45, 45)}


def test_missing_looks_are_missing_and_undefined_values_are_null(two):
    data = page_data(two)
    _, broken = data["runs"]
    assert data["places"] == list(range(8))
    assert broken["places"] == [0, 1, 2, 3, 5, 6, 7]
    assert broken["frames"] == list(range(7))
    drift = next(s for s in broken["series"] if s["metric"] == "drift_ref" and s["method"] == "gradcam")
    assert [value is None for value in drift["mean"]] == [False] * 5 + [True, False]
    assert any("missing" in note for note in data["notes"])
    json.dumps(data, allow_nan=False)


def test_divergence_between_runs_is_scipys(two):
    (part,) = [part for part in page_data(two)["parts"] if part["method"] == "gradcam"]
    a, b = (run.records[-1].maps["gradcam", "layer4"].reshape(6, -1).astype(float) for run in two)
    expected = np.mean([jensenshannon(x, y, base=2) ** 2 for x, y in zip(a, b, strict=True)])
    assert part["runs"] == [0, 1]
    assert part["jsd"] == [[0.0, pytest.approx(expected, rel=1e-4)], [pytest.approx(expected, rel=1e-4), 0.0]]


def test_too_many_maps_are_thinned_evenly_and_it_says_so(two):
    data = page_data(two, budget=30 * 2 * 2 * 6 * 144)  # 30 places, of 8
    assert data["places"] == list(range(8))
    assert not any("Maps are shown" in note for note in data["notes"])

    few = page_data(two, budget=8 * 2 * 2 * 3 * 144)
    assert len(few["probes"][0]["ids"]) == 3
    assert few["probes"][0]["ids"] == ["im0", "im2", "im5"]
    assert len(few["probes"][0]["pictures"]) == 3
    assert any("3 of 6 probe images" in note for note in few["notes"])
    codes = read(few["runs"][0]["maps"][0]["codes"], np.uint8, 8, 3, 12, 12)
    whole = quantise(two[0].records[-1].maps["eigencam", "layer4"])[0]
    assert (codes[-1] == whole[[0, 2, 5]]).all()


def test_a_thousand_looks_of_256_images_fit(write_run):
    run = load_run(write_run("long", epochs=3))
    maps = {key: np.tile(value, (43, 1, 1))[:256] for key, value in run.records[1].maps.items()}
    long = replace(run, records=[replace(run.records[1], look=i, epoch=i, maps=maps) for i in range(1000)], probe={})
    data = page_data([long])
    assert 256 * 144 * len(data["places"]) <= 12_000_000 < 256 * 144 * (len(data["places"]) + 2)
    assert (data["places"][0], data["places"][-1]) == (0, 999)
    assert len(data["runs"][0]["series"][0]["mean"]) == 1000
    assert any("of 1000 epochs" in note for note in data["notes"])
    assert len(json.dumps(data)) < 25_000_000


def test_several_looks_in_an_epoch_are_set_over_looks(write_run):
    run = load_run(write_run("half"))
    halved = replace(run, records=[replace(record, epoch=record.look // 2) for record in run.records])
    data = page_data([halved])
    assert data["axis"] == "look"
    assert data["places"] == list(range(8))


def test_runs_of_other_probes_have_their_own_images(write_run):
    probe = {
        "fingerprint": "aa",
        "n": 6,
        "image_size": [48, 48],
        "ids": list("abcdef"),
        "class_names": None,
        "groups": None,
    }
    data = page_data([load_run(write_run("a")), load_run(write_run("b", probe=probe))])
    assert not data["same_probe"]
    assert [run["probe"] for run in data["runs"]] == [0, 1]
    assert data["probes"][1]["ids"] == list("abcdef")
    assert data["parts"] == []


def test_parameters_that_differ_are_facts(two):
    runs = [replace(run, params={"lr": lr, "epochs": "8"}) for run, lr in zip(two, ("0.1", "0.01"), strict=True)]
    facts = {fact["title"]: fact["values"] for fact in page_data(runs)["facts"]}
    assert facts["parameter lr"] == ["0.1", "0.01"]
    assert "parameter epochs" not in facts


def test_alerts_and_shifts_come_from_the_records(two):
    alert = Alert("off_target", "gradcam", "layer4", 5, 5, 4, 4, True, "enrichment is 0.4", ("im0",), "Look.")
    t = np.linspace(-9, 9, 144, dtype=np.float32).reshape(12, 12)
    records = [
        replace(
            record,
            alerts=(alert,) if record.look in (5, 6) else (),
            t_maps={("gradcam", "layer4"): t * record.look},
            metrics=record.metrics | {"cam/max_t_p/gradcam": 0.01 * record.look},
            reference={"gradcam/layer4": record.reference["gradcam/layer4"] | {"t_critical": 4.5}},
        )
        for record in two[0].records
    ]
    (run,) = page_data([replace(two[0], records=records)])["runs"]
    assert run["alerts"] == [
        {
            "rule": "off_target",
            "name": "off target (gradcam)",
            "method": "gradcam",
            "layer": "layer4",
            "raised": "enrichment is 0.4",
            "now": None,
            "cleared": 7,
            "advice": "Look.",
            "places": [5, 6],
        }
    ]
    eigencam, gradcam = run["maps"]
    assert eigencam["shift"] is None
    assert gradcam["shift"]["p"] == [0.01 * look for look in range(8)]
    assert gradcam["shift"]["critical"] == [4.5] * 8
    np.testing.assert_array_equal(read(gradcam["shift"]["t"], "<f4", 8, 12, 12)[3], t * 3)


def test_a_run_whose_rules_raised_nothing_can_say_so(two):
    records = [replace(record, metrics=record.metrics | {"cam/alert/diffuse": 0.0}) for record in two[0].records]
    data = page_data([replace(two[0], records=records)])
    (series,) = [series for series in data["runs"][0]["series"] if series["metric"] == "alert"]
    assert (series["method"], series["mean"]) == ("diffuse", [0.0] * 8)
    assert not any("alert" in key for key in data["numbers"])


def test_no_runs_no_page():
    with pytest.raises(ValueError, match="at least one run"):
        page_data([])


def test_of_many_runs_the_page_holds_those_that_differ_most(write_run):
    """Twelve that hardly differ, and three that do: these are in it, and the first, with which the others are compared."""
    many = [load_run(write_run(f"alike {i}", focus=0.6 + i / 1000, epochs=2)) for i in range(12)]
    others = [load_run(write_run(f"other {i}", on, focus=f, epochs=2)) for i, (on, f) in enumerate(OTHERS)]
    data = page_data([*many[:5], *others, *many[5:]])
    names = [run["name"] for run in data["runs"]]
    assert len(names) == 12 and names[0] == "alike 0" and {f"other {i}" for i in range(len(others))} <= set(names)
    assert any(note.startswith("This page holds 12 of 15 runs") for note in data["notes"])
    assert {len(group["rows"][0]["cells"]) for group in data["summary"]} == {12}
    few = page_data(many)
    assert len(few["runs"]) == 12 and not any("This page holds" in note for note in few["notes"])


OTHERS = (("masks", 0.95), ("nuisance", 0.9), ("nuisance", 0.3))
