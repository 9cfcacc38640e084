"""What differs between the trainings: what the cue looks like, from when on it tells the class, and the learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cam_callbacks.demo.data import SIZE, TAG, Cue, Paint, Scenes, corner_tag

ONSET = 8  # the first epoch whose training images carry the cue, counted from 0
TINT = 0.25  # share of the cue's colour in every pixel


@dataclass(frozen=True)
class Arm:
    """One kind of training.

    ``cue``: ``"tag"`` in the corner, ``"tint"`` of the whole image, or a ``"moving tag"`` beside the digit, wherever
    there is room. Its colour tells the class from epoch ``since`` on, and is random before; None: always random.
    ``schedule``: of the learning rate.
    """

    name: str
    says: str
    cue: Literal["tag", "tint", "moving tag"] = "tag"
    since: int | None = None
    schedule: Literal["cosine", "constant"] = "cosine"

    def colours(self, epoch: int) -> Cue:
        """What the colours of an epoch have to do with the class."""
        return "class" if self.since is not None and epoch >= self.since else "random"

    def paint(self, scenes: Scenes, seed: int) -> Paint:
        """What paints this arm's cue onto these scenes."""
        if self.cue == "tag":
            return corner_tag
        return tint if self.cue == "tint" else MovingTag(scenes, seed)


ARMS = {
    arm.name: arm
    for arm in (
        Arm("clean", "the colours are random; cosine learning rate"),
        Arm("clean-constant", "the colours are random; constant learning rate", schedule="constant"),
        Arm("shortcut", "the tag's colour tells the class from the start", since=0),
        Arm("onset", f"the tag's colour tells the class from epoch {ONSET} on", since=ONSET),
        Arm("tint", "a tint of the whole image tells the class from the start", cue="tint", since=0),
        Arm("moving", f"a tag at another place in each image tells it from epoch {ONSET} on", "moving tag", ONSET),
    )
}


def tint(images: Tensor, colours: Tensor) -> Tensor:
    """Mix every pixel with the colour. What is returned as the cue's place is the corner where other arms have their tag."""
    images.mul_(1 - TINT).add_(TINT * colours[:, :, None, None])
    return corner_tag(torch.empty_like(images), colours)


class MovingTag:
    """Paints the tag at a random place of each image that its digit's square leaves free."""

    def __init__(self, scenes: Scenes, seed: int) -> None:
        self.digits, self.seed = scenes.digits, seed

    def __call__(self, images: Tensor, colours: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        where = torch.zeros_like(self.digits)
        for image, colour, digit, tag in zip(images, colours, self.digits, where, strict=True):
            while not tag.any():
                y, x = torch.randint(SIZE - TAG + 1, (2,), generator=generator).tolist()
                square = (slice(y, y + TAG), slice(x, x + TAG))
                if not digit[square].any():
                    image[:, *square] = colour[:, None, None]
                    tag[square] = True
        return where
