"""The alert rules: each is a class that gives a look a studentised statistic, large where something is wrong.

Above ``above`` a rule holds, unless a calibration sets another threshold (:mod:`cam_callbacks.calibration`); up to ``clears`` it
does not; in between it leaves things as they are. Where a rule cannot judge it says why, and neither holds nor clears. The
thresholds were set on the first part of ``make evidence`` and are judged there on the other (docs/evidence.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np

from cam_callbacks.look.evidence import Z95, Array, LookEvidence, Measurement
from cam_engine.exchange import Followed, ObjectShare

NAMED = 5  # images that an alert names at most
NEVER = math.inf  # a threshold that only a calibration can set
FEWEST_IMAGES = 8
FEWEST_CELLS = 16  # on a coarser grid a map has no form to judge


@dataclass(frozen=True, eq=False)
class Judgement:
    """``statistic``: in standard errors; NaN where the rule cannot judge, and ``reason`` says why. ``measured``: in words.
    ``images``: indices, the worst first."""

    statistic: float
    measured: str = ""
    images: Sequence[int] = ()
    reason: str = ""


def cannot_judge(reason: str) -> Judgement:
    """Neither good nor bad."""
    return Judgement(math.nan, reason=reason)


class Rule(Protocol):
    """What every rule has. ``of``: it judges each map series (``Measurement``), or the look as a whole (``LookEvidence``).
    ``looks``: at so many looks running it has to hold. ``spread``: of its statistic between healthy runs, for calibration."""

    @property
    def name(self) -> str: ...
    @property
    def of(self) -> Literal["map", "look"]: ...
    @property
    def looks(self) -> int: ...
    @property
    def above(self) -> float: ...
    @property
    def clears(self) -> float: ...
    @property
    def spread(self) -> float: ...
    @property
    def advice(self) -> str: ...
    def judge(self, evidence: object) -> Judgement: ...


@dataclass(frozen=True)
class BackgroundDecides:
    """An object that stands in another image's scene loses to the scene. Needs masks or boxes."""

    above: float = Z95
    clears: float = 1.0
    looks: int = 2
    spread: float = 1.5
    name: ClassVar[str] = "background_decides"
    of: ClassVar[Literal["look"]] = "look"
    advice: ClassVar[str] = (
        "The prediction follows the scene and not the object: look at what lies outside the masks and differs between classes."
    )

    def judge(self, evidence: LookEvidence) -> Judgement:
        if evidence.exchanged is None or evidence.exchanged.share is None:
            return cannot_judge("needs masks or boxes on the probe, and a classifier")
        if reason := _too_early(evidence) or _too_few(evidence.exchanged.whole["object"]):
            return cannot_judge(reason)
        share = evidence.exchanged.share
        if not math.isfinite(share.share):
            return cannot_judge("the prediction follows neither object nor background")
        return Judgement(
            (0.5 - share.share) / _error(share),
            f"where an object stands in another image's scene, the prediction follows the object in {share.share:.0%} of the "
            f"exchanges that either wins (95 % interval {share.low:.0%} to {share.high:.0%}, {share.n} pairs)",
            _followers(evidence.exchanged.whole["background"]),
        )


@dataclass(frozen=True)
class PartDecides:
    """A part that should not decide carries the class into other images."""

    part: ClassVar[str]
    words: ClassVar[str]
    lacking: ClassVar[str] = "the part is not tested at this look, or the model is no classifier"

    above: float = Z95
    clears: float = 1.0
    looks: int = 2
    spread: float = 1.5
    of: ClassVar[Literal["look"]] = "look"

    def judge(self, evidence: LookEvidence) -> Judgement:
        counted = None if evidence.exchanged is None else evidence.exchanged.whole.get(self.part)
        if counted is None:
            return cannot_judge(self.lacking)
        if reason := _too_early(evidence) or _too_few(counted):
            return cannot_judge(reason)
        return Judgement(
            (counted.share - 0.5) / _error(counted),
            f"{self.words} carries the class into another image in {counted.share:.0%} of exchanges "
            f"(95 % interval {counted.low:.0%} to {counted.high:.0%}, {counted.n} pairs)",
            _followers(counted),
        )


@dataclass(frozen=True)
class NuisanceDecides(PartDecides):
    """The suspected region carries the class. Needs ``nuisance=``."""

    name: ClassVar[str] = "nuisance_decides"
    part: ClassVar[str] = "nuisance"
    words: ClassVar[str] = "the suspected region"
    lacking: ClassVar[str] = "needs nuisance= on the probe, and a classifier"
    advice: ClassVar[str] = "Take the cue out of the data, or make it independent of the class."


@dataclass(frozen=True)
class FrameDecides(PartDecides):
    """The outermost pixels carry the class."""

    name: ClassVar[str] = "frame_decides"
    part: ClassVar[str] = "frame"
    words: ClassVar[str] = "the frame, the outer sixteenth of each side,"
    advice: ClassVar[str] = "Look along the edges of the images of one class: borders, padding, stamps, scanner marks."


@dataclass(frozen=True)
class DetailDecides(PartDecides):
    """Fine detail carries the class further than in healthy runs. What is right depends on the task: needs a calibration."""

    above: float = NEVER
    clears: float = NEVER
    name: ClassVar[str] = "detail_decides"
    part: ClassVar[str] = "detail"
    words: ClassVar[str] = "fine detail"
    advice: ClassVar[str] = (
        "Compare sharpness, noise, compression and texture between the classes; more of the class lies there than in the "
        "accepted runs."
    )
