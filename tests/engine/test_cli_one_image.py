import sys

import numpy as np
import pytest
import torch
from PIL import Image

from cam_callbacks.cli import main
from cam_engine import explain

NET = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 5, 4, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))

NET = make()
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    from sklearn.datasets import load_sample_image

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "one_image_net.py").write_text(NET)
    Image.fromarray(load_sample_image("flower.jpg")).resize((96, 64)).save("flower.png")
    Image.fromarray(load_sample_image("china.jpg")).resize((96, 64)).save("china.png")
    return tmp_path


def test_explain_with_weights_and_normalisation(project, capsys):
    from one_image_net import make

    net = make()
    torch.nn.init.normal_(net[2].weight)
    torch.save({"state_dict": {f"model.{k}": v for k, v in net.state_dict().items()}}, "last.ckpt")
    command = ["explain", "one_image_net:make", "flower.png", "--checkpoint", "last.ckpt", "--mean", "0.4", "0.5", "0.6",
               "--std", "0.2", "--size", "64", "--layer", "3", "--target", "2", "-o", "out"]  # fmt: skip
    assert main(command) == 0
    assert "flower.png: out/flower/flower_gradcam_overlay.png  class 2 · " in capsys.readouterr().out

    def preprocess(picture):
        tensor = torch.from_numpy(np.array(picture.resize((64, 64), Image.Resampling.BILINEAR))).permute(2, 0, 1) / 255
        return (tensor - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / 0.2

    expected = explain(net, "flower.png", target_layer="3", target=2, preprocess=preprocess)["heatmap"]
    np.testing.assert_allclose(np.load("out/flower/flower_gradcam_heatmap.npy"), expected, atol=1e-5)


def test_explain_many_with_several_methods(project):
    command = ["explain", "one_image_net:NET", str(project), "*.png", "--method", "gradcam", "eigencam"]
    assert main(command) == 0 and main(command) == 0
    found = sorted(str(path.relative_to(project)) for path in project.glob("runs/*/*/*_methods.png"))
    names = ("china", "china-2", "china-3", "china-4", "flower", "flower-2", "flower-3", "flower-4")
    assert found == sorted(f"runs/gradcam_eigencam/{name}/{name.split('-')[0]}_methods.png" for name in names)


def test_many_images_have_a_progress_bar(project, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["explain", "one_image_net:NET", "flower.png"]) == 0
    assert "1/1" not in capsys.readouterr().err
    assert main(["explain", "one_image_net:NET", "*.png"]) == 0
    assert "2/2" in capsys.readouterr().err


def test_layers_prints_a_table(project, capsys):
    assert main(["layers", "one_image_net:make", "--size", "64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "type", "shape", "stride", "grid"]
    assert lines[1].split() == ["0", "Conv2d", "1×8×16×16", "4", "16×16"] and len(lines) == 5


def test_mistakes_are_one_line(project, capsys):
    (project / "broken.png").write_text("no picture")
    mistakes = {
        ("explain", "one_image_net", "flower.png"): "package.module:name",
        ("explain", "no_such_module:make", "flower.png"): "No module named 'no_such_module'",
        ("explain", "one_image_net:make", "none.png"): "No such file",
        ("explain", "one_image_net:make", "broken.png"): "cannot identify",
        ("explain", "one_image_net:make", "flower.png", "--method", "nocam"): "no CAM method 'nocam'",
        ("explain", "one_image_net:make", "flower.png", "--layer", "layer9"): "no layer 'layer9'",
        ("explain", "one_image_net:make", "flower.png", "--checkpoint", "broken.png"): "broken.png",
        ("layers", "one_image_net:torch.pi"): "not float",
    }
    for arguments, words in mistakes.items():
        assert main(list(arguments)) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1, (arguments, error)


def test_sanity_prints_a_drift_that_rises(project, capsys):
    command = [
        "sanity",
        "one_image_net:make",
        "flower.png",
        "china.png",
        "--size",
        "64",
        "--method",
        "gradcam",
        "eigencam",
    ]
    assert main(command) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[-2:] == ["gradcam", "eigencam"] and [row.split()[0] for row in rows] == ["6", "2", "0"]
    assert float(rows[0].split()[2]) == 0 < float(rows[-1].split()[2]) and float(rows[-1].split()[1]) > 0
    assert main(["sanity", "one_image_net:make", "flower.png", "--layer", "nowhere", "--size", "64"]) == 2
