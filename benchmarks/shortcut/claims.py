"""What the evidence page claims, judged on the figures alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shortcut.arms import ONSET
from shortcut.figures import DEFAULTS

WITHIN = 3  # epochs of training on the cue, after which an onset must have been alerted


@dataclass(frozen=True)
class Claim:
    """``text`` says what should hold, ``measured`` what was found."""

    text: str
    holds: bool
    measured: str


def claims(summary: Mapping[str, Any]) -> list[Claim]:
    """Every claim, for all seeds of the runs it is about."""
    clean = runs_of(summary, "clean") + runs_of(summary, "clean-constant")
    shortcut, onset, tint = (runs_of(summary, arm) for arm in ("shortcut", "onset", "tint"))

    on_digit = [_ended(run, "on_target_enrichment") for run in clean]
    alerts = [f"{alert['name']} ({method})" for run in clean for method in DEFAULTS for alert in run["alerts"][method]]
    on_tag = [_ended(run, "nuisance_enrichment") for run in shortcut]
    off_target = [first_alert(run, "off_target") for run in shortcut]
    noticed = [first_alert(run, since=ONSET) for run in onset]
    drift = [
        _ended(a, "drift_ref", "eigencam") / max(_ended(b, "drift_ref", "eigencam"), 1e-9)
        for a, b in zip(onset, runs_of(summary, "clean"), strict=True)
    ]
    tinted = [_ended(run, "nuisance_enrichment") for run in tint]
    missed = [first_alert(run, "focus_moved") for run in runs_of(summary, "moving")]
    diffuse = [_ended(run, "entropy") for run in tint]
    return [
        Claim("clean: enrichment on the digit above 2", min(on_digit) > 2, f"{_range(on_digit)}"),
        Claim(
            "clean: no alert in any run", not alerts, f"{len(alerts)} in {len(clean)} runs {' '.join(alerts)}".strip()
        ),
        Claim("shortcut: enrichment on the tag above 3", min(on_tag) > 3, _range(on_tag)),
        Claim("shortcut: off_target is raised", None not in off_target, f"at epochs {listed(off_target)}"),
        Claim(
            f"onset: alerted within {WITHIN} epochs",
            all(epoch is not None and epoch < ONSET + WITHIN for epoch in noticed),
            f"the cue comes with epoch {ONSET}, the alert at epochs {listed(noticed)}",
        ),
        Claim(
            "onset: drift_ref (EigenCAM) at the end above twice that of clean", min(drift) > 2, f"{_range(drift)} times"
        ),
        Claim("tint: enrichment on the corner below 1.5", max(tinted) < 1.5, _range(tinted)),
        Claim("tint: entropy above 0.95 hints at it", min(diffuse) > 0.95, _range(diffuse)),
        Claim("moving: max-t fails, focus_moved is not raised", set(missed) <= {None}, f"at epochs {listed(missed)}"),
    ]


def first_alert(
    run: Mapping[str, Any], name: str | None = None, since: int = 0, methods: Sequence[str] = DEFAULTS
) -> int | None:
    """Epoch of the first alert of a name, or of any, from an epoch on."""
    alerts = (alert for method in methods for alert in run["alerts"][method])
    return min((a["epoch"] for a in alerts if name in (None, a["name"]) and a["epoch"] >= since), default=None)


def runs_of(summary: Mapping[str, Any], arm: str) -> list[Mapping[str, Any]]:
    """Figures of an arm's runs, a seed each."""
    return [run for run in summary["runs"] if run["arm"] == arm]


def _ended(run: Mapping[str, Any], metric: str, method: str = "gradcam") -> float:
    return float(run["ended"][method][metric])


def _range(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


def listed(epochs: Sequence[int | None]) -> str:
    """Epochs of several seeds."""
    return ", ".join("never" if epoch is None else str(epoch) for epoch in epochs)
