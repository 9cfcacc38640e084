"""Scores of variants of a batch, for the methods that ask the model again: changed images, or a changed layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from cam_engine import _tree
from cam_engine.capture import Captured, Forward, replay, rescore
from cam_engine.grids import GridView
from cam_engine.sharding import is_sharded

BATCH_SIZE, CPU_BATCH_SIZE = 32, 16  # images in one forward

Score = Callable[[Any], Tensor]
Variant = Callable[[Tensor], Tensor]


@dataclass(eq=False)
class Rescorer:
    """Asks a model about variants of ``images`` (B, C, H, W), in batches that fit, as it ran when this was made.

    ``score``: ``(outputs) -> (B,)``; ``evidence``: the same, of a class its log-probability. ``channels_last`` and
    ``few_images`` say how the model is asked; the first time that it fails on one of them, that is given up. Of one that is spread
    over processes neither is tried: a forward that fails on one of them cannot be made anew.
    """

    model: nn.Module
    images: Tensor
    score: Score
    evidence: Score
    forward: Forward | None
    batch_size: int | None
    progress: bool
    channels_last: bool = field(init=False)
    few_images: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        device = self.images.device.type
        convolves = any(isinstance(module, nn.Conv2d) for module in self.model.modules())
        self.few_images = not is_sharded(self.model)
        self.channels_last = device == "cpu" and convolves and self.few_images
        # A method itself runs without autocast, but the model may not.
        self._precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None

    def of_images(self, variant: Variant, count: int, score: Score | None = None) -> Tensor:
        """(B, count) scores of changed images: ``variant`` takes indices (K,) and returns (B, K, C, H, W)."""

        def outputs(chunk: Tensor) -> Any:
            changed = variant(chunk).flatten(0, 1).to(self.images.dtype)
            return self.laid_out(lambda given: rescore(self.model, given, forward=self.forward), changed)

        return self._in_chunks(outputs, count, self._default_batch, score or self.score)

    def of_activations(self, layer: str, captured: Captured, view: GridView, variant: Variant, count: int) -> Tensor:
        """(B, count) scores of a changed layer: ``variant`` takes indices (K,) and returns (B, K, C, h, w)."""
        raw = captured.activations[layer].detach()

        def outputs(chunk: Tensor) -> Any:
            changed = view.put_back(raw.repeat_interleave(len(chunk), 0), variant(chunk).flatten(0, 1))
            return self._replay(layer, captured, changed)

        # Each chunk costs a few images' way to the layer, so late and small ones come in greater numbers.
        room = 3 * self._default_batch * self.images[0].numel() // raw[0].numel()
        return self._in_chunks(outputs, count, max(room, self._default_batch), self.score)

    def laid_out(self, run: Callable[[Tensor], Any], images: Tensor) -> Any:
        """``run`` on images with channels last, which makes convolutions over large maps faster on a CPU.

        A model that takes views of contiguous tensors fails on it, and gets them as they are from then on.
        """
        if self.channels_last:
            try:
                return run(images.contiguous(memory_format=torch.channels_last))
            except RuntimeError as error:
                if out_of_memory(error):
                    raise
                self.channels_last = False
        return run(images)

    @property
    def _default_batch(self) -> int:
        return CPU_BATCH_SIZE if self.images.device.type == "cpu" else BATCH_SIZE

    def _replay(self, layer: str, captured: Captured, activation: Tensor) -> Any:
        """Outputs for a replaced activation. The layers before it see a few images only, where the model allows that.

        A model in which something passes by the layer would mix the two batches; the few images are of a number that fits
        neither one image nor the batch, so that this is an error and not a broadcast.
        """
        while self.few_images:
            few = _cycled(self.images, next(n for n in (2, 3) if n != len(activation)))
            # A copy, for an in-place layer may change what it is given before something further down fails.
            rearranged = self.channels_last and activation.ndim == 4
            copy = activation.clone(memory_format=torch.channels_last if rearranged else torch.preserve_format)
            try:
                outputs = replay(self.model, few, layer, captured, copy, forward=self.forward)
                if all(len(t) == len(activation) for _, t in _tree.tensors(outputs) if t.ndim):
                    return outputs
                rearranged = False  # that is not what failed
            except (RuntimeError, ValueError, IndexError) as error:
                if out_of_memory(error):
                    raise
            if rearranged:
                self.channels_last = False
            else:
                self.few_images = False
        images = self.images.repeat_interleave(len(activation) // len(self.images), 0)
        return replay(self.model, images, layer, captured, activation, forward=self.forward)

    def _in_chunks(self, outputs: Callable[[Tensor], Any], count: int, default: int, score: Score) -> Tensor:
        """(B, count) scores of variants; ``outputs`` takes indices (K,) and returns what the model says of B·K images."""
        device = self.images.device
        step = max(1, (self.batch_size or default) // len(self.images))
        chunks = torch.arange(count, device=device).split(step)
        scored = []
        for chunk in tqdm(chunks, unit="batch", leave=False, delay=2, disable=None if self.progress else True):
            with torch.autocast(device.type, dtype=self._precision, enabled=self._precision is not None):
                answer = outputs(chunk)
                for k in range(len(chunk)):
                    scored.append(score(_tree.map_tensors(_every(len(chunk), k), answer)).detach())
        together = torch.stack(scored, dim=1)
        return together if together.dtype == torch.float64 else together.float()


def out_of_memory(error: BaseException) -> bool:
    """Did memory run out: on a device, or on the host, for which torch has no error of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _every(step: int, start: int) -> Callable[[Tensor], Tensor]:
    """Image by image the variants lie next to each other: every ``step``-th belongs to one variant."""
    return lambda tensor: tensor[start::step] if tensor.ndim else tensor


def _cycled(images: Tensor, count: int) -> Tensor:
    return images.repeat(-(-count // len(images)), 1, 1, 1)[:count]
