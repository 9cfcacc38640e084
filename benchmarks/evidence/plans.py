"""Every training of the matrix, and which of them thresholds are set on. The others are judged.

Thresholds are set on one family of scenes (shapes), two networks and five cues. What is judged has other scenes, also
other networks, and six more cues. Nothing here may be moved from one part to the other once thresholds are frozen.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import product
from typing import Literal

Part = Literal["set", "judged"]

SET_SCENES = ("shapes",)
JUDGED_SCENES = ("digits", "letters", "blobs")
SET_NETWORKS = ("cnn", "resnet")
JUDGED_NETWORKS = ("cnn", "resnet", "vit", "pooled", "mobilenet")
SET_CUES = ("tag", "tag90", "tint", "texture", "blur")
JUDGED_CUES = (*SET_CUES, "moving", "border", "watermark", "companion", "background", "frequency")

# What may happen in a healthy training; evidence.variations does it.
VARIATIONS = (
    "plain",  # AdamW at a constant rate
    "cosine",
    "step",  # a tenth of the rate from the middle on
    "one-cycle",
    "restarts",  # a cosine that starts again in the middle
    "augment-on",  # shifts, brightness and noise from the middle on
    "augment-off",  # until the middle
    "unfreeze",  # the early layers learn from the middle on
    "imbalance",  # the rarest class an eighth as frequent as the commonest
    "label-noise",  # a tenth of the labels are wrong
    "large-rate",  # two and a half times the rate
    "sgd",  # with momentum
    "new-images",  # other images from the middle on, as with an onset, and a tenth of the labels wrong throughout
    "distractor",  # a cue that says nothing, with its place as the probe's nuisance
)

ONSET = {"cnn": 7, "resnet": 7, "vit": 8, "pooled": 6, "mobilenet": 4}  # the epoch with which a cue comes
TOO_MANY_CLASSES = {("blur", "digits")}  # ten degrees of blur cannot be told apart


@dataclass(frozen=True)
class Training:
    """One training. ``agreement``: in which share of images the cue tells the class. ``informs``: a "random" cue says nothing.
    ``onset``: the first epoch whose images carry the cue; before it is "absent" or "random". ``probe``: images of its default
    look. ``size``: share of the usual number of training images, ``epochs`` where it is not the network's: for tests."""

    part: Part
    scenes: str
    network: str
    seed: int
    variation: str = "plain"
    cue: str | None = None
    agreement: float = 1.0
    informs: Literal["class", "random"] = "class"
    onset: int | None = None
    before: Literal["absent", "random"] = "absent"
    probe: int = 16
    size: float = 1.0
    epochs: int | None = None

    @property
    def healthy(self) -> bool:
        return self.cue is None or self.informs == "random"

    @property
    def family(self) -> str:
        """The cue with what is particular about it, or the variation of a healthy training."""
        if self.healthy or self.cue is None:
            return self.variation
        return self.cue + (f"{100 * self.agreement:.0f}" if self.agreement < 1 else "")

    @property
    def id(self) -> str:
        onset = "" if self.onset is None else f"-onset{self.onset}-{self.before}"
        what = f"{'healthy' if self.healthy else 'cue'}-{self.scenes}-{self.network}-{self.family}{onset}"
        return f"{self.part}-{what}-n{self.probe}-s{self.seed}"

    @property
    def novel(self) -> dict[str, bool]:
        """What of a judged training is in no training that thresholds are set on."""
        cue = not self.healthy and self.family not in SET_CUES
        return {"scenes": self.scenes not in SET_SCENES, "network": self.network not in SET_NETWORKS, "cue": cue}


def plan(quick: bool = False) -> list[Training]:
    """All trainings, in an order in which every beginning is a fair sample of the whole. ``quick``: a tenth of each kind."""
    every = [*_healthy(), *_cued()]
    shuffled = sorted(every, key=lambda training: hashlib.sha256(training.id.encode()).hexdigest())
    if not quick:
        return shuffled
    strata = sorted(shuffled, key=lambda t: (t.part, t.healthy, t.onset is not None, t.network))
    return strata[::10]


def find(name: str) -> Training:
    """The training with this id."""
    named = {training.id: training for training in plan()}
    if name not in named:
        raise KeyError(f"no training {name!r} in the plan; `python -m evidence plan` lists them.")
    return named[name]


def _healthy() -> list[Training]:
    trainings = []
    for index, (seed, network, variation) in enumerate(product((0, 1), SET_NETWORKS, VARIATIONS)):
        trainings.append(_varied("set", SET_SCENES[0], network, variation, seed, index))
    for index, (seed, network, variation) in enumerate(product((0, 1), JUDGED_NETWORKS, VARIATIONS)):
        kind = JUDGED_SCENES[(index + seed) % len(JUDGED_SCENES)]
        trainings.append(_varied("judged", kind, network, variation, 100 + seed, index))
    return trainings


def _varied(part: Part, kind: str, network: str, variation: str, seed: int, index: int) -> Training:
    """Probes of 16 images, every third of 64, every seventh of 8."""
    probe = 64 if index // 3 % 3 == 2 else 8 if index % 7 == 5 else 16
    if variation != "distractor":
        return Training(part, kind, network, seed, variation, probe=probe)
    cue = ("tag", "watermark", "moving", "border")[index % 4]
    return Training(part, kind, network, seed, variation, cue, informs="random", probe=probe)


def _cued() -> list[Training]:
    """Each cue and network twice from the beginning and once as an onset; where thresholds are set with a second seed.

    A cue that comes when a network has learned all of its images is not taken up: there is nothing left to learn. So other
    images come with it, and a tenth of the labels are wrong, before as after; the cue goes with the label as it is written.
    """
    trainings = []
    for index, (seed, cue, network) in enumerate(product((0, 1), SET_CUES, SET_NETWORKS)):
        trainings += _with_cue("set", SET_SCENES, network, cue, 200 + 2 * seed, index)
    for index, (cue, network) in enumerate(product(JUDGED_CUES, JUDGED_NETWORKS)):
        kinds = [kind for kind in JUDGED_SCENES if (cue, kind) not in TOO_MANY_CLASSES]
        trainings += _with_cue("judged", kinds, network, cue, 300, index)
    return trainings


def _with_cue(
    part: Part, kinds: tuple[str, ...] | list[str], network: str, cue: str, seed: int, index: int
) -> list[Training]:
    name, agreement = (cue[:-2], 0.9) if cue.endswith("90") else (cue, 1.0)
    trainings = []
    for turn in range(3):
        onset = ONSET[network] if turn == 2 else None
        trainings.append(
            Training(
                part,
                kinds[(index + turn) % len(kinds)],
                network,
                seed + turn % 2,
                "label-noise" if onset else "plain",
                cue=name,
                agreement=agreement,
                onset=onset,
                before=("absent", "random")[index // 2 % 2] if onset else "absent",
                probe=64 if (index // 3 + turn) % 3 == 2 else 16,
            )
        )
    return trainings
