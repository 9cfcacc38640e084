"""Oriented boxes: where they lie, how much they overlap, and what ultralytics' suppression keeps of them."""

from __future__ import annotations

import torch
from torch import Tensor

from cam_engine.detect.raw import Detections


def decoded(distances: Tensor, angles: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Rotated boxes (B, N, 5), (x, y, width, height, angle) in pixels.

    Args:
        distances: (B, 4, N), to left, top, right and bottom along the box's own axes, in cells.
        angles: (B, 1, N), radians.
        points: (1, 2, N), centres of the cells, in cells.
        strides: (1, N) or (1, 1, N), pixels of a cell.
    """
    low, high = distances.chunk(2, 1)
    across, along = ((high - low) / 2).chunk(2, 1)
    cosine, sine = angles.cos(), angles.sin()
    centre = torch.cat([across * cosine - along * sine, across * sine + along * cosine], 1) + points
    return torch.cat([torch.cat([centre, low + high], 1) * strides, angles], 1).transpose(1, 2)


def enclosing(boxes: Tensor) -> Tensor:
    """Rotated boxes (…, 5) → the upright boxes around them (…, 4), xyxy."""
    width, height, angle = boxes[..., 2], boxes[..., 3], boxes[..., 4]
    cosine, sine = angle.cos().abs(), angle.sin().abs()
    half = torch.stack([width * cosine + height * sine, width * sine + height * cosine], -1) / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], -1)


def corners(boxes: Tensor) -> Tensor:
    """Rotated boxes (n, 5) → their corners (n, 4, 2), (x, y), one after the other."""
    cosine, sine = boxes[:, 4].cos(), boxes[:, 4].sin()
    across = torch.stack([cosine, sine], -1) * boxes[:, 2, None] / 2
    along = torch.stack([-sine, cosine], -1) * boxes[:, 3, None] / 2
    turns = [across + along, across - along, -across - along, along - across]
    return boxes[:, None, :2] + torch.stack(turns, 1)


def overlaps(boxes: Tensor) -> Tensor:
    """How alike rotated boxes (n, 5) are, (n, n) in [0, 1]: one minus the Hellinger distance of their Gaussians.

    Source: Llerena et al. 2021, "Gaussian Bounding Boxes and Probabilistic Intersection-over-Union", arXiv:2106.06072.
    """
    eps = 1e-7
    variances, angle = boxes[:, 2:4].square() / 12, boxes[:, 4]
    cosine, sine = angle.cos(), angle.sin()
    a = variances[:, 0] * cosine.square() + variances[:, 1] * sine.square()
    b = variances[:, 0] * sine.square() + variances[:, 1] * cosine.square()
    c = (variances[:, 0] - variances[:, 1]) * cosine * sine
    sum_a, sum_b, sum_c = (each[:, None] + each[None] for each in (a, b, c))
    dx, dy = (boxes[:, axis, None] - boxes[None, :, axis] for axis in (0, 1))
    determinant = sum_a * sum_b - sum_c.square()
    own = (a * b - c.square()).clamp(min=0)
    distance = (sum_a * dy.square() + sum_b * dx.square()) / (determinant + eps) / 4
    distance -= sum_c * dx * dy / (determinant + eps) / 2
    distance += (determinant / (4 * (own[:, None] * own[None]).sqrt() + eps) + eps).log() / 2
    return 1 - (1 - (-distance.clamp(eps, 100)).exp() + eps).sqrt()


def suppress_oriented(
    boxes: Tensor, scores: Tensor, *, confidence: float, iou: float, most: int, agnostic: bool = False
) -> Detections:
    """What is left of rotated boxes (N, 5) with scores (N, K): a row goes if it overlaps any better one of its class (of any,
    if ``agnostic``) by more than ``iou``, whether that one stays or not. The boxes kept are the upright ones around them."""
    best, labels = scores.detach().max(1)
    rows = (best > confidence).nonzero().squeeze(1)
    rows = rows[best[rows].argsort(descending=True, stable=True)]
    same = (labels[rows][:, None] == labels[rows][None]) | agnostic
    beaten = (overlaps(boxes.detach()[rows]) > iou) & same
    chosen = rows[~beaten.triu(1).any(0)][:most]
    kept = boxes.detach()[chosen]
    return Detections(enclosing(kept), labels[chosen], best[chosen], chosen, corners(kept))
