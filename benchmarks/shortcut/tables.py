"""The evidence page's tables, in markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from measure import markdown

from cam_callbacks.look.alerts import Diffuse, FocusMoved, LosingFocus, OffTarget, make_rules
from shortcut.arms import ARMS, ONSET
from shortcut.claims import claims, first_alert, listed, runs_of
from shortcut.figures import DEFAULTS, DRIFTS, REFERENCES

NAMES = {"eigencam": "EigenCAM", "gradcam": "GradCAM"}

Summary = Mapping[str, Any]


def arms() -> str:
    """What the runs differ in."""
    return markdown(["run", "what is different"], [[f"`{arm.name}`", arm.says] for arm in ARMS.values()])


def outcomes(summary: Summary) -> str:
    """What each arm ended with, by method."""
    rows = []
    for arm, method in product(ARMS, DEFAULTS):
        runs = runs_of(summary, arm)
        first = method == DEFAULTS[0]
        accuracies = [spread([run[key] for run in runs]) if first else "" for key in ("val_acc", "val_acc_swapped")]
        keys = ("on_target_enrichment", "nuisance_enrichment", "entropy", "consensus")
        numbers = [ended(runs, method, key) for key in keys]
        # A reference that has not settled is a stand-in, and drift from it says nothing.
        drift = [run["ended"][method]["drift_ref"] for run in runs if run["settled"][method] is not None]
        rows.append([f"`{arm}`" if first else "", *accuracies, NAMES[method], *numbers, spread(drift)])
    header = ["run", "accuracy", "cue swapped", "method", "on the digit", "on the tag", "entropy", "consensus"]
    return markdown([*header, "drift_ref"], rows)


def judged(summary: Summary) -> str:
    """The claims."""
    rows = [[claim.text, claim.measured, "yes" if claim.holds else "**no**"] for claim in claims(summary)]
    return markdown(["claim", "measured", "holds"], rows)


def alerts(summary: Summary) -> str:
    """What the default methods raised, with each seed's epoch."""
    rows = []
    for arm in ARMS:
        runs = runs_of(summary, arm)
        said = []
        for method, rule in product(DEFAULTS, make_rules(None)):
            epochs = [first_alert(run, rule.name, methods=[method]) for run in runs]
            if any(epoch is not None for epoch in epochs):
                said.append(f"{rule.name} ({NAMES[method]}): {listed(epochs)}")
        rows.append([f"`{arm}`", "<br>".join(said) or "none"])
    return markdown(["run", "alert: epoch at which each seed raised it"], rows)


def methods(summary: Summary) -> str:
    """For each method: where it looks, when its reference settles, what it alerts."""
    header = [
        "method",
        "clean: digit",
        "shortcut: tag",
        "reference settles at (both clean arms)",
        "alerts in clean runs",
    ]
    header += ["shortcut: off_target", "onset alerted at"]
    rows = []
    for method in summary["methods"]:
        clean, onset, shortcut = (runs_of(summary, arm) for arm in ("clean", "onset", "shortcut"))
        healthy = clean + runs_of(summary, "clean-constant")
        wrong = [alert["name"] for run in healthy for alert in run["alerts"][method]]
        off = [first_alert(run, "off_target", methods=[method]) is not None for run in shortcut]
        rows.append(
            [
                f"`{method}`",
                f"{np.mean([run['ended'][method]['on_target_enrichment'] for run in clean]):.2f}",
                f"{np.mean([run['ended'][method]['nuisance_enrichment'] for run in shortcut]):.2f}",
                listed([run["settled"][method] for run in healthy]),
                ", ".join(f"{name} {wrong.count(name)}×" for name in dict.fromkeys(wrong)) or "none",
                f"{sum(off)} of {len(off)}",
                listed([first_alert(run, since=ONSET, methods=[method]) for run in onset]),
            ]
        )
    return markdown(header, rows)


def separation(summary: Summary) -> str:
    """Onset over clean for the default methods: ratio (AUC), by drift and reference."""
    rows = []
    for name in DRIFTS:
        found = [summary["separation"][f"{m}/{name}/{r}"] for m, r in product(DEFAULTS, REFERENCES)]
        rows.append([name, *("–" if f["ratio"] is None else f"{f['ratio']:.1f}× ({f['auc']:.2f})" for f in found)])
    titles = {"settled": "settled", "before": f"epoch {ONSET - 1}", "first": "first look"}
    return markdown(["drift", *(f"{NAMES[m]}: {titles[r]}" for m, r in product(DEFAULTS, REFERENCES))], rows)


def margins(summary: Summary) -> str:
    """How near a clean run came to each threshold, and how far beyond it the planted ones went."""
    off_target, losing, moved, diffuse = OffTarget(), LosingFocus(), FocusMoved(), Diffuse()
    clean = runs_of(summary, "clean") + runs_of(summary, "clean-constant")
    rows = []
    for (rule, alarming, key, worst, arm), method in product(
        (
            ("off_target", f"enrichment below {off_target.below:g}", "enrichment", min, "shortcut"),
            ("losing_focus", f"fall of at least {losing.fall:.0%}", "fall", max, "onset"),
            ("losing_focus", f"and paired t below {losing.t:g}", "t", min, "onset"),
            ("focus_moved", f"drift_ref over max({moved.floors:g}F, {moved.drift:g}) above 1", "drift", max, "onset"),
            ("focus_moved", f"and effect of max-t at least {moved.effect:g}", "effect", max, "onset"),
            ("diffuse", f"entropy above {diffuse.above:g}", "entropy", max, "tint"),
        ),
        DEFAULTS,
    ):
        nearest = worst((v for run in clean if (v := run["margins"][method][key]) is not None), default=None)
        planted = [_number(run["margins"][method][key]) for run in runs_of(summary, arm)]
        rows.append([rule, alarming, NAMES[method], _number(nearest), f"`{arm}`: {', '.join(planted)}"])
    return markdown(["rule", "is alarmed by", "method", "nearest that a clean run came", "planted, each seed"], rows)


def max_t(summary: Summary) -> str:
    """What max-t finds since the look before the onset."""
    rows = [
        [
            f"`{arm}`",
            NAMES[method],
            *(spread([run["moved"][method][k] for run in runs_of(summary, arm)], k) for k in ("drift", "gain", "loss")),
            spread([run["moved"][method]["p"] for run in runs_of(summary, arm)], "p"),
        ]
        for arm, method in product(("clean", "onset", "moving"), DEFAULTS)
    ]
    return markdown(["run", "method", "drift", "largest gain (t)", "largest loss (t)", "p"], rows)


def ended(runs: Sequence[Mapping[str, Any]], method: str, metric: str) -> str:
    """A number of the last look, over seeds."""
    return spread([run["ended"][method][metric] for run in runs])


def spread(values: Sequence[float], kind: str = "") -> str:
    """Mean and range over seeds."""
    if not values:
        return "–"
    form = {"gain": ".1f", "loss": ".1f", "p": ".3f"}.get(kind, ".2f")
    return f"{np.mean(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value + 0.0:.3g}"
