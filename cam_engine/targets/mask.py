"""The score of a class inside a mask, for segmenters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cam_engine.targets.scores import binary_sign, class_indices


class MaskTarget:
    """The mean score of a class inside a mask, for segmentation outputs (B, K, H, W): ``(outputs) -> Tensor (B,)``.

    Args:
        classes: One index for all images, or a sequence of B indices.
        masks: (B, H, W) or (H, W), bool or weights of at least 0; brought to the size of the outputs by averaging. None:
            where the model itself predicts the class (for one output channel: where its logit is above 0).

    An empty mask has a score of 0 without gradient, and so an invalid map. With one output channel the score of class 0
    is its negative, as in :class:`ClassTarget`.

    >>> from cam_engine.targets import MaskTarget
    >>> scores, left = torch.rand(2, 3, 8, 8), torch.zeros(8, 8).bool()
    >>> left[:, :4] = True
    >>> torch.allclose(MaskTarget(1, left)(scores), scores[:, 1, :, :4].mean((1, 2)))
    True
    """

    def __init__(self, classes: int | Sequence[int] | Tensor, masks: Tensor | None = None) -> None:
        if classes is None:
            raise TypeError("MaskTarget needs classes=: one class index, or one for each image.")
        self.classes = classes
        self.masks = masks

    def __call__(self, outputs: Any) -> Tensor:
        scores, inside = self._scores(outputs), self.inside(outputs)
        total = inside.sum((1, 2))
        # where() and not a product: outside of the mask a score may be infinite
        weighted = torch.where(inside > 0, scores, 0.0) * inside
        return weighted.sum((1, 2)) / torch.where(total > 0, total, 1.0)

    def fixed(self, outputs: Any) -> MaskTarget:
        """This target with the predicted masks settled by ``outputs``."""
        return self if self.masks is not None else MaskTarget(self.classes, self.inside(outputs))

    def mirrored(self) -> MaskTarget:
        """This target for images mirrored left to right."""
        return self if self.masks is None else MaskTarget(self.classes, self.masks.flip(-1))

    def inside(self, outputs: Any) -> Tensor:
        """The weight of each cell, (B, H, W) in the dtype of the outputs.

        Raises:
            ValueError: Masks for another number of images.
        """
        outputs = _dense(outputs)
        batch, count, *size = outputs.shape
        if self.masks is None:
            if count == 1:
                return (self._scores(outputs).detach() > 0).to(outputs.dtype)
            return (outputs.detach().argmax(1) == self._index(outputs)[:, None, None]).to(outputs.dtype)
        masks = self.masks.detach().to(outputs.device, outputs.dtype)
        masks = masks.expand(batch, *masks.shape) if masks.ndim == 2 else masks
        if masks.ndim != 3 or len(masks) != batch:
            raise ValueError(
                f"masks= has shape {tuple(self.masks.shape)} for {batch} images; pass ({batch}, H, W) or (H, W) for all."
            )
        return masks if list(masks.shape[1:]) == size else F.adaptive_avg_pool2d(masks, size)

    def _scores(self, outputs: Any) -> Tensor:
        outputs = _dense(outputs)
        if outputs.shape[1] == 1:
            return outputs[:, 0] * binary_sign(self.classes, outputs[:, :, 0, 0])[:, None, None]
        index = self._index(outputs)
        return outputs.gather(1, index[:, None, None, None].expand(-1, 1, *outputs.shape[2:])).squeeze(1)

    def _index(self, outputs: Tensor) -> Tensor:
        return class_indices(self.classes, outputs[:, :, 0, 0])


def _dense(outputs: Any) -> Tensor:
    if not isinstance(outputs, Tensor) or outputs.ndim != 4:
        given = f"a tensor of shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise TypeError(
            f"MaskTarget explains segmentation outputs (B, K, H, W), and got {given}. Where the model returns a dictionary "
            'or a tuple, pass output= with the key or index of that tensor, such as "out" or "logits".'
        )
    return outputs
