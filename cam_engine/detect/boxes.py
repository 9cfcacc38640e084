"""Boxes: formats, overlap, and what suppression keeps. All xyxy unless the name says otherwise."""

from __future__ import annotations

import torch
from torch import Tensor

from cam_engine.detect.raw import Detections


def xyxy(boxes: Tensor) -> Tensor:
    """(…, 4) centre, width, height → corners."""
    centre, half = boxes[..., :2], boxes[..., 2:4] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def overlaps(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of (n, 4) with (m, 4) → (n, m), 0 where both boxes are empty."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    inside = (high - low).clamp(min=0).prod(2)
    area_a, area_b = ((t[:, 2:] - t[:, :2]).clamp(min=0).prod(1) for t in (a, b))
    union = area_a[:, None] + area_b[None] - inside
    return torch.where(union > 0, inside / torch.where(union > 0, union, 1.0), 0.0)


def suppress(
    boxes: Tensor, scores: Tensor, *, confidence: float, iou: float, most: int, agnostic: bool = False
) -> Detections:
    """Greedy non-maximum suppression among boxes of one class; each row counts with its best class.

    Args:
        boxes: (N, 4).
        scores: (N, K) probabilities.
        confidence: Rows above it take part.
        iou: A row is dropped if it overlaps a better one of its class by more.
        most: Number of boxes kept.
        agnostic: A row is dropped for a better one of any class.
    """
    best, labels = scores.detach().max(1)
    rows = (best > confidence).nonzero().squeeze(1)
    rows = rows[best[rows].argsort(descending=True, stable=True)]
    left = rows
    kept: list[Tensor] = []
    corners = boxes.detach()
    while len(left) and len(kept) < most:
        first = left[0]
        kept.append(first)
        same = (labels[left] == labels[first]) | agnostic
        left = left[~(same & (overlaps(corners[left], corners[first][None])[:, 0] > iou)) & (left != first)]
    chosen = torch.stack(kept) if kept else rows[:0]
    return Detections(corners[chosen], labels[chosen], best[chosen], chosen)


def best_pairs(boxes: Tensor, scores: Tensor, *, confidence: float, most: int) -> Detections:
    """The best (row, class) pairs, without suppression: what detectors that give each object one row keep.

    A row can appear more than once, with different classes. Shapes as in :func:`suppress`.
    """
    flat = scores.detach().flatten()
    values, index = flat.topk(min(most, len(flat)))
    values, index = values[values > confidence], index[values > confidence]
    rows = index // scores.shape[1]
    return Detections(boxes.detach()[rows], index % scores.shape[1], values, rows)


def best_rows(boxes: Tensor, scores: Tensor, *, confidence: float, most: int) -> Detections:
    """The best rows, each with its best class. Shapes as in :func:`suppress`."""
    best, labels = scores.detach().max(1)
    values, rows = best.topk(min(most, len(best)))
    values, rows = values[values > confidence], rows[values > confidence]
    return Detections(boxes.detach()[rows], labels[rows], values, rows)
