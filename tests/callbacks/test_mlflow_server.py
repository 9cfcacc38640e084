"""A real MLflow server on loopback, and the local SQLite file: written by real fits, read back through MLflow's client."""

import json
import re
import socket
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from cam_callbacks import CAMCallback, ProbeSet, RecordStore
from cam_callbacks.cli import main
from cam_callbacks.compare import LoadError, compare_runs, load_runs
from cam_callbacks.compare.to_mlflow import table_of


@pytest.fixture(params=["server", "sqlite"])
def uri(request, tmp_path):
    if request.param == "server":
        return request.getfixturevalue("mlflow_server")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def trained(fit, pl, data, masks, uri, tmp_path):
    """Two fits of three epochs in one experiment, that differ in a parameter; run ids, and their records' folders."""
    probe = ProbeSet(data.tensors[0][:4], data.tensors[1][:4], masks=masks[:4], ids=list("abcd"))
    lightning = pl("pytorch_lightning")
    runs, folders = [], []
    for number in (1, 2):
        flow = lightning.loggers.MLFlowLogger(
            tmp_path.name,
            run_name=f"run {number}",
            tracking_uri=uri,
            artifact_location=None if uri.startswith("http") else (tmp_path / "artifacts").as_uri(),
        )
        flow.log_hyperparams({"number": number, "kind": "small"})
        callback = CAMCallback(probe, methods=("eigencam", "gradcam"), report_every_n_looks=2, on_error="raise")
        fit(callback, logger=flow)
        runs.append(flow.run_id)
        folders.append(callback.store.folder)
    return runs, folders


def artifacts(client, run, path=None):
    return {item.path for item in client.list_artifacts(run, path)}


def test_what_a_fit_leaves_in_mlflow_and_what_compare_makes_of_it(trained, uri, tmp_path, capsys):
    runs, folders = trained
    client = MlflowClient(tracking_uri=uri)
    for run in runs:
        assert {"cam_report.html", "cam_latest.png", "cam_filmstrip.png"} <= artifacts(client, run)
        records = artifacts(client, run, "cam/records")
        assert {f"cam/records/{f}" for f in ("manifest.json", "probe.npz", "look-000002.npz")} <= records
    page = client.download_artifacts(runs[0], "cam_report.html", str(tmp_path))
    assert "run 1" in Path(page).read_text("utf-8")
    assert grid(client, runs[0]) == grid(client, runs[1])
    assert {step for _, step in grid(client, runs[0])} == {0, 1, 2}

    mine = ["--tracking-uri", uri, "-o", str(tmp_path / "page.html")]
    assert main(["compare", *runs, *mine, "--group-by", "number", "--fail-if", "valid_frac/gradcam < 0"]) == 0
    assert "run 2" in capsys.readouterr().out
    assert main(["report", runs[0], "--json", "--tracking-uri", uri]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runs"][0]["params"]["number"] == "1"
    last = RecordStore(folders[0])[-1].metrics
    entropy = next(n for n in found["numbers"] if n["metric"] == "entropy" and n["of"].startswith("gradcam"))
    assert entropy["runs"]["run 1"]["final"] == last["cam/entropy/gradcam"]

    choose_from_an_experiment(tmp_path.name, uri)
    log_a_comparison(client, runs, uri, tmp_path, capsys)


def grid(client, run):
    """(key, step) of the stepped images: what MLflow's image grid lines up across runs."""
    names = artifacts(client, run, "images")
    return {(found[1], int(found[2])) for name in names if (found := re.match(r"images/(.+?)\+step\+(\d+)\+", name))}


def choose_from_an_experiment(name, uri):
    frame = load_runs(f"experiment:{name}", tracking_uri=uri)
    assert frame.groupby("run").size().to_dict() == {"run 1": 3, "run 2": 3}
    assert frame["cam/entropy/gradcam"].notna().all()
    last = compare_runs(f"experiment:{name}", tracking_uri=uri, last=1)
    assert [run.name for run in last.runs] == ["run 2"]
    chosen = compare_runs(f"experiment:{name}", tracking_uri=uri, query="params.number = '1'")
    assert [run.name for run in chosen.runs] == ["run 1"]
    for spec, query, words in (
        (f"experiment:{name}", "params.number = '9'", "no runs with records that match"),
        (f"experiment:{name}", "nonsense ===", "cannot be read"),
        ("experiment:none", None, f"no MLflow experiment 'none'.*{name}"),
    ):
        with pytest.raises(LoadError, match=words):
            compare_runs(spec, tracking_uri=uri, query=query)


def log_a_comparison(client, runs, uri, tmp_path, capsys):
    before = mlflow.active_run()
    experiment = f"{tmp_path.name} comparisons"
    mine = ["--tracking-uri", uri, "-o", str(tmp_path / "page.html")]
    assert main(["compare", *runs, *mine, "--log", experiment]) == 0
    run_id = re.search(r"MLflow run: (\w{32})", capsys.readouterr().out)[1]
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED" and mlflow.active_run() == before
    assert client.get_experiment(run.info.experiment_id).name == experiment
    tags = run.data.tags
    assert (tags["cam.comparison"], tags["cam.compared.0"], tags["cam.compared.1"]) == ("true", *runs)
    page = client.download_artifacts(run_id, "cam_compare.html", str(tmp_path))
    assert "run 1" in Path(page).read_text("utf-8")
    table = json.loads(Path(client.download_artifacts(run_id, "cam_numbers.json", str(tmp_path))).read_text("utf-8"))
    comparison = compare_runs(*runs, tracking_uri=uri)
    expected = table_of(comparison.runs, comparison.table)
    assert table["columns"] == list(expected) and "param number" in table["columns"]
    rows = dict(zip(expected, zip(*table["data"], strict=True), strict=True))
    assert rows["run_id"] == tuple(runs) and rows["param number"] == ("1", "2")
    np.testing.assert_allclose(np.array(rows["val_acc"], float), expected["val_acc"])
    with pytest.raises(LoadError, match="no runs with records"):
        compare_runs(f"experiment:{experiment}", tracking_uri=uri)  # a comparison is no run to compare


def test_a_server_that_is_down_is_said_soon():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(LoadError, match=r"cannot be read at 'http://127"):
        compare_runs("experiment:x", tracking_uri=uri)
