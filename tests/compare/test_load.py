import json
import shutil

import mlflow
import numpy as np
import pytest

from cam_callbacks.compare import LoadError, load_run, load_runs, select_runs
from cam_callbacks.keys import Key
from cam_callbacks.records import RecordError, RecordStore
from cam_callbacks.tensorboard_plugin.watch import Watch


def test_a_folder_of_records_is_read_whole(write_run, probe_arrays):
    run = load_run(write_run("clean"))

    assert run.name == "clean"
    assert [record.epoch for record in run.records] == list(range(8))
    assert run.keys[Key("drift_ref", "gradcam", "layer4")] == "cam/drift_ref/gradcam"
    assert run.keys[Key("seconds")] == "cam/seconds"
    assert run.reference("gradcam", "layer4")["floor"] == 0.02
    assert run.per_image("drift_ref", "gradcam", "layer4").shape == (6,)
    np.testing.assert_array_equal(run.probe["pictures"], probe_arrays["pictures"])
    assert run.warnings == ()


def test_keys_of_a_named_callback_with_several_layers_and_a_plus(write_run):
    run = load_run(write_run("clean", name="aux", methods=["gradcam++"], layers=["layer3", "layer4"]))

    assert run.keys[Key("entropy", "gradcam++", "layer3")] == "cam/aux/entropy/gradcampp/layer3"
    assert run.per_image("entropy", "gradcam++", "layer4") is not None
    assert Key("entropy", "gradcam", "layer3") not in run.keys


def test_a_log_folder_above_one_folder_of_records(write_run, tmp_path):
    write_run("clean", folder=tmp_path / "lightning_logs" / "version_0" / "cam")

    assert load_run(tmp_path / "lightning_logs").name == "clean"


def test_several_folders_below_are_listed(write_run, tmp_path):
    for version in ("version_0", "version_1"):
        write_run("run", folder=tmp_path / "logs" / version / "cam")

    with pytest.raises(LoadError, match=r"2 folders of records.*version_0/cam.*version_1/cam"):
        load_run(tmp_path / "logs")


def test_equal_names_become_unique(write_run):
    assert [run.name for run in select_runs([write_run("a"), write_run("a"), write_run("a (2)")]).runs] == [
        "a",
        "a (2)",
        "a (2) (2)",
    ]


def test_runs_called_by_their_folder_are_named_as_in_tensorboards_list(write_run, tmp_path):
    """As a CAMLoop in ``<run>/cam`` calls itself; a name that somebody gave stays."""
    for run in ("a/first", "a/second", "b/first"):
        write_run("cam", folder=tmp_path / "logs" / run / "cam")
    write_run("own", folder=tmp_path / "logs" / "third" / "cam")
    names = [run.name for run in select_runs([tmp_path / "logs"]).runs]
    assert names == ["a/first", "a/second", "b/first", "own"]
    assert names[:3] == sorted(Watch(str(tmp_path / "logs")).runs())[:3]
    assert [run.name for run in select_runs([tmp_path / "logs" / "a" / "second"]).runs] == ["second"]


def test_a_damaged_look_is_left_out_and_said(write_run):
    folder = write_run("clean")
    RecordStore(folder).path(3).write_bytes(b"half of a file")

    run = load_run(folder)

    assert [record.look for record in run.records] == [0, 1, 2, 4, 5, 6, 7]
    assert run.warnings[0].startswith("look 3 is left out: look-000003.npz is damaged")


def test_missing_looks_and_damaged_pictures_are_said(write_run):
    folder = write_run("clean", skip=(2, 5))
    (folder / "probe.npz").write_bytes(b"x")

    run = load_run(folder)

    assert run.warnings[0] == "2 of its looks are missing: 2, 5"
    assert run.warnings[1].startswith("no pictures: probe.npz is damaged")
    assert run.probe == {}


def test_all_looks_damaged(write_run):
    folder = write_run("clean", epochs=1)
    RecordStore(folder).path(0).write_bytes(b"x")

    with pytest.raises(LoadError, match="none of the 1 looks"):
        load_run(folder)


