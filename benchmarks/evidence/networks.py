"""Five kinds of network: how they are built, what goes into them, and how fast they learn.

| name | what it is | grid of its last maps |
|---|---|---|
| cnn | three convolutions without normalisation | 8×8 |
| resnet | residual blocks with BatchNorm | 8×8 |
| vit | overlapping patches every 4 pixels, a class token | 8×8 |
| pooled | convolutions that pool early | 2×2 |
| mobilenet | MobileNetV2 with ImageNet weights at 96 pixels, fine-tuned from the eighth block on | 3×3 |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from evidence import mobilenet

DOWNLOADS = Path(__file__).parents[2] / "build" / "evidence-downloads"


@dataclass(frozen=True)
class Network:
    """``rate``: AdamW's learning rate. ``early``: what of it waits where a training unfreezes in mid-run, by the beginning of the
    parameters' names. ``size``: side of the images that it gets."""

    rate: float
    early: tuple[str, ...]
    epochs: int = 12
    train_images: int = 1500
    size: int = 32
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)


NETWORKS = {
    "cnn": Network(3e-3, ("features.0.",)),
    "resnet": Network(1e-3, ("stem.", "blocks.0.")),
    "vit": Network(2e-3, ("patches.", "position", "blocks.0.")),
    "pooled": Network(3e-3, ("features.0.",)),
    "mobilenet": Network(
        rate=5e-4,
        early=tuple(f"features.{block}." for block in range(mobilenet.FROZEN, 18)),
        epochs=7,
        train_images=400,
        size=96,
        mean=(0.485, 0.456, 0.406),  # ImageNet's
        std=(0.229, 0.224, 0.225),
    ),
}


def build(name: str, classes: int, seed: int) -> nn.Module:
    """A network as a training finds it; no global random state is moved."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "mobilenet":
            return mobilenet.pretrained(classes, mobilenet.fetch(DOWNLOADS))
        return {"cnn": CNN, "resnet": ResNet, "vit": ViT, "pooled": PooledCNN}[name](classes)


def prepare(name: str, pictures: NDArray[np.float32]) -> Tensor:
    """Pictures (N, 3, 32, 32) in [0, 1] as the network gets them: enlarged if it wants them so, and normalised."""
    network, images = NETWORKS[name], torch.from_numpy(np.asarray(pictures, dtype=np.float32))
    if network.size != images.shape[-1]:
        images = F.interpolate(images, size=(network.size, network.size), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(values)[:, None, None] for values in (network.mean, network.std))
    return (images - mean) / std


def changing(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the tensors that a training changes: all but those of a frozen stem."""
    prefixes = tuple(f"features.{block}." for block in range(mobilenet.FROZEN))
    frozen = prefixes if isinstance(model, mobilenet.MobileNetV2) else ()
    return {key: value.clone() for key, value in model.state_dict().items() if not key.startswith(frozen or ("\0",))}


def load(model: nn.Module, changed: Mapping[str, Tensor]) -> None:
    """Put back what :func:`changing` returned."""
    model.load_state_dict({**model.state_dict(), **changed})


class CNN(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, classes)
        for layer in self.features:
            if isinstance(
                layer, nn.Conv2d
            ):  # without normalisation the default is too small to learn within a few epochs
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).mean((2, 3)))


class PooledCNN(nn.Module):
    """Halves the image four times, and looks at what is left as a whole."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 16), (16, 32), (32, 48), (48, 64)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)]
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).mean((2, 3)))


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x) + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


class ResNet(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 5, 2, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.Sequential(ResidualBlock(16, 16, 1), ResidualBlock(16, 32, 2), ResidualBlock(32, 48, 1))
        self.head = nn.Linear(48, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        queries, keys, values = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class ViT(nn.Module):
    def __init__(self, classes: int, width: int = 48, depth: int = 3, heads: int = 4, patch: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 7, patch, 2)  # overlapping: learns from few images (Xiao 2021)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, (32 // patch) ** 2 + 1, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), tokens], dim=1) + self.position
        return self.head(self.norm(self.blocks(tokens))[:, 0])
