from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from cam_engine.methods.registry import register


@register("scorecam", needs=("images", "rescore_images"))
def scorecam(activations: Tensor, images: Tensor, rescore_images: Callable[..., Tensor]) -> Tensor:
    """Score-CAM: channels weighted by the score of the image seen through them. No gradients; one forward a channel.

    w = softmax_k S(X ⊙ H^k), H^k the channel upsampled and scaled to [0, 1]; a constant channel masks everything. Wang et
    al. 2020, arXiv:1910.01279, eq. 6 to 8; without the constant baseline score, which the softmax cancels. Upsampling with
    aligned corners as in the grad-cam package, without its eps.
    """

    def variant(channels: Tensor) -> Tensor:
        masks = F.interpolate(activations[:, channels], size=images.shape[-2:], mode="bilinear", align_corners=True)
        low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
        masks = (masks - low) / torch.where(high == low, 1.0, high - low)
        return images[:, None] * masks.to(images.dtype)[:, :, None]

    return torch.softmax(rescore_images(variant, activations.shape[1]), dim=1)
