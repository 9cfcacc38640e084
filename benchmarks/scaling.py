"""Cost over the number of images, methods and layers, as a plot: docs/scaling.png.

    .venv-peers/bin/python benchmarks/scaling.py --out docs/scaling.png

ResNet-50 without weights at 224×224. Times are shares of one bare forward and gradient call of the same batch, measured in
turn with it; only the first panel shows seconds.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import jobs
import matplotlib as mpl
import torch
from measure import Pair, alternate, machine

from cam_engine import CAM

mpl.use("Agg")
import matplotlib.pyplot as plt

IMAGES = (1, 2, 4, 8, 16)
LAYERS = ("layer4", "layer3", "layer2", "layer1")
COLOUR, FAINT = "#1f5f8b", "#9a9a9a"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/scaling.png"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=4, help="images in the panels for methods and layers")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = jobs.network()

    def measured(batch: int, methods: tuple[str, ...], layers: tuple[str, ...]) -> Pair:
        images, cam = jobs.pictures(batch), CAM(model, methods, list(layers))
        return alternate(
            lambda: jobs.explain(cam, images, jobs.classes(batch)),
            lambda: jobs.bare_pair(model, model.get_submodule(layers[-1]), images),
            given.rounds,
        )

    over_images = [measured(batch, jobs.SEVEN, LAYERS[:1]) for batch in IMAGES]
    counts = range(1, len(jobs.SEVEN) + 1)
    over_methods = [measured(given.batch, jobs.SEVEN[-n:], LAYERS[:1]) for n in counts]
    over_layers = [measured(given.batch, jobs.SEVEN, LAYERS[:n]) for n in range(1, len(LAYERS) + 1)]

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for times, label, colour in (
        ([statistics.median(p.theirs) for p in over_images], "one forward and one gradient call", FAINT),
        ([statistics.median(p.ours) for p in over_images], "seven methods", COLOUR),
    ):
        left.plot(IMAGES, times, "o-", color=colour, label=label)
    left.set(xlabel="images in the batch", ylabel="seconds", title="Linear in images", xticks=IMAGES)
    left.legend(frameon=False)
    draw(middle, list(counts), over_methods)
    middle.set(xlabel="methods, at layer4", title="Flat in methods", xticks=list(counts))
    draw(right, list(range(1, len(LAYERS) + 1)), over_layers)
    right.set(xlabel="layers, seven methods each", title="Each layer adds its own cost")
    right.set_xticks(range(1, len(LAYERS) + 1), ["layer4", "+ layer3", "+ layer2", "+ layer1"])
    for axes in (left, middle, right):
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
    figure.suptitle(f"ResNet-50, 224×224, {machine('cpu')[0]}", fontsize=9, color="#555555")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(given.out, dpi=130)
    for name, pairs in (("images", over_images), ("methods", over_methods), ("layers", over_layers)):
        print(name, *(f"{pair.ratio()[0]:.2f}× ({statistics.median(pair.ours):.3f} s)" for pair in pairs))


def draw(axes: plt.Axes, places: list[int], pairs: list[Pair]) -> None:
    """Ratios to the bare pair, with the range of the rounds' middle half."""
    ratios = [sorted(a / b for a, b in zip(p.ours, p.theirs, strict=True)) for p in pairs]
    middles = [statistics.median(r) for r in ratios]
    quarter = [len(r) // 4 for r in ratios]
    low = [r[q] for r, q in zip(ratios, quarter, strict=True)]
    high = [r[-1 - q] for r, q in zip(ratios, quarter, strict=True)]
    axes.fill_between(places, low, high, color=COLOUR, alpha=0.15, linewidth=0)
    axes.plot(places, middles, "o-", color=COLOUR)
    axes.axhline(1, color=FAINT, linewidth=1)
    axes.set_ylabel("times one forward and gradient call")


if __name__ == "__main__":
    main()
