"""The figures of the evidence, from what is judged: one row a run, and claims with intervals. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cam_callbacks.calibration import Calibration
from evidence import image_check
from evidence.alarms import Alarm, Look, calibrated, highest, raised
from evidence.groups import role
from evidence.judge import VIEWS, from_plain
from evidence.plans import Training
from evidence.thresholds import Judged
from evidence.train import folder_of

Row = Mapping[str, Any]

FEWEST_ACCEPTED = 4  # healthy runs by which the others of the same scenes and network are calibrated
WIDE_GROUPS = 0.25  # between the best and the worst group, that a user with groups would look into
SOON = 3  # epochs after an onset
Z95 = 1.959964


def known_of(training: Training, done: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """What ``training.json`` and ``judged.json`` say of a run, and its role."""
    judged = json.loads((folder_of(training, out) / "judged.json").read_text(encoding="utf-8"))
    return {**done, **judged, "role": role(done)}


def wilson(k: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of k in n (Wilson 1927); 0 to 1 for n = 0."""
    if n == 0:
        return 0.0, 1.0
    share, z2 = k / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n**2)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def counted(rows: Sequence[Row], holds: Callable[[Row], bool | None]) -> dict[str, Any]:
    """In how many rows something holds, with its interval; rows of which that is not known (None) are left out."""
    known = [value for row in rows if (value := holds(row)) is not None]
    low, high = wilson(sum(known), len(known))
    share = sum(known) / len(known) if known else math.nan
    return {"k": sum(known), "n": len(known), "share": share, "low": low, "high": high}


def summarise(
    judged: Judged, planned: int, checked: Mapping[str, Any] | None = None, eigengap: float | None = None
) -> dict[str, Any]:
    """Everything that the page says.

    Args:
        judged: What is known of each run (:func:`known_of`).
        planned: Trainings of the plan.
        checked: What the image check found, by :func:`evidence.image_check.name_of`.
        eigengap: The threshold of the clusters of maps.
    """
    accepted = calibrations(judged)
    rows = [row_of(t, each, accepted(t), checked or {}, eigengap) for t, each in judged.items()]
    return {"planned": planned, "looked": len(rows), "runs": sorted(rows, key=lambda row: row["id"])}


def calibrations(judged: Judged) -> Callable[[Training], dict[str, Calibration]]:
    """For a training, a calibration in each view by the healthy runs of the same scenes and network, itself left out; {} where
    there are too few."""
    looks = {
        view: {t: from_plain(each["views"][view]) for t, each in judged.items() if each["role"] == "healthy"}
        for view in VIEWS
    }

    def of(training: Training) -> dict[str, Calibration]:
        alike = [
            t
            for t in looks["with masks"]
            if (t.scenes, t.network) == (training.scenes, training.network) and t != training
        ]
        if len(alike) < FEWEST_ACCEPTED:
            return {}
        return {view: calibrated({t.id: of_view[t] for t in alike}) for view, of_view in looks.items()}

    return of


def row_of(
    training: Training,
    known: Mapping[str, Any],
    accepted: Mapping[str, Calibration],
    checked: Mapping[str, Any],
    eigengap: float | None,
) -> dict[str, Any]:
    """One run."""
    views: dict[str, list[Look]] = {view: from_plain(known["views"][view]) for view in VIEWS}
    image, reached = checked.get(image_check.name_of(training)), highest(views["with masks"])
    return {
        "id": training.id,
        "part": training.part,
        "scenes": training.scenes,
        "network": training.network,
        "family": training.family,
        "role": known["role"],
        "onset": training.onset,
        "new": sum(training.novel.values()),
        "gap": known["gap"][-1] if "gap" in known else None,
        "accuracy": known["accuracy"]["natural"][-1],
        "images": training.probe,
        "object_share": known["object_share"],
        "reached": reached,
        "judged": math.isfinite(reached["frame_decides"]),  # it judges every classifier above chance
        "alarms": {view: raised(looks) for view, looks in views.items()},
        "calibrated": {view: raised(looks, accepted[view]) for view, looks in views.items()} if accepted else None,
        "accepted": len(next(iter(accepted.values())).runs) if accepted else 0,
        "version 0.1": known["version 0.1"],
        "groups": known["groups"] > WIDE_GROUPS,
        "clusters": None if eigengap is None else known["eigengap"] > eigengap,
        "image check": None if image is None else image_check.is_flagged(image),
    }


# What is asked of a row
# ----------------------------------------------------------------------------------------------------------------------


def default(view: str) -> Callable[[Row], bool | None]:
    """Is any alert raised by default settings?"""
    return lambda row: bool(row["alarms"][view])


def by_calibration(view: str) -> Callable[[Row], bool | None]:
    """Is any alert raised after a calibration? None where there was none."""
    return lambda row: None if row["calibrated"] is None else bool(row["calibrated"][view])


def delay(alarms: Sequence[Alarm], onset: int) -> int | None:
    """Epochs from an onset to the first alarm after it; None where none came."""
    after = [epoch - onset for epoch, _ in alarms if epoch >= onset]
    return min(after, default=None)


