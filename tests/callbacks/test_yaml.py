"""LightningCLI builds the callback from a YAML file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from cam_callbacks import RecordStore


def test_a_yaml_file_builds_it(tmp_path):
    """LightningCLI in a process of its own, as users run it: the callback, its probe from a folder, both from YAML."""
    from PIL import Image

    for label in ("cat", "dog"):
        (tmp_path / "probe" / label).mkdir(parents=True)
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 255, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "probe" / label / f"{i}.png")
    (tmp_path / "config.yaml").write_text(
        f"""
trainer:
  max_epochs: 1
  accelerator: cpu
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  default_root_dir: {tmp_path}
  callbacks:
    - class_path: cam_callbacks.CAMCallback
      init_args:
        probe:
          class_path: cam_callbacks.ProbeSet.from_folder
          init_args:
            folder: {tmp_path / "probe"}
            mean: [0.5, 0.5, 0.5]
            std: [0.25, 0.25, 0.25]
        methods: [gradcam, layercam]
        layers: net.8
        folder: {tmp_path / "records"}
        on_error: raise
"""
    )
    (tmp_path / "train.py").write_text(
        f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import conftest
from pytorch_lightning.cli import LightningCLI
from torch.utils.data import DataLoader

class Module(type(conftest.module())):
    def __init__(self):
        super(type(self).__mro__[1], self).__init__()
        self.net = conftest.network()
    def train_dataloader(self):
        return DataLoader(conftest.blobs(), 16)
    val_dataloader = train_dataloader

LightningCLI(Module, save_config_callback=None, args=["fit", "--config", {str(tmp_path / "config.yaml")!r}])
"""
    )
    done = subprocess.run([sys.executable, tmp_path / "train.py"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    store = RecordStore(tmp_path / "records")
    assert store.manifest["methods"] == ["gradcam", "layercam"]
    assert store.manifest["probe"]["class_names"] == ["cat", "dog"]
    assert len(store) == 1


def test_import_is_light():
    """`import cam_engine` pulls in neither a trainer, a logger nor torchvision; records are read without Lightning."""
    code = (
        "import sys, cam_engine; bad = {'pytorch_lightning', 'lightning', 'mlflow', 'tensorboard', 'torchvision', 'cv2',"
        " 'matplotlib', 'sklearn', 'pandas'} & set(sys.modules); assert not bad, bad;"
        "import cam_callbacks; bad = {'pytorch_lightning', 'lightning', 'mlflow'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
