"""What the methods that give each channel one weight have in common."""

from __future__ import annotations

import torch
from torch import Tensor


def weighted_sum(weights: Tensor, activations: Tensor) -> Tensor:
    """Σ_k w_k A^k: weights (B, C) and activations (B, C, h, w) → (B, h, w)."""
    return torch.bmm(weights[:, None], activations.flatten(2)).unflatten(2, activations.shape[2:]).squeeze(1)
