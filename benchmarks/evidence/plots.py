"""The plots of docs/evidence.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from cam_callbacks.look.exchange_rules import BackgroundDecides
from evidence.figures import Row, delay, part_of
from evidence.plans import JUDGED_NETWORKS

COLOURS = {"healthy": "#2a78b8", "beside": "#e0a030", "decides": "#c03028"}
MOST_EPOCHS = 6


def draw(found: Mapping[str, Any], folder: Path) -> None:
    """Write the three plots."""
    runs = found["runs"]
    for name, plot, size in (
        ("share", object_share, (7.5, 3.4)),
        ("cues", caught, (7.5, 4.2)),
        ("onsets", onsets, (7.5, 2.6)),
    ):
        figure, axes = plt.subplots(figsize=size, layout="constrained")
        plot(axes, runs)
        figure.savefig(folder / f"evidence_{name}.png", dpi=110, metadata={"Software": None})
        plt.close(figure)


def object_share(axes: Axes, runs: Sequence[Row]) -> None:
    """A dot for each judged run, with its interval; by network, and by what decides."""
    for place, network in enumerate(JUDGED_NETWORKS):
        for step, (role, colour) in enumerate(COLOURS.items()):
            rows = [
                row
                for row in part_of(runs, role, network=network)
                if row["judged"] and row["object_share"]["mean"] is not None
            ]
            x = place + 0.27 * (step - 1) + np.linspace(-0.1, 0.1, max(2, len(rows)))[: len(rows)]
            shares = [row["object_share"] for row in rows]
            axes.vlines(x, [s["low"] for s in shares], [s["high"] for s in shares], color=colour, alpha=0.35, lw=1)
            axes.plot(x, [s["mean"] for s in shares], "o", ms=3, color=colour, label=role if place == 0 else None)
    axes.axhline(0.5, color="black", lw=0.8, ls="--")
    axes.axhline(BackgroundDecides().share, color="black", lw=0.8, ls=":")
    axes.set(ylabel="object_share", ylim=(-0.03, 1.03), xlim=(-0.5, len(JUDGED_NETWORKS) - 0.5))
    axes.set_xticks(range(len(JUDGED_NETWORKS)), JUDGED_NETWORKS)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)


def caught(axes: Axes, runs: Sequence[Row]) -> None:
    """A heat table of families by networks."""
    learned = part_of(runs, "decides", "beside")
    families = sorted({row["family"] for row in learned})
    shares = np.full((len(families), len(JUDGED_NETWORKS)), np.nan)
    for i, family in enumerate(families):
        for j, network in enumerate(JUDGED_NETWORKS):
            rows = [row for row in learned if (row["family"], row["network"]) == (family, network)]
            if rows:
                shares[i, j] = np.mean([bool(row["alarms"]["with masks"]) for row in rows])
                dark = shares[i, j] < 0.35
                axes.text(
                    j,
                    i,
                    f"{shares[i, j]:.0%} of {len(rows)}",
                    ha="center",
                    va="center",
                    size=8,
                    color="w" if dark else "k",
                )
    if families:
        axes.set_facecolor("#eeeeee")
        axes.imshow(shares, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(JUDGED_NETWORKS)), JUDGED_NETWORKS)
    axes.set_yticks(range(len(families)), families)


def onsets(axes: Axes, runs: Sequence[Row]) -> None:
    """How many onsets were alerted after so many epochs, with masks and without."""
    rows = part_of(runs, "decides", "beside", onsets=True)
    names = [*map(str, range(MOST_EPOCHS + 1)), "never"]
    for step, view in enumerate(("with masks", "without masks")):
        late = [delay(row["alarms"][view], row["onset"]) for row in rows]
        places = [len(names) - 1 if each is None else min(each, MOST_EPOCHS) for each in late]
        counts = np.bincount(places, minlength=len(names)) if places else np.zeros(len(names))
        axes.bar(np.arange(len(names)) + 0.4 * (step - 0.5), counts, 0.4, label=view)
    axes.axvline(3.5, color="black", lw=0.8, ls="--")
    axes.set_xticks(range(len(names)), names)
    axes.set(xlabel="epochs from the onset to the first alert", ylabel="onsets")
    axes.legend(frameon=False)
