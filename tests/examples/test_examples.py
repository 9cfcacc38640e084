"""The examples that need no other library run as they are written. (tests/models runs the others.)"""

import subprocess
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cam_callbacks import RecordStore

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_gradcampp_class(tmp_path):
    command = [sys.executable, EXAMPLES / "gradcampp_class.py", "--folder", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "heatmaps (2, 427, 640)" in done.stdout and "difference from gradcam++: 0.000" in done.stdout
    assert (tmp_path / "out" / "compared" / "image_methods.png").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def run(name, tmp_path, steps=(0, 1, 2)):
    command = [sys.executable, EXAMPLES / name, "--folder", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [record.epoch for record in RecordStore(tmp_path / "out" / "cam")] == [0, 1, 2]
    events = EventAccumulator(str(tmp_path / "out"), size_guidance={"images": 0})
    events.Reload()
    assert [image.step for image in events.Images("cam/gradcam/sheet")] == [0, 1, 2]
    assert [scalar.step for scalar in events.Scalars("cam/entropy/eigencam")] == list(steps)
    return done.stdout


def test_plain_loop(tmp_path):
    assert "epoch 2: accuracy" in run("plain_loop.py", tmp_path)
    assert "accuracy" in RecordStore(tmp_path / "out" / "cam")[-1].user_metrics


def test_fabric_training(tmp_path):
    from mlflow.tracking import MlflowClient

    run_id = run("fabric_training.py", tmp_path).split("MLflow run ")[1].split()[0]
    client = MlflowClient(f"sqlite:///{tmp_path}/out/mlflow.db")
    assert len(client.get_metric_history(run_id, "cam/entropy/gradcam")) == 3
    assert {"cam_report.html", "cam_latest.png", "images"} <= {f.path for f in client.list_artifacts(run_id)}


def test_fsdp2_training(tmp_path):
    assert "3 looks" in run("fsdp2_training.py", tmp_path, steps=(5, 11, 17))
    record = RecordStore(tmp_path / "out" / "cam")[-1]
    assert record.maps["gradcam", "blocks.layers.3"].shape == (8, 6, 6) and "val_acc" in record.user_metrics
    shards = tmp_path / "out" / "checkpoints" / "epoch=2.ckpt"
    assert {"__0_0.distcp", "__1_0.distcp"} <= {path.name for path in shards.iterdir()}