def test_an_empty_run(write_run):
    with pytest.raises(LoadError, match="no look yet"):
        load_run(write_run("clean", epochs=0))


def test_a_newer_schema(write_run):
    folder = write_run("clean")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"schema": 99}))

    with pytest.raises(RecordError, match=r"schema 99.*Update cam-callbacks"):
        load_run(folder)


def test_no_such_folder_and_no_records(tmp_path):
    with pytest.raises(LoadError, match="no folder 'nowhere'"):
        load_run("nowhere")
    with pytest.raises(LoadError, match="no records in"):
        load_run(tmp_path)


def test_the_numbers_as_a_frame(write_run):
    frame = load_runs(write_run("clean"), write_run("shortcut", "nuisance", epochs=5))

    assert frame.groupby("run").size().to_dict() == {"clean": 8, "shortcut": 5}
    last = frame[frame.run == "clean"].iloc[-1]
    assert (last.epoch, last.step, last.val_acc) == (7, 70, 0.7)
    assert last["cam/on_target_enrichment/gradcam"] > 5


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def log(tracking_uri, tmp_path):
    """Log folders as artifacts of a new MLflow run; returns its id."""
    client = mlflow.MlflowClient(tracking_uri=tracking_uri)
    name = str(tmp_path.name)
    experiment = client.create_experiment(name, artifact_location=(tmp_path / "artifacts").as_uri())

    def log(**folders):
        run = client.create_run(experiment, run_name="from mlflow")
        client.log_param(run.info.run_id, "lr", 0.1)
        for path, folder in folders.items():
            for file in folder.iterdir():
                client.log_artifact(run.info.run_id, str(file), path.replace("__", "/"))
        return run.info.run_id

    return log


def test_a_run_goes_through_mlflow_and_back(write_run, log, tracking_uri):
    folder = write_run("clean")
    run_id = log(cam__records=folder)

    run = load_run(run_id, tracking_uri)

    assert run.name == "from mlflow"
    assert run.params == {"lr": "0.1"}
    assert [record.metrics for record in run.records] == [record.metrics for record in RecordStore(folder)]
    np.testing.assert_array_equal(
        run.records[-1].maps["gradcam", "layer4"], RecordStore(folder)[-1].maps["gradcam", "layer4"]
    )


def test_what_mlflow_keeps_on_this_disk_is_read_in_place(write_run, log, tracking_uri, monkeypatch):
    """Hundreds of runs are not copied to be compared."""
    run_id = log(cam__records=write_run("clean"))
    monkeypatch.setattr(mlflow.MlflowClient, "download_artifacts", lambda *_: pytest.fail("copied"))
    assert len(load_run(run_id, tracking_uri).records) == 8


def test_records_of_several_callbacks_in_one_mlflow_run(write_run, log, tracking_uri):
    run_id = log(cam__one__records=write_run("a", name="one"), cam__two__records=write_run("b", name="two"))

    with pytest.raises(LoadError, match=rf"2 callbacks.*{run_id}/cam/one/records, {run_id}/cam/two/records"):
        load_run(run_id, tracking_uri)
    assert load_run(f"{run_id}/cam/two/records", tracking_uri).manifest["name"] == "two"


def test_mlflow_runs_that_cannot_be_read(log, tracking_uri, tmp_path):
    with pytest.raises(LoadError, match="no artifacts under cam/records"):
        load_run(log(), tracking_uri)
    with pytest.raises(LoadError, match="cannot be read at"):
        load_run("0" * 32, tracking_uri)
    with pytest.raises(LoadError, match="no MLflow database"):
        load_run("0" * 32, f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()


def test_nothing_of_mlflow_is_left_on_disk(write_run, log, tracking_uri, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    folder = write_run("clean")
    shutil.rmtree(temporary)
    temporary.mkdir()

    load_run(log(cam__records=folder), tracking_uri)

    assert list(temporary.iterdir()) == []
