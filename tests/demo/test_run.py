"""The demo end to end, twice into one folder, read back from both stores."""

import math

import mlflow
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cam_callbacks import RecordStore
from cam_callbacks.demo.data import make_probe, make_scenes
from cam_callbacks.demo.main import EXPERIMENT, run
from cam_callbacks.demo.report import Outcome, alerts, commands, story, table
from cam_callbacks.records import Alert, Record


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "a folder"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    return folder


@pytest.fixture(scope="module")
def printed(folder):
    """What two demos into one folder print; the working directory must stay as it was."""
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(elsewhere)
        patch.setattr("cam_callbacks.demo.main._out", said.append)
        assert run(folder, epochs=2, quick=True) == 0
        assert run(folder, epochs=1, quick=True) == 0
    assert not list(elsewhere.iterdir())
    return "\n".join(said)


def test_a_second_demo_stands_beside_the_first_and_deletes_nothing(folder, printed):
    names = {"clean": 2, "shortcut": 2, "clean-2": 1, "shortcut-2": 1}
    looks = {path.name: len(RecordStore(path / "cam")) for path in (folder / "tensorboard").iterdir()}
    assert looks == names
    assert (folder / "notes.txt").read_text() == "mine"


def test_records_hold_the_maps_of_one_probe_and_the_trainers_accuracy(folder, printed):
    stores = [RecordStore(folder / "tensorboard" / name / "cam") for name in ("clean", "shortcut")]
    expected = make_probe(make_scenes(seed=0, n_train=200, n_val=50).probe).fingerprint
    assert {store.manifest["probe"]["fingerprint"] for store in stores} == {expected}
    for store in stores:
        last = store[-1]
        assert last.maps["gradcam", "features"].shape == (100, 12, 12)
        assert math.isfinite(last.metrics["cam/on_target_enrichment/gradcam"])
        assert 0 <= last.user_metrics["val_acc"] <= 1


def test_tensorboard_holds_numbers_and_a_picture_for_each_epoch(folder, printed):
    events = EventAccumulator(str(folder / "tensorboard" / "clean"), size_guidance={"images": 0}).Reload()
    record = RecordStore(folder / "tensorboard" / "clean" / "cam")[-1]
    key = "cam/on_target_enrichment/gradcam"
    assert events.Scalars(key)[-1].value == pytest.approx(record.metrics[key], rel=1e-5)
    assert [image.step for image in events.Images("cam/gradcam/sheet")] == [0, 1]


def test_mlflow_holds_four_runs_two_comparisons_and_their_artifacts_inside_the_folder(folder, printed):
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment.artifact_location == (folder / "mlartifacts").as_uri()
    runs = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    compared = runs.pop("clean vs shortcut"), runs.pop("clean-2 vs shortcut-2")
    assert {"cam_compare.html", "cam_numbers.json"} <= {a.path for a in client.list_artifacts(compared[0].info.run_id)}
    assert set(runs) == {"clean", "shortcut", "clean-2", "shortcut-2"}
    assert {runs["clean"].data.params["tag_colour"], runs["shortcut"].data.params["tag_colour"]} == {"random", "class"}
    assert {r.info.status for r in runs.values()} == {"FINISHED"}
    assert {"cam_report.html", "cam_latest.png"} <= {a.path for a in client.list_artifacts(runs["clean"].info.run_id)}
    assert "val_acc" in runs["clean"].data.metrics


def test_page_strips_and_commands_are_there_and_named(folder, printed):
    assert (folder / "compare.html").stat().st_size > 10_000
    assert printed.endswith(f"{folder / 'compare.html'}")
    for strip in ("film_strip_clean_gradcam.png", "film_strip_shortcut-2_eigencam.png"):
        assert (folder / strip).is_file()
        assert strip in printed
    assert f"--logdir '{folder}/tensorboard' --samples_per_plugin images=1000" in printed
    assert f"ui --backend-store-uri 'sqlite:///{folder}/mlflow.db'" in printed


class Numbers(Outcome):
    """An outcome whose numbers are given."""

    def number(self, metric):
        digit, tag = self.store
        return {"on_target_enrichment": digit, "nuisance_enrichment": tag}.get(metric, math.nan)


def test_the_story_is_told_only_where_the_numbers_tell_it():
    clean, shortcut = Numbers("clean", (3.2, 0.1), 0.93, 0.92), Numbers("shortcut", (0.7, 5.6), 1.0, 0.0)
    assert "alone prefers the shortcut run (100.0% against 93.0%)" in story(clean, shortcut)
    assert "tag (5.6 times chance) and not at the digit (0.7 times chance)" in story(clean, shortcut)
    assert "not tell the two runs apart" in story(clean, Numbers("shortcut", (1.4, 1.2), 0.5, 0.5))
    assert "alone prefers" not in story(clean, Numbers("shortcut", (0.7, 5.6), 0.9, 0.0))
    rows = table([clean, shortcut]).splitlines()
    assert next(row.split()[-2:] for row in rows if row.startswith("validation accuracy")) == ["93.0%", "100.0%"]
    assert next(row.split()[-2:] for row in rows if row.strip().startswith("on the tag")) == ["0.10", "5.60"]


def test_each_alert_is_named_once_at_the_epoch_where_it_was_first_raised(printed):
    def look(epoch, *raised):
        of_look = [
            Alert(name, method, "features", epoch, epoch, epoch, epoch, new, f"{name} measured at {epoch}", (), "Look.")
            for name, method, new in raised
        ]
        return Record(look=epoch, epoch=epoch, step=epoch, metrics={}, maps={}, alerts=tuple(of_look))

    off, old, diffuse = ("off_target", "gradcam", True), ("off_target", "gradcam", False), ("diffuse", "eigencam", True)
    store = [look(0), look(1, diffuse), look(2, off), look(3, old), look(4), look(5, off)]
    head, clean, *said = alerts(
        [Numbers("clean", [look(0)], 0.9, 0.9), Numbers("shortcut", store, 1.0, 0.0)]
    ).splitlines()
    assert clean.split() == ["clean", "none"]
    assert [line.split() for line in said] == [
        ["shortcut", "epoch", "2", "diffuse", "(eigencam):", "diffuse", "measured", "at", "1"],
        ["epoch", "3", "off_target", "(gradcam):", "off_target", "measured", "at", "2"],
    ]
    assert head in printed


def test_commands_quote_what_a_shell_would_split(tmp_path):
    tensorboard, ui = commands(tmp_path / "it's here", "sqlite:////a b/mlflow.db")
    assert "'\"'\"'" in tensorboard
    assert ui.endswith("ui --backend-store-uri 'sqlite:////a b/mlflow.db'")
