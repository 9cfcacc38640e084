"""The evidence page's plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from cam_callbacks.look.settled import CALM
from cam_engine.metrics import distributions, max_t
from cam_engine.render import overlay
from shortcut.arms import ARMS, ONSET
from shortcut.figures import DEFAULTS, DRIFTS, REFERENCES, Run, replay

mpl.use("Agg")
import matplotlib.pyplot as plt

DIGIT, TAG, GREY = "#1f5f8b", "#c0392b", "#9a9a9a"
STYLES = {"gradcam": "-", "eigencam": "--"}
SHOWN = 4  # probe images of each arm


def write(runs: Sequence[Run], summary: Mapping[str, Any], folder: Path) -> None:
    """Write all plots into a folder."""
    for name, figure in (
        ("evidence_runs", curves(runs)),
        ("evidence_maps", maps([run for run in runs if run.seed == runs[0].seed])),
        ("evidence_separation", separation(summary)),
    ):
        figure.savefig(folder / f"{name}.png", dpi=100)
        plt.close(figure)


def curves(runs: Sequence[Run]) -> plt.Figure:
    """A column for each arm: accuracies, enrichments and drift over the epochs, a line for each seed."""
    figure, rows = plt.subplots(3, len(ARMS), figsize=(15, 7.5), sharex=True, sharey="row", layout="constrained")
    seeds = sorted({run.seed for run in runs})
    for column, arm in enumerate(ARMS):
        accuracy, focus, drift = (row[column] for row in rows)
        accuracy.set_title(arm, fontweight="bold")
        for run in (run for run in runs if run.arm == arm):
            epochs = [look.epoch for look in run.looks]
            for key, colour in (("val_acc", DIGIT), ("val_acc_swapped", TAG)):
                accuracy.plot(epochs, [look.user_metrics[key] for look in run.looks], color=colour, alpha=0.8, lw=1.2)
            for key, colour in (("on_target_enrichment", DIGIT), ("nuisance_enrichment", TAG)):
                focus.plot(epochs, run.curve(key, "gradcam"), color=colour, alpha=0.8, lw=1.2)
            for method in DEFAULTS:
                drift.plot(epochs, settled_drift(run, method), STYLES[method], color="black", alpha=0.6, lw=1.2)
            for alert in replay(run):
                drift.plot(alert.epoch, 0.44 - 0.025 * seeds.index(run.seed), "v", color=TAG, ms=5)
        focus.axhline(1, color=GREY, lw=0.8)
        drift.axhline(CALM, color=GREY, lw=0.8)
        for axes in (accuracy, focus, drift):
            if ARMS[arm].since == ONSET:
                axes.axvline(ONSET - 0.5, color=GREY, lw=0.8, ls=":")
            axes.spines[["top", "right"]].set_visible(False)
        drift.set_xlabel("epoch")
    rows[0, 0].set_ylabel("validation accuracy")
    rows[1, 0].set_ylabel("GradCAM, times chance")
    rows[2, 0].set_ylabel("drift_ref once settled")
    figure.legend(
        handles=[
            plt.Line2D([], [], color=DIGIT, label="cue as in training, focus on the digit"),
            plt.Line2D([], [], color=TAG, label="cue swapped, focus on the tag"),
            plt.Line2D([], [], color="black", label="GradCAM"),
            plt.Line2D([], [], color="black", ls="--", label="EigenCAM"),
            plt.Line2D([], [], color=TAG, marker="v", ls="", label="an alert is raised"),
            plt.Line2D([], [], color=GREY, label="chance; least drift that can alert"),
            plt.Line2D([], [], color=GREY, ls=":", label="the cue comes"),
        ],
        loc="outside lower center",
        ncols=7,
        frameon=False,
        fontsize=9,
    )
    return figure


def settled_drift(run: Run, method: str) -> list[float]:
    """drift_ref, NaN until the reference has settled."""
    return [
        look.metrics[f"cam/drift_ref/{method}"] if run.reference_set(method, i) else np.nan
        for i, look in enumerate(run.looks)
    ]


def maps(runs: Sequence[Run]) -> plt.Figure:
    """A row for each arm: some probe images, their last GradCAM, the mean over all, and what max-t says moved since the look
    before the onset."""
    figure, rows = plt.subplots(len(runs), 2 * SHOWN + 2, figsize=(13, 1.45 * len(runs)), layout="constrained")
    for row, run in zip(rows, runs, strict=True):
        pictures = run.probe["pictures"]
        heat, before = run.maps(-1, "gradcam"), run.maps(ONSET - 1, "gradcam")
        for place, index in enumerate(np.linspace(0, len(pictures) - 1, SHOWN).astype(int)):
            row[2 * place].imshow(pictures[index])
            row[2 * place + 1].imshow(drawn(pictures[index], heat[index]))
        row[-2].imshow(np.nanmean(distributions(heat), 0), cmap="viridis", vmin=0)
        moved = max_t(heat, before)
        row[-1].imshow(moved.t, cmap="RdBu_r", vmin=-15, vmax=15)
        row[-1].set_xlabel(f"p = {moved.p:.3f}", fontsize=8)
        row[0].set_ylabel(run.arm, fontsize=10)
        for axes in row:
            axes.set(xticks=[], yticks=[])
    rows[0, -2].set_title("mean map", fontsize=9)
    rows[0, -1].set_title(f"t since epoch {ONSET - 1}", fontsize=9)
    return figure


def drawn(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A map over its picture."""
    return overlay(picture, heat)


def separation(summary: Mapping[str, Any]) -> plt.Figure:
    """Methods by drifts, for each reference: onset over clean as colour, with the AUC."""
    methods = summary["methods"]
    figure, panels = plt.subplots(
        1, len(REFERENCES), figsize=(16, 0.36 * len(methods) + 2), sharey=True, layout="constrained"
    )
    titles = {"settled": "the settled reference", "before": f"epoch {ONSET - 1}", "first": "the first look"}
    for axes, against in zip(panels, REFERENCES, strict=True):
        cells = [[summary["separation"][f"{m}/{d}/{against}"] for d in DRIFTS] for m in methods]
        ratios = np.array([[cell["ratio"] for cell in row] for row in cells], dtype=float)  # NaN where there is none
        ratios[ratios <= 0] = np.nan
        axes.imshow(np.log2(ratios), cmap="RdBu_r", vmin=-4, vmax=4, aspect="auto")
        for (i, j), ratio in np.ndenumerate(ratios):
            text = "–" if np.isnan(ratio) else f"{ratio:.1f}×\n{cells[i][j]['auc']:.2f}"
            colour = "white" if abs(np.log2(ratio)) > 2.7 else "black"
            axes.text(j, i, text, ha="center", va="center", fontsize=6.5, linespacing=0.95, color=colour)
        axes.set_xticks(range(len(DRIFTS)), DRIFTS, rotation=40, ha="right", fontsize=8)
        axes.set_yticks(range(len(methods)), methods, fontsize=8)
        axes.set_title(f"against {titles[against]}", fontsize=10)
    return figure
