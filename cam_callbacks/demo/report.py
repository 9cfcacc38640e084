"""What the demo says at the end: both runs side by side, what that means, and where to look."""

from __future__ import annotations

import math
import shlex
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cam_callbacks.records import Alert, RecordStore
from cam_callbacks.text_table import line


@dataclass(frozen=True)
class Outcome:
    """One finished run: its name, its records, and its accuracy on tags as it was trained with and on tags that lie."""

    name: str
    store: RecordStore
    accuracy: float
    accuracy_swapped: float

    def number(self, metric: str) -> float:
        """A GradCAM number of the last look, or one of the look as a whole."""
        metrics = self.store[-1].metrics
        return metrics.get(f"cam/{metric}/gradcam", metrics.get(f"cam/{metric}", math.nan))


EXCHANGED = (
    ("object share (below ½: the scene)", "object_share"),
    ("follows the tag", "follows_nuisance"),
)
ROWS = (
    ("on the digit (1 is chance)", "on_target_enrichment"),
    ("on the tag (1 is chance)", "nuisance_enrichment"),
    ("consensus (1: same place everywhere)", "consensus"),
    ("entropy (1: diffuse)", "entropy"),
    ("focus drift (0: calm)", "focus_drift"),
)


def table(outcomes: Sequence[Outcome]) -> str:
    """The runs side by side, at most 80 columns for two."""
    first = max(len(title) for title, _ in ROWS) + 2

    def row(title: str, cells: Sequence[str]) -> str:
        return line([title, *cells], [first, *[14] * len(cells)], "<>")

    rule = "─" * (first + 14 * len(outcomes))
    return "\n".join(
        [
            row("", [outcome.name for outcome in outcomes]),
            rule,
            row("validation accuracy", [f"{outcome.accuracy:.1%}" for outcome in outcomes]),
            row("accuracy with the tags swapped", [f"{outcome.accuracy_swapped:.1%}" for outcome in outcomes]),
            rule,
            "What the prediction follows when two images exchange a part",
            *(row(f"  {title}", [_plain(outcome.number(key)) for outcome in outcomes]) for title, key in EXCHANGED),
            rule,
            "GradCAM after the last epoch",
            *(row(f"  {title}", [_plain(outcome.number(metric)) for outcome in outcomes]) for title, metric in ROWS),
        ]
    )


def story(clean: Outcome, shortcut: Outcome) -> str:
    """One sentence about what the numbers say, whatever they say."""
    digit, tag = shortcut.number("on_target_enrichment"), shortcut.number("nuisance_enrichment")
    exposed = tag > 1 > digit and clean.number("on_target_enrichment") > 1 > clean.number("nuisance_enrichment")
    if not exposed:
        return "The maps do not tell the two runs apart yet; with the default number of epochs they do."
    follows = shortcut.number("follows_nuisance")
    exchanged = "" if math.isnan(follows) else f", and follows the tag into another image in {follows:.0%} of exchanges"
    looks = f"it looks at the tag ({tag:.1f} times chance) and not at the digit ({digit:.1f} times chance){exchanged}"
    if shortcut.accuracy > clean.accuracy:
        return (
            f"Validation accuracy alone prefers the {shortcut.name} run ({shortcut.accuracy:.1%} against {clean.accuracy:.1%}); "
            f"the maps show why not to ship it: {looks}."
        )
    return f"The maps show what is wrong with the {shortcut.name} run: {looks}."


def alerts(outcomes: Sequence[Outcome]) -> str:
    """What each run was warned of during training, one line for each alert when it was first raised."""
    lines = ["Alerts raised during training"]
    for outcome in outcomes:
        first = {(a.name, a.method): a for record in reversed(list(outcome.store)) for a in record.alerts if a.new}
        found = sorted(first.values(), key=lambda alert: alert.look)
        said = [f"epoch {a.epoch + 1:>2}  {_named(a)}: {a.measured}" for a in found] or ["none"]
        for head, text in zip([outcome.name, *[""] * len(said)], said, strict=False):
            lines += textwrap.wrap(text, 90, initial_indent=f"  {head:<11}", subsequent_indent=" " * 13)
    return "\n".join(lines)


def commands(tensorboard: Path, tracking_uri: str) -> tuple[str, str]:
    """The commands that open TensorBoard and MLflow on the results, ready to paste."""
    return (
        # TensorBoard keeps 10 pictures a tag unless told otherwise, and the slider would skip epochs.
        f"{_tool('tensorboard')} --logdir {shlex.quote(str(tensorboard))} --samples_per_plugin images=1000",
        f"{_tool('mlflow')} ui --backend-store-uri {shlex.quote(tracking_uri)}",
    )


def _tool(name: str) -> str:
    """A command by its name if the shell finds this environment's, else by its path."""
    here, found = Path(sys.executable).parent / name, shutil.which(name)
    if not here.exists() or (found is not None and Path(found) == here):
        return name
    return shlex.quote(str(here))


def _named(alert: Alert) -> str:
    return f"{alert.name} ({alert.method})" if alert.method else alert.name


def _plain(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"
