"""The rules that judge a look: a class in ``exchange_rules`` or ``map_rules``, and its line here.

Each gives a look a studentised statistic, large where something is wrong. Above ``above`` it holds, unless a calibration sets
another threshold (:mod:`cam_callbacks.calibration`); up to ``clears`` it does not; in between it leaves things as they are. Where
a rule cannot judge it says why, and neither holds nor clears. The thresholds were set on the first part of ``make evidence`` and
are judged there on the other (docs/evidence.md).
"""

from __future__ import annotations

from cam_callbacks.look.exchange_rules import (
    BackgroundDecides,
    CounterfactualGap,
    DetailDecides,
    FollowsChanged,
    FrameDecides,
    NuisanceDecides,
)
from cam_callbacks.look.judgement import Rule
from cam_callbacks.look.map_rules import Collapsed, FocusMoved, OffTarget

DEFAULT: tuple[Rule, ...] = (
    BackgroundDecides(),
    NuisanceDecides(),
    FrameDecides(),
    DetailDecides(),
    OffTarget(),
    CounterfactualGap(),
    FollowsChanged(),
    FocusMoved(),
    Collapsed(),
)
