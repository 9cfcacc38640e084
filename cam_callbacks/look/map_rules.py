"""Rules over where a map lies: on the target, elsewhere than it was, or nowhere."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from cam_callbacks.look.evidence import Z95, Array, Measurement
from cam_callbacks.look.judgement import FEWEST_CELLS, FEWEST_IMAGES, NAMED, Judgement, cannot_judge


@dataclass(frozen=True)
class OffTarget:
    """Less focus on the target than chance. Needs masks or boxes."""

    above: float = Z95
    clears: float = 1.0
    looks: int = 2
    spread: float = 2.0
    name: ClassVar[str] = "off_target"
    of: ClassVar[Literal["map"]] = "map"
    advice: ClassVar[str] = "Look at the overlays of these images: what lies under the focus?"
    SUSPECT: ClassVar[str] = " ProbeSet(nuisance=...) measures a region that you suspect."

    def judge(self, evidence: Measurement) -> Judgement:
        pooled = evidence.aggregates.get("on_target_enrichment")
        if pooled is None:
            return cannot_judge("needs masks or boxes on the probe")
        if evidence.at_chance:
            return cannot_judge("the model is at chance on the probe")
        if not evidence.settled:
            return cannot_judge("the focus has not settled")
        if pooled["n"] < FEWEST_IMAGES or not math.isfinite(pooled["pooled_high"] - pooled["pooled_low"]):
            return cannot_judge(f"needs {FEWEST_IMAGES} images with a map and a target, has {pooled['n']:.0f}")
        error = max((pooled["pooled_high"] - pooled["pooled_low"]) / (2 * Z95), 1e-6)
        return Judgement(
            (1 - pooled["pooled"]) / error,
            f"on-target enrichment is {pooled['pooled']:.2f} (95 % interval {pooled['pooled_low']:.2f} to "
            f"{pooled['pooled_high']:.2f}); chance is 1",
            _lowest(evidence.per_image["on_target_enrichment"]),
            advice="" if "nuisance_enrichment" in evidence.per_image else f"{self.advice}{self.SUSPECT}",
        )


@dataclass(frozen=True)
class FocusMoved:
    """The focus has moved since the reference, further than it did between looks when it was calm, and to the same cells on many
    images. Needs no masks. The statistic is the smaller of two: drift over ``level``, and the largest |t| of a cell over what
    sign flips reach; neither has a known null in a training that goes on, so the threshold comes from healthy runs."""

    level: float = 0.05
    above: float = 2.0
    clears: float = 1.0
    looks: int = 2
    spread: float = 1.0
    name: ClassVar[str] = "focus_moved"
    of: ClassVar[Literal["map"]] = "map"
    advice: ClassVar[str] = (
        "Compare the overlays of these images at the reference and now; the record's t_maps show the cells that gained."
    )

    def judge(self, evidence: Measurement) -> Judgement:
        drift, test = evidence.numbers["drift_ref"], evidence.moved
        if evidence.at_chance:
            return cannot_judge("the model is at chance on the probe")
        if not (evidence.settled and evidence.reference_set):
            return cannot_judge("no reference yet: the focus has not settled")
        if evidence.cells < FEWEST_CELLS:
            return cannot_judge(f"the grid of {evidence.cells} cells is too coarse to judge; name a finer layer")
        if test.n < FEWEST_IMAGES or not math.isfinite(drift):
            return cannot_judge(f"needs {FEWEST_IMAGES} images with a map then and now, has {test.n}")
        level = max(self.level, 3 * evidence.floor if math.isfinite(evidence.floor) else 0.0)
        return Judgement(
            min(drift / level, test.statistic / test.critical) if test.critical > 0 else 0.0,  # 0: nothing moved at all
            f"the focus has moved to the {place(test.t)}: drift from the reference is {drift:.3f}, between looks of a calm focus "
            f"{evidence.calm:.3f}; |t| = {test.statistic:.1f} on {test.n} images",
            _lowest(-evidence.per_image["drift_ref"]),
        )


@dataclass(frozen=True)
class Collapsed:
    """Few images have a map at all, of those that have what is explained. Not at the first look: an untrained network may have no
    gradient."""

    below: float = 0.5
    above: float = 0.0
    clears: float = -0.25
    looks: int = 1
    spread: float = 0.25
    name: ClassVar[str] = "collapsed"
    of: ClassVar[Literal["map"]] = "map"
    advice: ClassVar[str] = (
        "Check the weights for NaN and the explained layer for dead units: the loss and the gradients of this epoch."
    )

    def judge(self, evidence: Measurement) -> Judgement:
        if evidence.look == 0:
            return cannot_judge("an untrained network may have no gradient")
        share = evidence.numbers["valid_frac"]
        without = ~np.isfinite(evidence.per_image["entropy"])
        if (expected := evidence.explainable) is not None:
            if not expected.any():
                return cannot_judge("every image is without that class")
            share, without = float((~without)[expected].mean()), without & expected
        images = np.flatnonzero(without)[:NAMED].tolist()
        return Judgement(self.below - share, f"{share:.0%} of the images have a valid map", images)


def place(t: Array) -> str:
    """Where a t map (h, w) gained most, in words: ``"top left"``, ``"centre"``."""
    h, w = t.shape
    row, column = divmod(int(np.argmax(t)), w)
    vertical = ("top", "", "bottom")[3 * row // h]
    horizontal = ("left", "", "right")[3 * column // w]
    return " ".join(filter(None, (vertical, horizontal))) or "centre"


def _lowest(values: Array) -> list[int]:
    """Indices of the lowest defined values, lowest first."""
    order = np.argsort(values, kind="stable")  # NaN last
    return [int(i) for i in order[:NAMED] if np.isfinite(values[i])]
