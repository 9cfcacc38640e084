"""``cam-callbacks doctor``: what one pastes into an issue."""

import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from cam_callbacks import __version__
from cam_callbacks.cli import doctor, main

NET = """
import torch
from torch import nn

def make(nan=False):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 5, 4, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 5))
    return net

def broken():
    raise RuntimeError("no such file: weights.bin")

class Narrow(nn.Module):
    def forward(self, images):
        raise ValueError("images of 17 pixels only")
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "doctored_net.py").write_text(NET)
    return tmp_path


def test_versions_and_self_test(capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for line in (f"cam-callbacks      {__version__}", "torch  ", "cv2  ", "CUDA  ", "self test: ok in "):
        assert line in said
    assert "MISSING" not in said


def test_a_self_test_that_fails_is_said(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "self_test", lambda: 1 / 0)
    assert main(["doctor"]) == 1
    assert "self test: FAILED: ZeroDivisionError" in capsys.readouterr().out


def test_a_model_its_layers_and_its_maps(project, capsys):
    assert main(["doctor", "doctored_net:make", "--size", "32"]) == 0
    said = capsys.readouterr().out
    assert "taken where none is named: 1 (8×8)" in said
    assert said.count("100%") == 2 and "16 images of noise" in said


def test_pictures_for_it(project, capsys):
    for i, picture in enumerate(load_sample_images().images):
        Image.fromarray(picture).save(f"{i}.png")
    assert main(["doctor", "doctored_net:make", "--size", "32", "--images", "*.png"]) == 0
    assert "2 images" in capsys.readouterr().out


def test_a_model_that_does_not_work_is_what_it_is_for(project, capsys):
    assert main(["doctor", "doctored_net:Narrow"]) == 1
    assert "images of 17 pixels only" in capsys.readouterr().out
    assert main(["doctor", "doctored_net:broken"]) == 2
    assert "no such file: weights.bin" in capsys.readouterr().err
    assert main(["doctor", "--images", "x.png"]) == 2
    assert "doctor package.module:name --images" in capsys.readouterr().err
