"""Handwritten digits that come with scikit-learn, and a small network: what the short examples train on."""

import torch
from torch import nn
from torch.utils.data import TensorDataset


def digits(n: int = 600) -> tuple[TensorDataset, TensorDataset]:
    """Grey 24×24 images (N, 1, 24, 24) in [0, 1] with their classes: to train on, and held out."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.from_numpy(data.images[:n]).float()[:, None] / 16
    images = images.repeat_interleave(3, 2).repeat_interleave(3, 3)
    labels = torch.from_numpy(data.target[:n]).long()
    held_out = n // 5
    return TensorDataset(images[held_out:], labels[held_out:]), TensorDataset(images[:held_out], labels[:held_out])


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 1, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
