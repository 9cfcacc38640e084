"""What all tests share: threads as OMP_NUM_THREADS says, else two; real images, and a small CNN with what makes capturing hard."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from servers import mlflow_server, start_tensorboard  # noqa: F401

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="session", autouse=True)
def _threads():
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


@pytest.fixture(scope="session", autouse=True)
def _own_state(tmp_path_factory):
    """Where this machine has delivered to is remembered for these tests alone."""
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    yield
    os.environ.pop("XDG_STATE_HOME")
    if before is not None:
        os.environ["XDG_STATE_HOME"] = before


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _time_enough(monkeypatch):
    """However busy the machine is, exchange tests are those of a look with time for them, so that equal runs have equal records."""
    monkeypatch.setattr("cam_callbacks.clock.EXTRAS_SECONDS", 3600.0)


class ConvBlock(nn.Sequential):
    """conv → batch norm → ReLU."""

    def __init__(self, channels_in, channels_out, *, stride=1, inplace=True):
        conv = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        super().__init__(conv, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=inplace))


class Residual(nn.Module):
    """A residual block whose one ReLU module runs twice, in place, the second time on the sum with the skip connection."""

    def __init__(self, channels, *, inplace=True):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=inplace)

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + x)


class CNN(nn.Module):
    """Images (B, C, H, W) → (B, classes), through grids of 1/2, 1/4, 1/4 and 1/8 of the image."""

    def __init__(self, *, channels=3, classes=5, inplace=True, dropout=0.0):
        super().__init__()
        self.stem = ConvBlock(channels, 12, stride=2, inplace=inplace)
        self.stage1 = ConvBlock(12, 16, stride=2, inplace=inplace)
        self.residual = Residual(16, inplace=inplace)
        self.stage2 = ConvBlock(16, 24, stride=2, inplace=inplace)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(24, classes)

    def forward(self, x):
        x = self.stage2(self.residual(self.stage1(self.stem(x))))
        return self.head(self.dropout(self.pool(x).flatten(1)))


@pytest.fixture(scope="session")
def make_cnn(photos):
    """``make_cnn(seed=0, **settings of CNN)``: an eval-mode CNN; the same seed gives the same weights, in place or not.

    Its BatchNorm statistics have seen photographs, so that they are not those of an untouched layer.
    """

    def make(seed=0, **settings):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = CNN(**settings)
            with torch.no_grad():
                for module in net.modules():
                    if isinstance(module, nn.BatchNorm2d):  # as after training: channels differ in scale and offset
                        module.weight.uniform_(0.5, 1.5)
                        module.bias.normal_(0, 0.3)
                        module.momentum = None
                net.train()(photos[:, : net.stem[0].in_channels])
                for module in net.modules():
                    if isinstance(module, nn.BatchNorm2d):
                        module.momentum = 0.1
        return net.eval()

    return make


@pytest.fixture
def cnn(make_cnn):
    """An eval-mode CNN with in-place ReLUs."""
    return make_cnn()


@pytest.fixture(scope="session")
def photos():
    """Eight 48×48 crops of scikit-learn's two photographs, normalised, (8, 3, 48, 48) float32. Shared: never change it in place."""
    from sklearn.datasets import load_sample_images

    crops = []
    for picture in load_sample_images().images:
        half = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2].astype(np.float64)
        half = half.reshape(half.shape[0] // 2, 2, half.shape[1] // 2, 2, 3).mean((1, 3)) / 255
        crops += [half[y : y + 48, x : x + 48] for y, x in [(20, 40), (90, 120), (150, 200), (60, 250)]]
    normalised = (np.stack(crops) - MEAN) / STD
    return torch.from_numpy(normalised.transpose(0, 3, 1, 2).astype(np.float32))


@pytest.fixture(scope="session")
def digits():
    """Real handwritten digits, enlarged: 200 images (200, 1, 24, 24) in [0, 1] and their labels (200,)."""
    from sklearn.datasets import load_digits

    data = load_digits()
    small = torch.from_numpy(data.images[:200]).float()[:, None] / 16
    return small.repeat_interleave(3, 2).repeat_interleave(3, 3), torch.from_numpy(data.target[:200]).long()
