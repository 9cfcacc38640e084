"""From accepted trainings to thresholds, and from these to the alerts of the next training: through the doors that users take."""

from __future__ import annotations

import itertools
import json
import math

import pytest
from torch import nn

from cam_callbacks import CAMCallback, CAMMonitor, ProbeSet, RecordStore, calibrate
from cam_callbacks.calibration import Calibration, CalibrationError
from cam_callbacks.cli import main


@pytest.fixture
def probe(data, masks):
    return ProbeSet(data.tensors[0][:16], data.tensors[1][:16], masks=masks[:16])


@pytest.fixture
def accepted(net, probe, tmp_path):
    """Five short series of looks at networks that differ a little."""
    for number in range(5):
        monitor = CAMMonitor(probe, "gradcam", "8", folder=tmp_path / "runs" / f"run-{number}")
        for _ in range(4):
            nn.init.normal_(net[11].weight, std=0.3)
            monitor.look(net)
    return tmp_path / "runs"


def test_thresholds_come_from_what_the_runs_reached(accepted, tmp_path):
    calibration = calibrate(accepted, alpha=0.25)
    assert len(calibration.runs) == 5 and calibration.looks == 4 and calibration.level == 0.25
    series = ("frame_decides", "", "")
    for folder, reached in zip(sorted(accepted.iterdir()), calibration.largest[series], strict=True):
        values = [j.statistic for r in RecordStore(folder) for j in r.judged if j.rule == "frame_decides"]
        pairs = [p for p in itertools.pairwise(values) if all(map(math.isfinite, p))]
        assert reached == max(map(min, pairs)) if pairs else math.isnan(reached)
    assert {rule for rule, _, _ in calibration.largest} >= {"off_target", "collapsed", "detail_decides"}
    again = Calibration.load(calibration.save(tmp_path / "healthy.json"))
    assert again.probe == calibration.probe and again.level == calibration.level


def test_the_command_writes_a_file_that_the_callback_takes(accepted, probe, fit, tmp_path, capsys):
    path = tmp_path / "healthy.json"
    assert main(["calibrate", str(accepted), "-o", str(path)]) == 0
    told = capsys.readouterr().out
    assert "5 accepted runs" in told and "at most 0.167" in told and "19 could" in told
    content = json.loads(path.read_text())
    assert content["schema"] == 1 and len(content["runs"]) == 5
    callback = CAMCallback(probe, "gradcam", calibration=str(path), on_error="raise")
    fit(callback, epochs=2)
    limits = {j.rule: j.threshold for j in callback.store[-1].judged}
    assert limits["detail_decides"] != math.inf and not math.isnan(limits["detail_decides"])


def test_an_alarm_by_calibration_is_an_alert_like_any_other(net, probe, accepted, tmp_path):
    calibration = calibrate(accepted, alpha=0.25)
    series = ("collapsed", "gradcam", "8")
    far = {
        key: tuple(v - 100 for v in values) if key == series else values for key, values in calibration.largest.items()
    }
    path = Calibration(0.25, 4, calibration.runs, far, calibration.spreads).save(tmp_path / "far.json")
    monitor = CAMMonitor(probe, "gradcam", "8", calibration=path)
    monitor.look(net)
    record = monitor.look(net)
    assert "collapsed" in {alert.name for alert in record.alerts} and record.metrics["cam/alert/collapsed"] == 1


def test_what_cannot_be_calibrated_is_said(accepted, net, data, tmp_path, capsys):
    CAMMonitor(ProbeSet(data.tensors[0][:9]), "gradcam", "8", folder=accepted / "other").look(net)
    with pytest.raises(CalibrationError, match="2 different probes"):
        calibrate(accepted)
    with pytest.raises(CalibrationError, match="no folder"):
        calibrate(tmp_path / "nothing")
    with pytest.raises(CalibrationError, match="alpha=2"):
        calibrate(accepted / "run-0", alpha=2)
    with pytest.raises(CalibrationError, match="cam-callbacks calibrate"):
        CAMCallback(calibration=str(tmp_path / "absent.json"))
    assert main(["calibrate", str(accepted)]) == 2 and "different probes" in capsys.readouterr().err


def test_a_calibration_is_an_artifact_of_an_mlflow_run(accepted, tmp_path, monkeypatch):
    import mlflow

    uri = f"sqlite:///{tmp_path}/m.db"
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("accepted", artifact_location=str(tmp_path / "artifacts"))
    run_id = client.create_run(experiment).info.run_id
    path = calibrate(accepted).save(tmp_path / "healthy.json")
    assert main(["calibrate", str(accepted), "-o", str(path), "--tracking-uri", uri, "--log", run_id]) == 0
    path.unlink()
    assert len(Calibration.load(f"{run_id}/healthy.json", uri).runs) == 5
    with pytest.raises(CalibrationError, match="no calibration to give"):
        Calibration.load(f"{run_id}/absent.json", uri)
