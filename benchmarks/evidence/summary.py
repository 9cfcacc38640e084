"""What the trainings learned, as a table: accuracy by scenes and network, swap gaps by family and network."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from evidence.groups import role
from evidence.plans import JUDGED_NETWORKS, Training
from evidence.train import folder_of, is_finished

Done = Mapping[str, Any]


def finished(trainings: Iterable[Training], out: Path) -> dict[Training, Done]:
    """What ``training.json`` holds of those that are done."""
    return {
        training: json.loads((folder_of(training, out) / "training.json").read_text(encoding="utf-8"))
        for training in trainings
        if is_finished(training, out)
    }


def summary(trainings: Iterable[Training], out: Path) -> str:
    """Tables in Markdown."""
    done = finished(trainings, out)
    roles = Counter(role(each) for each in done.values())
    healthy = {t: each for t, each in done.items() if t.healthy}
    onsets = {t: each for t, each in done.items() if not t.healthy and t.onset is not None}
    cues = {t: each for t, each in done.items() if not t.healthy and t.onset is None}
    return "\n\n".join(
        [
            f"{len(done)} trainings: " + ", ".join(f"{n} {name}" for name, n in roles.most_common()) + ". "
            f"Seconds each: {sum(each['seconds'] for each in done.values()) / max(1, len(done)):.1f}",
            "Accuracy of healthy trainings\n\n" + _table(healthy, lambda t: t.scenes, _accuracy),
            "Accuracy by variation\n\n" + _table(healthy, lambda t: t.family, _accuracy),
            "Swap gap, cue from the beginning\n\n" + _table(cues, lambda t: t.family, _gap),
            "Swap gap, onset\n\n" + _table(onsets, lambda t: t.family, _gap),
        ]
    )


def _accuracy(done: Done) -> str:
    return f"{done['accuracy']['natural'][-1]:.2f}"


def _gap(done: Done) -> str:
    return f"{done['gap'][-1]:.2f}"


def _table(done: Mapping[Training, Done], row: Callable[[Training], str], cell: Callable[[Done], str]) -> str:
    cells = defaultdict(list)
    for training, each in done.items():
        cells[row(training), training.network].append(cell(each))
    rows = sorted({name for name, _ in cells})
    lines = ["| | " + " | ".join(JUDGED_NETWORKS) + " |", "|---" * (1 + len(JUDGED_NETWORKS)) + "|"]
    for name in rows:
        lines.append(f"| {name} | " + " | ".join(" ".join(sorted(cells[name, n])) for n in JUDGED_NETWORKS) + " |")
    return "\n".join(lines)
