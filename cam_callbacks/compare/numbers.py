"""What is known about each number: its name for people, what it says, which direction is better."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower"] | None


@dataclass(frozen=True)
class Number:
    """One of the numbers that runs are compared by.

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


_CHANCE = (1.0, "chance")

NUMBERS: dict[str, Number] = {
    number.key: number
    for number in (
        Number(
            "on_target_enrichment",
            "on-target enrichment",
            "Attention on the target against its share of the image. 1 is chance, below 1 looks elsewhere.",
            better="higher",
            mark=_CHANCE,
            span=(0, 1.5),
            headline=True,
        ),
        Number(
            "nuisance_enrichment",
            "nuisance enrichment",
            "Attention on what should not decide against its share of the image. 1 is chance.",
            better="lower",
            mark=_CHANCE,
            span=(0, 1.5),
            headline=True,
        ),
        Number(
            "focus_drift",
            "focus drift",
            "Movement since the reference beyond noise. 0 is noise, 1 disjoint. A magnitude, not a verdict.",
            mark=(0.0, "noise"),
            headline=True,
        ),
        Number(
            "drift_ref",
            "drift from reference",
            "Jensen–Shannon divergence from the reference look. 0 is the same focus; shaded: the noise floor.",
            headline=True,
        ),
        Number("entropy", "entropy", "How spread out the focus is. 1 is everywhere.", span=(0, 1), headline=True),
        Number(
            "consensus",
            "consensus",
            "How alike the maps of different images are. At 1 every image is looked at in the same place.",
            span=(0, 1),
            headline=True,
        ),
        Number("drift_prev", "drift from previous", "Jensen–Shannon divergence from the look before."),
        Number("centroid_shift", "centroid shift", "How far the centre of focus moved since the reference."),
        Number("valid_frac", "valid maps", "Share of probe images with a map.", better="higher", span=(0, 1)),
        Number(
            "max_t_p",
            "max-t p-value",
            "Of the test whether the focus moved in the same direction on many images. Small: it did.",
            mark=(0.01, "p 0.01"),
            span=(0, 0.05),
        ),
        Number("max_t", "max-t", "The largest paired t of any cell against the reference, over images."),
        Number("noise_floor", "noise floor", "Divergence that faint noise in the images causes by itself."),
        Number("ceiling", "ceiling", "Divergence between maps of different images."),
        Number("reference_set", "reference set", "1 once drift has a settled reference.", span=(0, 1)),
        Number("failed_looks", "failed looks", "Looks that raised an error.", better="lower"),
        Number("seconds", "seconds a look", "What one look cost."),
    )
}
"""In the order in which they are shown."""

NO_CURVE = frozenset({"noise_floor", "ceiling", "reference_set", "failed_looks", "seconds"})
"""Numbers that are in the table and need no chart."""

_HIGHER = re.compile(
    r"(^|[_/\-. ])(acc|accuracy|auc|auroc|ap|map|f1|iou|miou|dice|precision|recall|psnr|ssim)\d*($|[_/\-. @])"
)
_LOWER = re.compile(r"(^|[_/\-. ])(loss|error|err|mae|mse|rmse|nll|ece|perplexity|ppl)\d*($|[_/\-. @])")


def number(key: str) -> Number:
    """What is known about a tracked number; of one that is not listed, its name."""
    return NUMBERS.get(key) or Number(key, key.replace("_", " "), "")


def user_number(key: str) -> Number:
    """A number that the trainer logged itself; the better direction is read from its name, where that says it."""
    name = key.lower()
    better: Better = "lower" if _LOWER.search(name) else "higher" if _HIGHER.search(name) else None
    return Number(key, key, "", better=better, headline=True)


def rank(key: str) -> tuple[int, str]:
    """Sort key: the listed numbers in their order, then the others by name."""
    order = list(NUMBERS)
    return (order.index(key) if key in NUMBERS else len(order), key)


def shown(value: float | None) -> str:
    """A value in at most eight characters; "–" where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if value == 0 or 0.0005 <= size < 10:
        return f"{value:.3f}"
    if size < 0.0005 or size >= 100_000:
        return f"{value:.1e}"
    return f"{value:.2f}" if size < 100 else f"{value:.1f}" if size < 1000 else f"{value:.0f}"