def soon(alarms_of: Callable[[Row], Sequence[Alarm] | None]) -> Callable[[Row], bool | None]:
    """Did an alarm come within three epochs of the onset?"""

    def holds(row: Row) -> bool | None:
        alarms = alarms_of(row)
        if alarms is None:
            return None
        late = delay(alarms, row["onset"])
        return late is not None and late <= SOON

    return holds


def part_of(runs: Sequence[Row], *roles: str, part: str = "judged", onsets: bool = False, **same: str) -> list[Row]:
    """The runs of a part of the matrix with these roles; healthy ones have no onset."""
    return [
        row
        for row in runs
        if row["part"] == part
        and row["role"] in roles
        and (row["onset"] is not None) == onsets
        and all(row[key] == value for key, value in same.items())
    ]


def healthy_of(runs: Sequence[Row], part: str = "judged") -> list[Row]:
    """Healthy runs that alerts could have been raised in: a model that stays at chance on the probe is silent for nothing."""
    return [row for row in part_of(runs, "healthy", part=part) if row["judged"]]


def bars(runs: Sequence[Row]) -> list[dict[str, Any]]:
    """The bars that were set before anything was judged: what was counted, the bar, and the verdict."""
    healthy, decides, beside = healthy_of(runs), part_of(runs, "decides"), part_of(runs, "beside")
    onsets = part_of(runs, "decides", "beside", onsets=True)
    asked: list[tuple[str, float, list[Row], Callable[[Row], bool | None]]] = [
        ("healthy runs with any alert, default settings, with masks", -0.05, healthy, default("with masks")),
        ("cues that decide, caught by default settings, with masks", 0.95, decides, default("with masks")),
        ("cues beside the object, caught calibrated, with masks", 0.95, beside, by_calibration("with masks")),
        ("cues that decide, caught calibrated, without masks", 0.80, decides, by_calibration("without masks")),
        ("onsets alerted within 3 epochs, with masks", 0.80, onsets, soon(lambda row: row["alarms"]["with masks"])),
    ]
    found = []
    for claim, bar, rows, holds in asked:
        of = counted(rows, holds)
        found.append({"claim": claim, "bar": bar, "verdict": verdict(of, bar), **of})
    return found


def verdict(of: Mapping[str, Any], bar: float) -> str:
    """Is a bar met? A negative one is a rate of false alarms, whose upper bound has to be at most 10 % too."""
    if of["n"] == 0:
        return "nothing to judge yet"
    if bar >= 0:
        if of["share"] < bar:
            return "missed"
        return "met" if of["low"] >= bar else "met by the share, whose interval reaches below the bar"
    if of["share"] > -bar:
        return "missed"
    return "met" if of["high"] <= 0.1 else "missed: the rate is low enough, its upper bound is not"


def rivals(runs: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """For ours and each rival: healthy runs flagged, cues caught, onsets in time."""
    healthy, decides, beside = healthy_of(runs), part_of(runs, "decides"), part_of(runs, "beside")
    onsets = part_of(runs, "decides", "beside", onsets=True)
    flags: dict[str, Callable[[Row], bool | None]] = {
        "default settings, with masks": default("with masks"),
        "default settings, without masks": default("without masks"),
        "default settings, without masks or nuisance": default("without either"),
        "default settings, with masks, 32 mixtures a look": default("few mixtures"),
        "calibrated, with masks": by_calibration("with masks"),
        "calibrated, without masks": by_calibration("without masks"),
        "calibrated, without masks or nuisance": by_calibration("without either"),
        "alerts of version 0.1, with masks": lambda row: bool(row["version 0.1"]["with masks"]),
        "alerts of version 0.1, without masks": lambda row: bool(row["version 0.1"]["without masks"]),
        "accuracy of groups (needs the cue's labels)": lambda row: row["groups"],
        "clusters of maps (SpRAy)": lambda row: row["clusters"],
        "image check (Cleanlab Datalab)": lambda row: row["image check"],
    }
    timed: dict[str, Callable[[Row], Sequence[Alarm] | None]] = {}
    for view, words in (("with masks", ""), ("without masks", ""), ("without either", " or nuisance")):
        name = "without masks" if view == "without either" else view
        timed[f"default settings, {name}{words}"] = lambda row, v=view: row["alarms"][v]  # type: ignore[misc]
        timed[f"calibrated, {name}{words}"] = lambda row, v=view: (row["calibrated"] or {}).get(v)  # type: ignore[misc]
    timed["default settings, with masks, 32 mixtures a look"] = lambda row: row["alarms"]["few mixtures"]
    for view in ("with masks", "without masks"):
        timed[f"alerts of version 0.1, {view}"] = lambda row, v=view: row["version 0.1"][v]  # type: ignore[misc]
    return {
        name: {
            "healthy": counted(healthy, flag),
            "decides": counted(decides, flag),
            "beside": counted(beside, flag),
            "onsets": counted(onsets, soon(timed[name])) if name in timed else None,
        }
        for name, flag in flags.items()
    }
