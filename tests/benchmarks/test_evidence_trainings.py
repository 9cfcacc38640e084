"""The trainings of the evidence: scenes and cues are what they say; a training runs, is kept, is looked at, and is not repeated."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from cam_callbacks import RecordStore

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from evidence import cues, groups, looks, networks, plans, scenes, train, variations  # noqa: E402
from evidence.data import Data  # noqa: E402
from evidence.plans import Training, plan  # noqa: E402
from evidence.summary import summary  # noqa: E402

HEALTHY = Training("set", "blobs", "pooled", 3, size=0.2, epochs=2)
ONSET = Training("set", "shapes", "pooled", 4, cue="border", onset=1, before="random", size=0.4, epochs=3, probe=8)
PLACED = ("tag", "moving", "border", "watermark", "companion")


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A folder with both small trainings, finished."""
    out = tmp_path_factory.mktemp("evidence")
    for training in (HEALTHY, ONSET):
        train.run(training, out)
    return out


@pytest.mark.parametrize("family", scenes.FAMILIES)
def test_a_seed_decides_the_scenes_and_objects_keep_out_of_the_corner(family):
    drawn, again, other = (scenes.draw(family, 60, seed) for seed in (1, 1, 2))
    assert np.array_equal(drawn.images, again.images) and np.array_equal(drawn.masks, again.masks)
    assert not np.array_equal(drawn.images, other.images)
    assert set(np.bincount(drawn.labels)) == {60 // len(scenes.FAMILIES[family].classes)}
    assert (drawn.masks.sum((1, 2)) > 20).all() and drawn.masks.mean() < 0.35
    assert not drawn.masks[:, : scenes.CORNER - 1, : scenes.CORNER - 1].any()
    assert drawn.images.min() >= 0 and drawn.images.max() <= 1


def test_masks_are_where_the_objects_are():
    drawn = scenes.draw("shapes", 100, 0)  # bright on dark
    brightness = drawn.images.mean(1)
    assert (np.where(drawn.masks, brightness, np.nan)[drawn.masks] > 0.5).all()
    assert np.quantile(brightness[~drawn.masks], 0.99) < 0.65
    disc, ring = (drawn.masks[drawn.labels == c] for c in (0, 4))
    centres = [[mask[tuple(np.argwhere(mask).mean(0).round().astype(int))] for mask in masks] for masks in (disc, ring)]
    assert all(centres[0]) and not any(centres[1])


def test_handwriting_that_is_held_out_is_in_no_training_image():
    train_scans, held_out = ({scan.tobytes() for scan in scenes.handwriting(part)[0]} for part in (False, True))
    assert not train_scans & held_out
    assert len(held_out) == pytest.approx(1797 / 5, abs=5)


@pytest.mark.parametrize("cue", cues.CUES)
def test_a_swapped_cue_is_in_the_same_place_and_speaks_for_another_class(cue):
    drawn = scenes.draw("shapes", 100, 0)
    swapped = cues.values_for(drawn.labels, "swapped", 5, 1)
    assert (swapped != drawn.labels).all() and set(swapped) == set(range(5))
    told, where = cues.paint(cue, drawn, drawn.labels, 5, seed=1)
    lied, there = cues.paint(cue, drawn, swapped, 5, seed=1)
    assert (told != lied).any((1, 2, 3)).all()
    assert not np.array_equal(told, drawn.images)
    assert (where is not None) == (cue in PLACED)
    if where is not None:
        assert np.array_equal(where, there)
        outside = ~np.broadcast_to(where[:, None], told.shape)
        assert np.array_equal(told[outside], drawn.images[outside]) and np.array_equal(
            lied[outside], drawn.images[outside]
        )
    again, _ = cues.paint(cue, drawn, np.where(np.arange(100) < 50, drawn.labels, swapped), 5, seed=1)
    assert np.array_equal(again, np.where((np.arange(100) < 50)[:, None, None, None], told, lied))


def test_cues_beside_the_object_leave_it_alone_and_the_background_stops_at_it():
    drawn = scenes.draw("shapes", 200, 0)
    for cue in ("tag", "moving", "border", "companion", "background"):
        images, where = cues.paint(cue, drawn, drawn.labels, 5, seed=1)
        covered = (images != drawn.images).any(1) & drawn.masks
        assert covered.any((1, 2)).mean() <= (0.05 if cue == "companion" else 0), cue
        if cue in ("moving", "companion"):
            assert len(np.unique(where.reshape(200, -1), axis=0)) > 100


def colours_in_the_corner(pictures, classes):
    shown = pictures[:, :, 3, 3]
    return np.abs(shown[:, None] - cues.COLOURS[:classes]).sum(2).argmin(1)


def test_the_cue_tells_the_class_as_often_as_the_plan_says():
    data = Data(Training("set", "shapes", "cnn", 0, cue="tag", agreement=0.9))
    assert data.agrees.mean() == pytest.approx(0.9)
    assert (colours_in_the_corner(data.pictures(0), 5) == data.labels(0)).mean() == pytest.approx(0.9)
    silent = Data(Training("set", "shapes", "cnn", 0, cue="tag", informs="random"))
    assert (colours_in_the_corner(silent.pictures(0), 5) == silent.labels(0)).mean() == pytest.approx(0.2, abs=0.05)


def test_an_onset_brings_other_images_whose_cue_goes_with_what_training_is_told():
    told = Training("set", "shapes", "cnn", 0, "label-noise", cue="tag", onset=3)
    absent, random = (Data(replace(told, before=before)) for before in ("absent", "random"))
    assert absent.pictures(2) is absent.pictures(0) and np.array_equal(absent.pictures(2), absent.before.images)
    assert np.array_equal(absent.pictures(3), random.pictures(3)) and absent.pictures(3) is absent.pictures(4)
    assert not np.isin(absent.train.images.mean((1, 2, 3)), absent.before.images.mean((1, 2, 3))).all()
    assert (colours_in_the_corner(random.pictures(2), 5) == random.labels(2)).mean() == pytest.approx(0.2, abs=0.05)
    assert (colours_in_the_corner(random.pictures(3), 5) == random.labels(3)).all()
    for epoch, classes in ((2, random.before.labels), (3, random.train.labels)):
        assert (random.labels(epoch) != classes).mean() == pytest.approx(0.1)


def test_the_probe_is_chosen_among_the_validation_images_and_carries_the_cue_as_training_does():
    data = Data(Training("judged", "letters", "cnn", 1, cue="moving"))
    probe = data.probe(18)
    assert Counter(probe.labels.tolist()) == dict.fromkeys(range(6), 3)
    assert np.array_equal(probe.images, data.validation("agree")[probe.rows])
    assert np.array_equal(probe.without, data.val.images[probe.rows])
    assert np.array_equal(
        (probe.images != probe.without).any(1), probe.nuisance & (probe.images != probe.without).any(1)
    )
    assert Data(HEALTHY).probe().nuisance is None


def test_variations_change_what_they_say():
    noisy, rare, new = (
        Data(Training("set", "shapes", "cnn", 0, name)) for name in ("label-noise", "imbalance", "new-images")
    )
    assert new.pictures(0) is new.pictures(6) is not new.pictures(7) and new.pictures(7) is new.train.images
    assert (noisy.labels(0) != noisy.train.labels).mean() == pytest.approx(0.1)
    counts = np.bincount(rare.train.labels)
    assert counts.max() / counts.min() == pytest.approx(8, rel=0.1) and len(set(np.bincount(rare.val.labels))) == 1
    rates = {name: [variations.pace(name, progress / 100) for progress in range(100)] for name in plans.VARIATIONS}
    assert set(rates["plain"]) == {1} and set(rates["large-rate"]) == {2.5} and set(rates["step"]) == {1, 0.1}
    assert rates["cosine"] == sorted(rates["cosine"], reverse=True)
    assert rates["restarts"][:50] == pytest.approx(rates["restarts"][50:]) and rates["restarts"][49] < 0.01
    assert (
        max(rates["one-cycle"]) == pytest.approx(2, rel=0.01)
        and rates["one-cycle"].index(max(rates["one-cycle"])) == 30
    )
    on, off = (
        [variations.augments(name, progress) for progress in (0.4, 0.5)] for name in ("augment-on", "augment-off")
    )
    assert on == [False, True] and off == [True, False]
    model = networks.build("resnet", 4, 0)
    for progress, frozen in ((0.4, True), (0.5, False)):
        variations.freeze("unfreeze", "resnet", model, progress)
        assert model.stem[0].weight.requires_grad != frozen and model.head.weight.requires_grad


def test_a_shift_moves_every_image_by_itself_and_loses_nothing():
    pictures = np.zeros((50, 3, 32, 32), dtype=np.float32)
    pictures[:, :, 16, 16] = 1
    shifted = variations.augmented(pictures, np.random.default_rng(0)).mean(1).reshape(50, -1).argmax(1)
    places = np.stack([shifted // 32, shifted % 32])
    assert abs(places - 16).max() == 3 and len(np.unique(places, axis=1).T) > 20


@pytest.mark.parametrize("name", ["cnn", "resnet", "vit", "pooled"])
def test_a_seed_decides_a_network_and_moves_no_random_state(name):
    state = torch.random.get_rng_state()
    first, again, other = (networks.build(name, 4, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_the_mobilenet_keeps_its_stem():
    from evidence.mobilenet import FROZEN, MobileNetV2

    model = MobileNetV2(4)
    model.features[:FROZEN].requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    model(torch.randn(4, 3, 64, 64)).sum().backward()
    after, kept = model.state_dict(), networks.changing(model)
    moved = {key for key in before if not torch.equal(before[key], after[key])}  # BatchNorm's statistics
    assert moved and moved <= kept.keys()
    assert all(key.startswith(tuple(f"features.{i}." for i in range(FROZEN))) for key in before.keys() - kept.keys())


def test_what_is_left_gives_back_each_epochs_network(out):
    data = Data(ONSET)
    predicted = np.load(out / ONSET.id / "predictions.npz")
    assert predicted["agree"].shape == (3, 240)
    for epoch, model in looks.models(ONSET, out):
        for version in ("agree", "swapped"):
            images = networks.prepare("pooled", data.validation(version))
            now = train.through(model, images).argmax(1).numpy()
            assert np.array_equal(now, predicted[version][epoch])
    assert epoch == 2
    probe = np.load(out / ONSET.id / "probe.npz")
    assert np.array_equal(probe["images"], data.probe().images) and probe["nuisance"].any((1, 2)).all()


def test_accuracies_and_gap_are_those_of_the_predictions(out):
    done = json.loads((out / ONSET.id / "training.json").read_text())
    predicted = np.load(out / ONSET.id / "predictions.npz")
    right = {version: predicted[version] == predicted["labels"] for version in ("agree", "swapped")}
    assert done["gap"] == pytest.approx((right["agree"].mean(1) - right["swapped"].mean(1)).tolist())
    assert done["accuracy"]["natural"] == pytest.approx(right["agree"].mean(1).tolist())
    worst = min(each[2, predicted["labels"] == c].mean() for each in right.values() for c in range(5))
    assert done["worst_group"][2] == pytest.approx(worst)
    assert abs(done["gap"][0]) < 0.25 < done["gap"][2]  # it learns the cue when the cue comes
    assert [groups.role({"gap": [gap]}) for gap in (0.6, 0.4, 0.1)] == ["decides", "beside", "unlearned"]
    ended = [{"training": {"scenes": "digits"}, "accuracy": {"natural": [0.9, last]}} for last in (0.3, 0.1)]
    assert [groups.role(each) for each in ended] == ["healthy", "untrained"]
    assert "decides" in summary([HEALTHY, ONSET], out) or "beside" in summary([HEALTHY, ONSET], out)


def test_a_finished_training_is_not_repeated_and_a_changed_one_is(out, monkeypatch):
    before = files(out / HEALTHY.id)
    train.run(HEALTHY, out)
    assert files(out / HEALTHY.id) == before
    assert not train.is_finished(replace(HEALTHY, epochs=3), out)
    monkeypatch.setitem(train.REVISED, "pooled", 3)
    assert not train.is_finished(HEALTHY, out)


def test_a_training_is_the_same_again(out, tmp_path):
    train.run(HEALTHY, tmp_path)
    first, again = (torch.load(folder / HEALTHY.id / "weights.pt") for folder in (out, tmp_path))
    assert all(torch.equal(a[key], b[key]) for a, b in zip(first, again, strict=True) for key in a)


def test_looks_are_kept_until_the_code_that_looks_has_another_stamp(out):
    done = looks.run(ONSET, out, "one")
    records = RecordStore(out / ONSET.id / "records")
    assert done["looks"] == len(records) == 3 and [record.epoch for record in records] == [0, 1, 2]
    assert records[-1].maps["gradcam", "features"].shape[0] == 8
    assert "cam/nuisance_enrichment/gradcam" in records[-1].metrics
    before = files(out / ONSET.id)
    assert looks.run(ONSET, out, "one") == done and files(out / ONSET.id) == before
    assert looks.is_done(ONSET, out, "one") and not looks.is_done(ONSET, out, "two")
    looks.run(ONSET, out, "two")
    assert looks.is_done(ONSET, out, "two") and len(RecordStore(out / ONSET.id / "records")) == 3


def test_other_probes_need_no_other_training(out):
    blind = looks.look_at(ONSET, out, None, n=10, with_cue=False, with_masks=False)
    assert len(blind.probe) == 10 and blind.probe.masks is None and blind.probe.nuisance is None
    assert torch.equal(blind.probe.images, networks.prepare("pooled", Data(ONSET).probe(10).without))


def test_the_plan_has_what_it_promises_and_judges_what_was_not_set():
    every = plan()
    assert len({training.id for training in every}) == len(every)
    count = Counter((training.part, training.healthy) for training in every)
    assert count["judged", True] >= 110 and count["judged", False] >= 110 and min(count.values()) >= 40
    cued = [training for training in every if not training.healthy]
    assert sum(training.onset is not None for training in cued) == len(cued) / 3
    for part, kinds in (("set", plans.SET_SCENES), ("judged", plans.JUDGED_SCENES)):
        assert {training.scenes for training in every if training.part == part} == set(kinds)
    assert not set(plans.SET_SCENES) & set(plans.JUDGED_SCENES)
    judged = [training for training in every if training.part == "judged"]
    assert {t.network for t in judged} == set(networks.NETWORKS)
    assert {t.cue for t in cued if t.part == "judged"} == set(cues.CUES)
    for training in every:
        epochs = networks.NETWORKS[training.network].epochs
        assert training.onset is None or 3 <= training.onset <= epochs - 3
        assert training.cue is None or len(scenes.FAMILIES[training.scenes].classes) <= cues.CUES[training.cue].most
    tenth = plan(quick=True)
    assert len(tenth) == -(-len(every) // 10) and set(tenth) <= set(every)
    assert {(t.part, t.healthy) for t in tenth} == set(count)
    assert plans.find(every[7].id) == every[7]
    with pytest.raises(KeyError, match="evidence plan"):
        plans.find("no-such")


def test_ctrl_c_leaves_no_half_training_and_the_next_run_goes_on(tmp_path):
    script = f"""
import sys; from functools import partial; from pathlib import Path
from evidence import train; from evidence.plans import Training; from evidence.workers import side_by_side
todo = [Training("set", "blobs", "pooled", seed, size=0.3, epochs=3) for seed in range(6)]
out = Path({str(tmp_path)!r})
todo = [training for training in todo if not train.is_finished(training, out)]
sys.exit(side_by_side(partial(train.run, out=out), todo, 6, 1))
"""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}"}
    command = [sys.executable, "-c", script]
    # A shell's job in the background ignores SIGINT, and so would its children.
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=heeding) as process:
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert first.startswith("[1/6") and process.returncode == 130 and "Stopped" in rest, first + rest
    made = {path.name for path in tmp_path.iterdir()}
    assert 1 <= len(made) < 6 and all((tmp_path / name / "training.json").is_file() for name in made)
    kept = files(tmp_path)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.startswith(f"[{len(made) + 1}/6"), done.stderr
    assert len(list(tmp_path.iterdir())) == 6 and kept.items() <= files(tmp_path).items()
