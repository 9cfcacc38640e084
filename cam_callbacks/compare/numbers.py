"""How each number is shown: which are shown at once and in which order, and values as text."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from cam_engine.metrics import describe

Better = Literal["higher", "lower"] | None

HEADLINES = ("object_share", "on_target_enrichment", "nuisance_enrichment", "consensus", "focus_drift")
"""Numbers that are shown at once."""
OF_A_REFERENCE = frozenset({"focus_drift"})
"""Those of them that wait until a reference is set."""
ORDER = (
    *HEADLINES,
    "drift_ref",
    "entropy",
    "drift_prev",
    "centroid_shift",
    "valid_frac",
    "max_t_p",
    "max_t",
    "noise_floor",
    "ceiling",
    "reference_set",
    "failed_looks",
    "seconds",
)
"""In which numbers are shown; others follow by name."""
SPANS = {
    "object_share": (0.0, 1.0),
    "on_target_enrichment": (0.0, 1.5),
    "nuisance_enrichment": (0.0, 1.5),
    "entropy": (0.0, 1.0),
    "consensus": (0.0, 1.0),
    "valid_frac": (0.0, 1.0),
    "max_t_p": (0.0, 0.05),
    "reference_set": (0.0, 1.0),
}
"""What the axis of a number's chart always shows."""
NO_CURVE = frozenset({"noise_floor", "ceiling", "reference_set", "failed_looks", "seconds", "overhead"})
"""Numbers that are in the table and need no chart."""


@dataclass(frozen=True)
class Number:
    """One of the numbers that runs are compared by, as it is shown.

    ``better``: the direction that is better; None where a number is a magnitude and no verdict.
    ``mark``: a value worth a line in its chart, and what it stands for. ``span``: the range its axis always shows.
    ``headline``: whether its curve is shown at once.
    """

    key: str
    title: str
    meaning: str
    better: Better = None
    mark: tuple[float, str] | None = None
    span: tuple[float, float] | None = None
    headline: bool = False


_HIGHER = re.compile(
    r"(^|[_/\-. ])(acc|accuracy|auc|auroc|ap|map|f1|iou|miou|dice|precision|recall|psnr|ssim)\d*($|[_/\-. @])"
)
_LOWER = re.compile(r"(^|[_/\-. ])(loss|error|err|mae|mse|rmse|nll|ece|perplexity|ppl)\d*($|[_/\-. @])")


def number(key: str) -> Number:
    """A number that looks measured, as the metrics' registry describes it."""
    known = describe(key)
    return Number(key, known.title, known.meaning, known.better, known.mark, SPANS.get(key), key in HEADLINES)


def user_number(key: str) -> Number:
    """A number that the trainer logged itself; the better direction is read from its name, where that says it."""
    name = key.lower()
    better: Better = "lower" if _LOWER.search(name) else "higher" if _HIGHER.search(name) else None
    return Number(key, key, "", better=better, headline=True)


def rank(key: str) -> tuple[int, str]:
    """Sort key: the listed numbers in their order, then the others by name."""
    return (ORDER.index(key) if key in ORDER else len(ORDER), key)


def value_text(value: float | None) -> str:
    """A value in at most eight characters; "–" where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if value == 0 or 0.0005 <= size < 10:
        return f"{value:.3f}"
    if size < 0.0005 or size >= 100_000:
        return f"{value:.1e}"
    return f"{value:.2f}" if size < 100 else f"{value:.1f}" if size < 1000 else f"{value:.0f}"
