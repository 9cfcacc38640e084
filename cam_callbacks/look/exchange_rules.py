"""Rules over what decides: whose prediction comes out when two images exchange a part, and accuracy without a cue."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from cam_callbacks.look.evidence import Z95, LookEvidence
from cam_callbacks.look.exchanged import Outcomes
from cam_callbacks.look.judgement import FEWEST_IMAGES, NAMED, NEVER, Judgement, cannot_judge
from cam_engine.exchange import Followed, ObjectShare, object_share


@dataclass(frozen=True)
class BackgroundDecides:
    """Where an object stands in another image's scene, the scene has its part in the prediction. Needs masks or boxes.

    Counted are exchanges between images that the model gets right, where labels are known: what it follows where it errs says
    nothing of how it tells classes apart, and while it still learns that is most of them. The upper bound of the object's share
    lies below ``share``: 0.9, above which 97 % of the healthy trainings of docs/evidence.md end; cues beside the object bring it
    below, and ½ would wait for the scene to win as often as the object.
    """

    share: float = 0.9
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
        objects, background = evidence.exchanged.whole["object"], evidence.exchanged.whole["background"]
        if evidence.right is not None:
            right = evidence.right[objects.pairs[:, 0]] & evidence.right[objects.pairs[:, 1]]
            objects, background = objects.of(right), background.of(right)
        if reason := _too_early(evidence) or _too_few(
            objects, "" if evidence.right is None else "that the model gets right "
        ):
            return cannot_judge(reason)
        share = object_share(objects, background)
        if not math.isfinite(share.share):
            return cannot_judge("the prediction follows neither object nor background")
        which = "" if evidence.right is None else " (both named right)"
        return Judgement(
            (self.share - share.share) / _error(share),
            f"where an object stands in another image's scene{which}, the prediction follows the object in {share.share:.0%} "
            f"of the exchanges that either wins (95 % interval {share.low:.0%} to {share.high:.0%}, {share.n} pairs)",
            _followers(background),
        )


@dataclass(frozen=True)
class PartDecides:
    """A part that should not decide carries the class into other images."""

    part: ClassVar[str]
    words: ClassVar[str]
    lacking: ClassVar[str] = "nothing was exchanged: the model is no classifier, or names one class alone"

    above: float = Z95
    clears: float = 1.0
    looks: int = 2
    spread: float = 1.5
    of: ClassVar[Literal["look"]] = "look"

    def judge(self, evidence: LookEvidence) -> Judgement:
        counted = None if evidence.exchanged is None else evidence.exchanged.whole.get(self.part)
        if counted is None:
            left_out = evidence.exchanged is not None and self.part != "nuisance"
            return cannot_judge(f"{self.part} was not exchanged at this look" if left_out else self.lacking)
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


@dataclass(frozen=True)
class CounterfactualGap:
    """Accuracy falls without the cue. Needs ``ProbeSet(counterfactual=...)``."""

    gap: float = 0.1
    above: float = Z95
    clears: float = 1.0
    looks: int = 2
    spread: float = 1.0
    name: ClassVar[str] = "counterfactual_gap"
    of: ClassVar[Literal["look"]] = "look"
    advice: ClassVar[str] = "The model uses what the counterfactual version of the probe takes away."

    def judge(self, evidence: LookEvidence) -> Judgement:
        if evidence.gap is None:
            return cannot_judge("needs counterfactual= on the probe")
        n = len(evidence.gap)
        if n < FEWEST_IMAGES:
            return cannot_judge(f"needs {FEWEST_IMAGES} images, has {n}")
        fall = float(evidence.gap.mean())
        error = max(float(evidence.gap.std(ddof=1)) / math.sqrt(n), 1 / (n + 2))
        return Judgement(
            (fall - self.gap) / error,
            f"accuracy on the counterfactual probe is lower by {fall:.0%} of the {n} images",
            np.flatnonzero(evidence.gap > 0)[:NAMED].tolist(),
        )


@dataclass(frozen=True)
class FollowsChanged:
    """What the prediction follows has changed since the reference, pair by pair: less the object, or more of what should not
    decide. The test is the same for each part; the largest change counts."""

    above: float = 4.0
    clears: float = 2.0
    looks: int = 2
    spread: float = 1.0
    name: ClassVar[str] = "follows_changed"
    of: ClassVar[Literal["look"]] = "look"
    advice: ClassVar[str] = "Find out what changed in data, augmentation or labels since the reference."
    _SIGNS: ClassVar[dict[str, float]] = {"object": -1, "background": 1, "nuisance": 1, "frame": 1, "detail": 1}

    def judge(self, evidence: LookEvidence) -> Judgement:
        if evidence.exchanged is None:
            return cannot_judge("nothing was exchanged at this look, or the model is no classifier")
        if reason := _too_early(evidence) or ("no reference yet" if evidence.then is None else ""):
            return cannot_judge(reason)
        assert evidence.then is not None
        changes = {
            part: change
            for part, sign in self._SIGNS.items()
            if (change := paired_change(evidence.exchanged.whole.get(part), evidence.then.get(part), sign)) is not None
        }
        if not changes:
            return cannot_judge(f"needs {FEWEST_IMAGES} images with the same pairs at the reference")
        part = max(changes, key=lambda name: changes[name][0])
        statistic, before, now = changes[part]
        words = "the object" if part == "object" else f"the {part}"
        return Judgement(
            statistic,
            f"the prediction follows {words} in {now:.0%} of exchanges, at the reference in {before:.0%} of the same pairs",
            _followers(evidence.exchanged.whole[part]),
        )


def paired_change(
    now: Outcomes | Followed | None, then: Outcomes | Followed | None, sign: float
) -> tuple[float, float, float] | None:
    """How the outcomes of pairs changed: (mean change over its standard error over receivers, share then, share now).

    ``sign`` is 1 where more is worse, −1 where less is. None with fewer than eight receivers whose pairs count both times.
    """
    if now is None or then is None:
        return None
    before = {tuple(pair): value for pair, value in zip(then.pairs.tolist(), then.followed, strict=True)}
    rows = [
        (pair[1], before.get(tuple(pair), math.nan), value)
        for pair, value in zip(now.pairs.tolist(), now.followed, strict=True)
    ]
    both = np.array([row for row in rows if math.isfinite(row[1]) and math.isfinite(row[2])])
    if not len(both):
        return None
    receivers, places = np.unique(both[:, 0], return_inverse=True)
    n = len(receivers)
    if n < FEWEST_IMAGES:
        return None
    pairs = np.bincount(places)
    change = np.bincount(places, weights=both[:, 2] - both[:, 1]) / pairs
    error = max(float(change.std(ddof=1)) / math.sqrt(n), 1 / (n + 2))
    return sign * float(change.mean()) / error, float(both[:, 1].mean()), float(both[:, 2].mean())


def untrusted(focus: Followed | None, random: Followed | None) -> str | None:
    """Why a map cannot be believed: focus carries no more of the class than a random place; None where it does, or is not known.

    Paired, over receivers, at 95 %.
    """
    if focus is None or random is None:
        return None
    compared = paired_change(focus, random, 1)
    if compared is None or compared[0] > Z95:
        return None
    return (
        f"focus carries the class in {compared[2]:.0%} of exchanges, a random place of its size in {compared[1]:.0%}: "
        "these maps do not show what decides"
    )


def _too_early(evidence: LookEvidence) -> str:
    return "the model is at chance on the probe" if evidence.at_chance else ""


def _too_few(counted: Followed, which: str = "") -> str:
    n = counted.receivers
    return "" if n >= FEWEST_IMAGES else f"needs {FEWEST_IMAGES} images {which}with a pair that counts, has {n}"


def _error(counted: Followed | ObjectShare) -> float:
    """Standard error of a share, from its interval; not below that of one more pair, where all pairs agree."""
    return max((counted.high - counted.low) / (2 * Z95), 1 / (counted.n + 2))


def _followers(counted: Followed) -> list[int]:
    """Receivers whose prediction followed the donor most often."""
    receivers = counted.pairs[:, 1]
    chosen = np.isfinite(counted.followed)
    shares = np.bincount(receivers[chosen], weights=counted.followed[chosen]) / np.maximum(
        np.bincount(receivers[chosen]), 1
    )
    order = np.argsort(-shares, kind="stable")
    return [int(i) for i in order[:NAMED] if shares[i] > 0]
