"""What may happen in a training: optimizers, learning rates, augmentation and frozen layers, by the names of the plan."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from evidence.networks import NETWORKS

Floats = NDArray[np.float32]


def optimizer_of(variation: str, network: str, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW, or stochastic gradient descent with momentum at a rate that learns about as fast."""
    rate = NETWORKS[network].rate
    if variation == "sgd":
        return torch.optim.SGD(model.parameters(), lr=10 * rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)


def pace(variation: str, progress: float) -> float:
    """The learning rate as a multiple of the network's, when this share of the training is behind (0 to 1)."""
    if variation == "cosine":
        return _cosine(progress)
    if variation == "restarts":
        return _cosine(progress % 0.5 / 0.5)
    if variation == "one-cycle":
        return 0.1 + 1.9 * progress / 0.3 if progress < 0.3 else 2 * _cosine((progress - 0.3) / 0.7)
    if variation == "step":
        return 1 if progress < 0.5 else 0.1
    return 2.5 if variation == "large-rate" else 1


def augments(variation: str, progress: float) -> bool:
    """Are the images of this epoch augmented?"""
    return (variation == "augment-on" and progress >= 0.5) or (variation == "augment-off" and progress < 0.5)


def augmented(pictures: Floats, rng: np.random.Generator) -> Floats:
    """Shifted by up to three pixels (what leaves comes in on the other side), brighter or darker, with noise."""
    n, _, height, width = pictures.shape
    down, right = rng.integers(-3, 4, (2, n, 1, 1))
    rows = (np.arange(height)[:, None] + down) % height
    columns = (np.arange(width)[None, :] + right) % width
    shifted = pictures.transpose(0, 2, 3, 1)[np.arange(n)[:, None, None], rows, columns].transpose(0, 3, 1, 2)
    light = rng.uniform(0.8, 1.2, (n, 1, 1, 1)).astype(np.float32)
    noise = rng.standard_normal(pictures.shape, dtype=np.float32)
    return (shifted * light + 0.03 * noise).clip(0, 1)


def freeze(variation: str, network: str, model: nn.Module, progress: float) -> None:
    """Hold the early layers of an "unfreeze" training still until its middle. What is never trained stays so."""
    if variation != "unfreeze":
        return
    for name, parameter in model.named_parameters():
        if name.startswith(NETWORKS[network].early):
            parameter.requires_grad_(progress >= 0.5)


def _cosine(progress: float) -> float:
    return 0.5 + 0.5 * math.cos(math.pi * progress)
