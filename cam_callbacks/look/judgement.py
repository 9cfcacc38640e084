"""What a rule says of a look, and what every rule has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

NAMED = 5  # images that an alert names at most
NEVER = math.inf  # a threshold that only a calibration can set
FEWEST_IMAGES = 8
FEWEST_CELLS = 16  # on a coarser grid a map has no form to judge


@dataclass(frozen=True, eq=False)
class Judgement:
    """``statistic``: in standard errors; NaN where the rule cannot judge, and ``reason`` says why. ``measured``: in words.
    ``images``: indices, the worst first. ``advice``: in place of the rule's own, where this probe needs another."""

    statistic: float
    measured: str = ""
    images: Sequence[int] = ()
    reason: str = ""
    advice: str = ""


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
    def judge(self, evidence: Any) -> Judgement: ...
