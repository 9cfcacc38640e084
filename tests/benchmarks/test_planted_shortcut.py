"""The evidence: its trainings differ as they say, its replay is what happened, and its page says what its figures say."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cam_callbacks.demo.data import MEAN, STD, TAG_COLOURS, make_scenes

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from shortcut import figures, page  # noqa: E402
from shortcut.arms import ARMS, ONSET, MovingTag  # noqa: E402
from shortcut.claims import claims  # noqa: E402
from shortcut.train import Data, Settings, train  # noqa: E402

SMALL = Settings(seed=3, epochs=8, train_images=512, val_images=40, methods=("eigencam", "gradcam"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A short training with the shortcut from the start."""
    folder = tmp_path_factory.mktemp("evidence")
    return train(ARMS["shortcut"], SMALL, folder)


def test_a_run_leaves_a_record_for_each_epoch_with_both_accuracies(finished):
    run = figures.Run.read(finished)
    assert [look.epoch for look in run.looks] == list(range(8))
    assert {"val_acc", "val_acc_swapped"} <= run.looks[-1].user_metrics.keys()
    assert run.looks[-1].user_metrics["val_acc"] > 2 * run.looks[-1].user_metrics["val_acc_swapped"]
    assert run.looks[-1].maps["gradcam", "features"].shape == (100, 12, 12)


def test_a_finished_run_is_not_repeated(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert train(ARMS["shortcut"], SMALL, finished.parent) == finished
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_rules_over_recorded_numbers_raise_the_alerts_that_were_raised_while_training(finished):
    run = figures.Run.read(finished)
    live = [alert for look in run.looks for alert in look.alerts if alert.new]
    assert {alert.name for alert in live} >= {"off_target"}
    assert figures.replay(run) == live


def test_distances_are_those_of_the_last_maps_and_kept(finished):
    run = figures.Run.read(finished)
    found = figures.drifts(finished)
    settled = run.reference("gradcam")["look"]
    assert run.reference_set("gradcam")
    assert found["gradcam/Jensen–Shannon/settled"] == pytest.approx(run.curve("drift_ref", "gradcam")[-1])
    assert found["gradcam/centroid shift/settled"] == pytest.approx(run.curve("centroid_shift", "gradcam")[-1])
    assert settled > 0
    assert found["gradcam/1 − SIM/first"] > 0
    assert json.loads((finished / "drifts.json").read_text()) == found


@pytest.mark.parametrize("arm", ["clean", "shortcut", "onset"])
def test_the_colour_tells_the_class_from_the_epoch_on_that_the_arm_names(arm):
    data = Data(ARMS[arm], Settings(train_images=200, val_images=50))
    for epoch in (0, ONSET - 1, ONSET):
        data.trainer = SimpleNamespace(current_epoch=epoch)
        told = ARMS[arm].since is not None and epoch >= ARMS[arm].since
        for loader in (data.train_dataloader(), data.val_dataloader()):
            images, labels = loader.dataset.tensors
            shown = torch.cdist(images[:, :, 0, 0] * STD + MEAN, TAG_COLOURS).argmin(1)
            assert bool((shown == labels).all()) == told


def test_before_the_onset_the_training_is_the_clean_one():
    clean, onset = (Data(ARMS[arm], Settings(train_images=100, val_images=20)) for arm in ("clean", "onset"))
    for data in (clean, onset):
        data.trainer = SimpleNamespace(current_epoch=ONSET - 1)
    for ours, theirs in zip(clean.train_dataloader(), onset.train_dataloader(), strict=True):
        assert torch.equal(ours[0], theirs[0])
    assert clean.probe.fingerprint == onset.probe.fingerprint


def test_a_moving_tag_is_elsewhere_in_each_image_and_on_no_digit():
    scenes = make_scenes(0, n_train=60, n_val=10).train
    images = scenes.images.clone()
    where = MovingTag(scenes, seed=1)(images, TAG_COLOURS[scenes.labels])
    assert (where.sum((1, 2)) == 64).all()
    assert not (where & scenes.digits).any()
    assert torch.unique(where.flatten(1), dim=0).shape[0] > 50
    assert torch.equal(images[~where[:, None].expand_as(images)], scenes.images[~where[:, None].expand_as(images)])
    assert torch.allclose(images.permute(0, 2, 3, 1)[where], TAG_COLOURS[scenes.labels].repeat_interleave(64, 0))


def test_the_fall_is_the_paired_t_of_what_is_defined():
    now, then = np.array([1.0, 2.0, np.nan, 2.5]), np.array([2.0, 2.5, 1.0, 4.0])
    share, t = figures.fall(now, then)
    change = np.array([-1.0, -0.5, -1.5])
    assert share == pytest.approx(1 / 8.5 * 3)
    assert t == pytest.approx(change.mean() / (change.std(ddof=1) / np.sqrt(3)))


@pytest.fixture(scope="module")
def summary():
    """The committed figures."""
    return json.loads((ROOT / "benchmarks" / "results" / "planted_shortcut.json").read_text(encoding="utf-8"))


def test_every_claim_holds_on_every_seed(summary):
    assert len(summary["settings"]["seed"]) >= 3
    assert [claim.text for claim in claims(summary) if not claim.holds] == []


def test_a_claim_fails_where_its_figures_do(summary):
    worse = json.loads(json.dumps(summary))
    wrong = [{"name": "focus_moved", "epoch": 0}]
    for run in worse["runs"]:
        run["alerts"]["gradcam"] = wrong if run["arm"] in ("clean", "moving") else []
        run["ended"]["gradcam"] |= {"on_target_enrichment": 1.0, "nuisance_enrichment": 2.0, "entropy": 0.9}
        run["ended"]["eigencam"]["drift_ref"] = 0.01
        run["alerts"]["eigencam"] = []
    assert not any(claim.holds for claim in claims(worse))


def test_the_page_is_what_the_figures_say(summary):
    assert (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8") == page.page(summary)
