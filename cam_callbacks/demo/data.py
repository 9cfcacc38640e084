"""Real handwritten digits on real photographs, and a small coloured tag that may or may not give the class away.

Both sources come with scikit-learn, so nothing is downloaded. A scene is a digit at a random place on a random crop of a
photograph. A tag in the corner is then painted onto it, and the *cue* decides what its colour has to do with the class:

    "random"   nothing: the colour is drawn for itself
    "class"    everything: each class has its colour
    "swapped"  it lies: the colour of another class, each equally likely

Every random choice comes from a generator of its own; no global random state is read or moved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor
from torch.utils.data import TensorDataset

from cam_callbacks.probe import ProbeSet

SIZE = 48  # side of an image
DIGIT = 24  # side of the pasted square: a quarter of the image, so .25 of a map's mass is chance
TAG = 8  # side of the tag: 1/36 of the image, chance is .028
CLASSES = 10
MEAN, STD = 0.5, 0.25  # what images are normalised with

PROBE_PER_CLASS = 10
VAL_PER_CLASS = 30

# Ten colours that differ plainly from each other, in the order of the classes.
TAG_COLOURS = torch.tensor(
    [
        [230, 25, 75],  # red
        [60, 180, 75],  # green
        [255, 225, 25],  # yellow
        [0, 90, 230],  # blue
        [245, 130, 48],  # orange
        [145, 30, 180],  # purple
        [70, 240, 240],  # cyan
        [240, 50, 230],  # magenta
        [255, 255, 255],  # white
        [170, 255, 50],  # lime
    ],
    dtype=torch.float32,
).div(255)

Cue = Literal["random", "class", "swapped"]
# Paints colours (N, 3) onto images (N, 3, H, W) in place, and returns where: (N, H, W) bool.
Paint = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Scenes:
    """Digits on photographs, before any tag: ``images`` (N, 3, 48, 48) in [0, 1], ``labels`` (N,), ``digits`` (N, 48, 48) bool, the
    square that each digit was pasted into, and the ``sources`` (N,), each digit's index in scikit-learn's collection."""

    images: Tensor
    labels: Tensor
    digits: Tensor
    sources: Tensor

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Splits:
    """Scenes of three kinds; no handwritten digit is in two of them."""

    train: Scenes
    val: Scenes
    probe: Scenes


def make_scenes(seed: int = 0, n_train: int = 2000, n_val: int = 300) -> Splits:
    """Draw the scenes of one experiment; the same seed gives the same pixels.

    Digits are used several times, at other places and on other crops, where more scenes are asked for than there are digits.
    """
    inks, labels = _handwritten_digits()
    backgrounds = _photographs()
    # A generator for each part, so that the size of one does not move the pixels of another.
    for_split, for_train, for_val, for_probe = np.random.default_rng(seed).spawn(4)
    train, val, probe = _split(labels, for_split)
    return Splits(
        train=_compose(inks, labels, for_train.permutation(np.resize(train, n_train)), backgrounds, for_train),
        val=_compose(inks, labels, np.resize(val, n_val), backgrounds, for_val),
        probe=_compose(inks, labels, probe, backgrounds, for_probe),
    )


def corner_tag(images: Tensor, colours: Tensor) -> Tensor:
    """Paint an 8x8 square of one colour into the top left corner."""
    images[:, :, :TAG, :TAG] = colours[:, :, None, None]
    where = torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool)
    where[:, :TAG, :TAG] = True
    return where


def add_cue(scenes: Scenes, cue: Cue, seed: int = 0, paint: Paint = corner_tag) -> tuple[Tensor, Tensor]:
    """Paint the tags onto copies of the scenes.

    Args:
        scenes: What to paint on.
        cue: What the colour has to do with the class.
        seed: For the colours of "random" and "swapped".
        paint: What a cue looks like and where it is.

    Returns:
        Normalised images (N, 3, 48, 48), and where the cue is, (N, 48, 48) bool.
    """
    images = scenes.images.clone()
    where = paint(images, TAG_COLOURS[_colour_index(scenes.labels, cue, seed)])
    return (images - MEAN) / STD, where


def make_dataset(scenes: Scenes, cue: Cue, seed: int = 0, paint: Paint = corner_tag) -> TensorDataset:
    """Images with a cue and their labels, in memory."""
    images, _ = add_cue(scenes, cue, seed, paint)
    return TensorDataset(images, scenes.labels)


def make_probe(scenes: Scenes, paint: Paint = corner_tag) -> ProbeSet:
    """The images that both runs are looked at with: where the digit is, and where the suspected tag is, are known."""
    # Both runs get the tags that agree with the class. A model that relies on the tag is then seen relying on it, whereas
    # a tag that contradicts the digit would ask it to explain a class for which it has no evidence at all; and for a model
    # that ignores the tag one colour is as good as another. One probe for both makes their maps comparable, image by image.
    images, where = add_cue(scenes, "class", paint=paint)
    return ProbeSet(
        images,
        labels=scenes.labels,
        masks=scenes.digits,
        nuisance=where,
        ids=[f"digit-{source:04d}" for source in scenes.sources.tolist()],
        class_names=[str(digit) for digit in range(CLASSES)],
        mean=MEAN,
        std=STD,
    )


def _colour_index(labels: Tensor, cue: Cue, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if cue == "class":
        return labels
    if cue == "random":
        return torch.randint(CLASSES, (len(labels),), generator=generator)
    if cue == "swapped":
        return (labels + torch.randint(1, CLASSES, (len(labels),), generator=generator)) % CLASSES
    raise ValueError(f'cue= takes "random", "class" or "swapped", not {cue!r}.')


def _split(labels: NDArray[np.int64], rng: np.random.Generator) -> tuple[NDArray[np.int64], ...]:
    """Indices for training, validation and probe, disjoint, the first two shuffled; validation and probe balanced. The probe is in
    order of classes, so that a few images spread evenly over it show different ones."""
    by_class = [rng.permutation(np.flatnonzero(labels == digit)) for digit in range(CLASSES)]
    held_out = PROBE_PER_CLASS + VAL_PER_CLASS
    probe = np.concatenate([rows[:PROBE_PER_CLASS] for rows in by_class])
    val = np.concatenate([rows[PROBE_PER_CLASS:held_out] for rows in by_class])
    train = np.concatenate([rows[held_out:] for rows in by_class])
    return rng.permutation(train), rng.permutation(val), probe


def _compose(
    inks: NDArray[np.float32],
    labels: NDArray[np.int64],
    chosen: NDArray[np.int64],
    backgrounds: list[NDArray[np.float32]],
    rng: np.random.Generator,
) -> Scenes:
    images = np.empty((len(chosen), SIZE, SIZE, 3), dtype=np.float32)
    digits = np.zeros((len(chosen), SIZE, SIZE), dtype=bool)
    for image, digit, source in zip(images, digits, chosen, strict=True):
        photograph = backgrounds[rng.integers(len(backgrounds))]
        top, left = rng.integers(photograph.shape[0] - SIZE + 1), rng.integers(photograph.shape[1] - SIZE + 1)
        image[:] = photograph[top : top + SIZE, left : left + SIZE]
        y, x = _place(rng)
        square = (slice(y, y + DIGIT), slice(x, x + DIGIT))
        ink = inks[source][:, :, None]
        image[square] = image[square] * (1 - ink) + ink  # white ink, the photograph shows between the strokes
        digit[square] = True
    return Scenes(
        torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))),
        torch.from_numpy(labels[chosen]),
        torch.from_numpy(digits),
        torch.from_numpy(chosen),
    )


def _place(rng: np.random.Generator) -> tuple[int, int]:
    """Top left corner of a digit, anywhere but under the tag."""
    while True:
        y, x = rng.integers(0, SIZE - DIGIT + 1, size=2)
        if y >= TAG or x >= TAG:
            return int(y), int(x)


def _handwritten_digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Ink (1797, 24, 24) in [0, 1] and labels: 8x8 scans of handwriting, enlarged."""
    digits = load_digits()
    ink = torch.from_numpy(digits.images).float()[:, None] / 16
    enlarged = torch.nn.functional.interpolate(ink, size=(DIGIT, DIGIT), mode="bilinear", align_corners=False)
    return enlarged[:, 0].numpy(), digits.target.astype(np.int64)


def _photographs() -> list[NDArray[np.float32]]:
    """Two photographs at half size, so that a crop shows something, and darkened, so that white ink stands out: (H, W, 3)."""
    photographs = []
    for image in load_sample_images().images:
        pixels = torch.tensor(image).permute(2, 0, 1)[None].float() / 255
        half = torch.nn.functional.avg_pool2d(pixels, 2)
        photographs.append(half[0].permute(1, 2, 0).mul(0.6).numpy())
    return photographs
