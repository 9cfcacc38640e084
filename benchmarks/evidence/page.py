"""The page docs/evidence.md, from the trainings that are looked at: what was raised, on what, and what was missed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import binomtest

from cam_callbacks import RecordStore
from evidence.groups import Role, role
from evidence.plans import Training, plan
from evidence.summary import finished
from evidence.train import folder_of

PAGE = Path(__file__).parents[2] / "docs" / "evidence.md"
NEED_MASKS = {"background_decides", "off_target"}
IN_TIME = 3  # epochs from the onset to the alert
TITLES: dict[Role, str] = {"healthy": "healthy", "decides": "cue that decides", "beside": "cue beside the object"}


@dataclass(frozen=True)
class Judged:
    """One training: what it is, and what was raised. ``alerts``: rule → epoch of its first alert. ``share``: the object's, with
    its 95 % interval, at the last look. ``gap``: accuracy lost when the cue is swapped; NaN of healthy ones."""

    training: Training
    role: Role
    gap: float
    share: tuple[float, float, float]
    alerts: dict[str, int]


def judged(trainings: Iterable[Training], out: Path) -> list[Judged]:
    """Those that are trained and looked at; ones whose cue was not learned are evidence of nothing."""
    found = []
    for training, done in finished(trainings, out).items():
        folder = folder_of(training, out)
        if not (folder / "looks.json").is_file():
            continue
        records = list(RecordStore(folder / "records"))
        share = records[-1].aggregates["object_share"]
        alerts: dict[str, int] = {}
        for record in records:
            for alert in record.alerts:
                alerts.setdefault(alert.name, record.epoch)
        gap = done["gap"][-1] if "gap" in done else math.nan
        found.append(Judged(training, role(done), gap, (share["mean"], share["low"], share["high"]), alerts))
    return found


def share_of(hits: Sequence[bool]) -> str:
    """A share in words, with Wilson's 95 % interval."""
    if not hits:
        return "none yet"
    interval = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    return f"{sum(hits)} of {len(hits)} ({interval.low:.0%} to {interval.high:.0%})"


def page(found: Sequence[Judged], planned: int) -> str:
    """The page as Markdown."""
    by_role: dict[Role, list[Judged]] = defaultdict(list)
    for each in found:
        by_role[each.role].append(each)
    healthy, decides, beside = by_role["healthy"], by_role["decides"], by_role["beside"]
    onsets = [each for each in decides + beside if each.training.onset is not None]
    in_time = [
        any(e - (o.training.onset or 0) <= IN_TIME for e in o.alerts.values() if e >= (o.training.onset or 0))
        for o in onsets
    ]
    rows = [
        ("healthy: any alert", share_of([bool(h.alerts) for h in healthy]), "at most 5 %"),
        (
            "cues that decide (swap gap above 0.5): any alert",
            share_of([bool(d.alerts) for d in decides]),
            "at least 95 %",
        ),
        (
            "the same without the rules that need masks",
            share_of([bool(d.alerts.keys() - NEED_MASKS) for d in decides]),
            "calibrated 80 %",
        ),
        (
            "cues beside the object (0.25 to 0.5): any alert",
            share_of([bool(b.alerts) for b in beside]),
            "calibrated 95 %",
        ),
        (f"onsets alerted within {IN_TIME} epochs", share_of(in_time), "80 %"),
    ]
    return "\n\n".join(
        [
            "# Evidence: planted cues\n\nWritten by `make evidence`; do not edit.",
            _INTRODUCTION,
            f"**{len(found)} of the {planned} trainings of the plan are trained and looked at here**, "
            f"{len(by_role['unlearned'])} of them with a cue that was not learned, {len(by_role['untrained'])} that learned "
            "nothing at all, which are evidence of nothing. " + _FEW,
            "## What was raised\n\n| | share (95 % interval) | aim |\n|---|---|---|\n"
            + "\n".join(f"| {title} | {share} | {aim} |" for title, share, aim in rows),
            "## Who wins when objects are exchanged\n\nObject share at the last look, lowest to highest.\n\n"
            + _shares(by_role),
            "## What was raised and should not have been, and what was missed\n\n" + _mistakes(found),
            _MORE,
        ]
    )


def _shares(by_role: dict[Role, list[Judged]]) -> str:
    lines = ["| | n | object share |", "|---|---|---|"]
    for name, title in TITLES.items():
        shares = sorted(each.share[0] for each in by_role[name] if math.isfinite(each.share[0]))
        values = f"{shares[0]:.2f} to {shares[-1]:.2f}, median {shares[len(shares) // 2]:.2f}" if shares else "–"
        lines.append(f"| {title} | {len(shares)} | {values} |")
    return "\n".join(lines)


def _mistakes(found: Sequence[Judged]) -> str:
    lines = ["| training | swap gap | object share (95 %) | alerts |", "|---|---|---|---|"]
    for each in sorted(found, key=lambda each: (each.role, each.training.id)):
        if each.role == "untrained" or (each.role == "healthy") != bool(each.alerts) or each.role == "unlearned":
            continue
        gap = "–" if math.isnan(each.gap) else f"{each.gap:.2f}"
        alerts = ", ".join(f"{name} (epoch {epoch})" for name, epoch in each.alerts.items()) or "none"
        lines.append(
            f"| `{each.training.id}` | {gap} | {each.share[0]:.2f} ({each.share[1]:.2f} to {each.share[2]:.2f}) | {alerts} |"
        )
    return "\n".join(lines) if len(lines) > 2 else "None in these trainings."


def write(out: Path) -> str:
    """Write the page from what is there, and say what it is made of."""
    trainings = plan()
    found = judged(trainings, out)
    PAGE.write_text(page(found, len(trainings)) + "\n", encoding="utf-8")
    return f"{PAGE.name}: {len(found)} of {len(trainings)} trainings"


_INTRODUCTION = """Does it show a shortcut that accuracy hides, and is it silent where nothing is wrong? Here the truth is known,
because the cue was planted. Small networks (a plain CNN, a ResNet with BatchNorm, a ViT, an early-pooled CNN with a 2×2 grid,
a MobileNetV2 with ImageNet weights) are trained on scenes with an object whose place is known (shapes, handwritten
digits, letters, blobs on textured grounds), as they are, under many healthy variations (schedules, restarts,
augmentation switched on or off, unfreezing, imbalance, label noise, large rates, small probes, a cue that says
nothing), and with a cue: a tag in the corner, elsewhere, right in 90 % of images, a border, a watermark, a companion,
a tint, a grating, the grain of the ground, blur, a band of frequencies; from the start or from the middle on. How
much a network uses its cue is measured: the *swap gap* is the accuracy lost when the cue is that of another class.

A look is taken after every epoch with default settings. What no map and no exchange can show is a cue that the probe
does not hold."""

_FEW = """With so few, every figure below has a wide interval, and thresholds have not been set by the part of the plan that is
for that: rules have the thresholds of [metrics](metrics.md)."""

_MORE = """## Run it

```sh
make evidence                            # trains what is missing (about 12 s each on an idle core), looks, and writes this page
make evidence EVIDENCE_ARGS="--quick"    # a tenth of the plan
```

Trainings and looks are kept in `build/evidence` and go on where they stopped; `benchmarks/evidence/README.md` says how."""
