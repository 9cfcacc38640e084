"""Four shapes on textured grounds, with or without a coloured tag in the corner, and a network that learns them in seconds."""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import nn

SIZE, CLASSES, TAG = 32, 4, 5
TAG_COLOURS = torch.tensor([[2.0, -2.0, -2.0], [-2.0, 2.0, -2.0], [-2.0, -2.0, 2.0], [2.0, 2.0, -2.0]])


@dataclass(frozen=True)
class Scenes:
    """``images`` (N, 3, 32, 32), about standard normal; ``labels`` (N,); ``masks``, ``tags`` (N, 32, 32), shape and corner."""

    images: torch.Tensor
    labels: torch.Tensor
    masks: torch.Tensor
    tags: torch.Tensor


def make_scenes(n, seed, cue):
    """With ``cue`` the tag's colour is that of the class; without, any."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % CLASSES
    images, masks = np.empty((n, 3, SIZE, SIZE), np.float32), np.zeros((n, SIZE, SIZE), bool)
    y, x = np.mgrid[:SIZE, :SIZE]
    for image, mask, label in zip(images, masks, labels, strict=True):
        noise = [gaussian_filter(rng.normal(size=(SIZE, SIZE)), rng.uniform(0.7, 3), mode="wrap") for _ in range(3)]
        image[:] = 0.7 * np.stack(noise) / np.std(noise) + rng.normal(0, 0.5, (3, 1, 1))
        r = rng.uniform(5, 7)
        cy, cx = rng.uniform(TAG + r - 2, SIZE - r, 2)
        dy, dx = y - cy, x - cx
        shapes = (
            dy**2 + dx**2 < r**2,  # disc
            (abs(dy) < r * 0.35) | (abs(dx) < r * 0.35),  # cross
            (dy**2 + dx**2 < r**2) & (dy**2 + dx**2 > (0.55 * r) ** 2),  # ring
            (abs(dy % 4 - 2) < 1),  # bars
        )
        mask[:] = shapes[label] & (abs(dy) < r) & (abs(dx) < r)
        image[:, mask] = rng.choice([-1, 1], 3)[:, None] * rng.uniform(1.2, 2, 3)[:, None]
    images, labels = torch.from_numpy(images), torch.from_numpy(labels)
    tags = torch.zeros(n, SIZE, SIZE, dtype=torch.bool)
    tags[:, 1 : 1 + TAG, 1 : 1 + TAG] = True
    colour = labels if cue else torch.from_numpy(rng.integers(CLASSES, size=n))
    images[:, :, 1 : 1 + TAG, 1 : 1 + TAG] = TAG_COLOURS[colour][:, :, None, None]
    return Scenes(images, labels, torch.from_numpy(masks), tags)


def small_net():
    """Its last grid, of layer "last", is 4×4."""
    stages, channels = [], 3
    for wide in (12, 24, 32):
        stages += [_block(channels, wide), nn.MaxPool2d(2)]
        channels = wide
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, CLASSES))
    return nn.Sequential(OrderedDict(stages=nn.Sequential(*stages), last=_block(channels, 48), head=head))


def train(cue, seed=0, epochs=5, n=1280):
    """An eval-mode network after a few seconds of training on one core."""
    scenes = make_scenes(n, 1000 + seed, cue)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = small_net()
        optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=epochs * (n // 32))
        for _ in range(epochs):
            for batch in torch.randperm(n).split(32):
                optimizer.zero_grad()
                F.cross_entropy(net(scenes.images[batch]), scenes.labels[batch]).backward()
                optimizer.step()
                schedule.step()
    return net.eval()


def _block(channels_in, channels_out):
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), nn.ReLU())
