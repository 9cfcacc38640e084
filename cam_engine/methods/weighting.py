"""From what a method returns to a map."""

from __future__ import annotations

import torch
from torch import Tensor

from cam_engine.methods.eigen import principal_map


def collapse(
    returned: Tensor, activations: Tensor, *, eigen_smooth: bool = False, method: str = "the method"
) -> Tensor:
    """Turn channel weights (B, C), weighted activations (B, C, h, w) or a map (B, h, w) into the map (B, h, w).

    ``eigen_smooth`` takes the first principal component of the weighted activations in place of their sum; a map is left
    as it is. A map that is not finite is NaN everywhere. ``method`` is how errors name it.

    Raises:
        TypeError: No tensor.
        ValueError: Any other shape.
    """
    if not isinstance(returned, Tensor):
        raise TypeError(f"{method} returned {type(returned).__name__}; a method returns a Tensor.")
    returned = returned.to(activations.dtype)
    whole = _map(returned, activations, eigen_smooth, method)
    # The ReLU to come would make a clean zero of −inf.
    finite = torch.isfinite(whole).flatten(1).all(1)[:, None, None]
    return torch.where(finite, whole, float("nan"))


def _map(returned: Tensor, activations: Tensor, eigen_smooth: bool, method: str) -> Tensor:
    if returned.shape == activations.shape[:2]:
        if eigen_smooth:
            return principal_map(returned[:, :, None, None] * activations)
        return torch.bmm(returned[:, None], activations.flatten(2)).unflatten(2, activations.shape[2:]).squeeze(1)
    if returned.shape == activations.shape:
        return principal_map(returned) if eigen_smooth else returned.sum(1)
    if returned.ndim == 3 and len(returned) == len(activations):
        return returned
    batch, channels, height, width = activations.shape
    raise ValueError(
        f"{method} returned shape {tuple(returned.shape)}; expected channel weights ({batch}, {channels}), weighted "
        f"activations ({batch}, {channels}, {height}, {width}) or a map ({batch}, {height}, {width})."
    )
