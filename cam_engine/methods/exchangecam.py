from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from cam_engine.methods.registry import register

CELLS, WINDOW = 16, 3  # the image in 16×16 cells; a window of 3×3 of them, slid by one
ROUNDING = 1e-6


@register("exchangecam", needs=("images", "rescore_evidence", "generator"))
def exchangecam(
    activations: Tensor, images: Tensor, rescore_evidence: Callable[..., Tensor], generator: Generator
) -> Tensor:
    """How far the evidence falls where a window of the image is filled from another image. No gradients, no layer; a forward
    a window, 197 for each image.

    L_ij = mean over the windows W that cover cell ij of E(X) − E(X with W from X'), E the log-probability of the explained
    class (the explained score where the target is no class), X' another image of the batch, drawn anew for each window; a
    batch of one lends from itself, shifted by half. After occlusion (Zeiler & Fergus 2014, arXiv:1311.2901), with pixels
    that training has seen in place of grey. The map has 16×16 cells whatever the layer, which makes it a check on methods
    whose grid is coarse. What stands at a window's place in every image of the batch cannot be seen, and a map depends on
    the images beside it.
    """
    batch, _, height, width = images.shape
    rows, columns = _spans(height).to(images.device), _spans(width).to(images.device)
    count = len(rows) * len(columns)
    lenders = images if batch > 1 else images.roll((height // 2, width // 2), (2, 3))
    steps = torch.randint(1, max(batch, 2), (count,), generator=generator).to(images.device)
    own = torch.arange(batch, device=images.device)[:, None]

    def variant(chunk: Tensor) -> Tensor:
        """(B, K, C, H, W); number 0 is the image itself, the others count windows row by row."""
        window = (chunk - 1).clamp_min(0)
        row, column = rows[window // len(columns)], columns[window % len(columns)]
        region = row[:, :, None] & column[:, None, :] & (chunk > 0)[:, None, None]
        lent = lenders[(own + steps[window]) % batch]
        return torch.where(region[:, None] & lent.isfinite(), lent, images[:, None])  # a broken lender spoils no other

    evidence = rescore_evidence(variant, count + 1)
    falls = evidence[:, :1] - evidence[:, 1:]
    # A model that is sure whatever is exchanged must not show its rounding as a focus.
    size = evidence.abs().amax(1, keepdim=True).clamp_min(1)
    falls = torch.where(falls.abs() <= ROUNDING * size, 0.0, falls)
    falls = falls.unflatten(1, (len(rows), len(columns)))[:, None]
    window = falls.new_ones(1, 1, min(WINDOW, height), min(WINDOW, width))
    return (F.conv_transpose2d(falls, window) / F.conv_transpose2d(torch.ones_like(falls), window)).squeeze(1)


def _spans(pixels: int) -> Tensor:
    """(windows, pixels) bool: what each window covers of a side."""
    cells = min(CELLS, pixels)
    cell = torch.arange(pixels) * cells // pixels
    start = torch.arange(max(1, cells - WINDOW + 1))[:, None]
    return (cell >= start) & (cell < start + WINDOW)
