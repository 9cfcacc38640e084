"""Draw docs/metrics/*.png: for each number of docs/metrics.md a low and a high case, measured by cam_engine.metrics.

python scripts/metric_pictures.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from cam_engine import metrics
from cam_engine.metrics import Metric, get_metrics
from cam_engine.render import Tile, colorize
from cam_engine.render.tiles import draw_tile

mpl.use("Agg")
import matplotlib.pyplot as plt

FOLDER = Path(__file__).parents[1] / "docs" / "metrics"
CELLS, SIDE = 14, 224
FLOWER, RADIUS = (0.51, 0.44), 0.32  # (y, x) and radius, as shares of the picture's side
SHADE = (0.15, 0.85)  # a dark corner
Array = Any  # numpy's


@dataclass(frozen=True)
class Case:
    """One end of one number: the pictures that show what it is computed from, each with a word, and its value."""

    pictures: list[tuple[str, Array]]
    value: float


Row = tuple[str, Case, Case]  # a number's name, its lower and its higher value


def photo() -> Array:
    """(224, 224, 3) uint8: scikit-learn's photo of a flower, cropped to a square."""
    picture = Image.fromarray(load_sample_image("flower.jpg")).crop((120, 0, 547, 427))
    return np.array(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def blob(centre: tuple[float, float], width: float = 0.12, cells: int = CELLS) -> Array:
    """(cells, cells): a round focus; ``width`` is its standard deviation as a share of the side."""
    return np.exp(-squares(centre, cells) / (2 * width**2))


def squares(centre: tuple[float, float], cells: int) -> Array:
    at = (np.arange(cells) + 0.5) / cells
    return (at[:, None] - centre[0]) ** 2 + (at[None, :] - centre[1]) ** 2


PHOTO = photo()
MASK = squares(FLOWER, SIDE) < RADIUS**2
NOISE = np.random.default_rng(0).random((CELLS, CELLS))
ON, AWAY, UNIFORM = blob(FLOWER), blob(SHADE), np.ones((CELLS, CELLS))
ONE_CELL = np.eye(CELLS)[[7]].T @ np.eye(CELLS)[[6]]


def seen(map_: Array, mask: Array | None = None, cells: bool = False) -> Array:
    tile = Tile(PHOTO, map_, masks=mask)
    return draw_tile(tile, (SIDE, SIDE), alpha=0.6, colormap="inferno", cells=cells)


def drift() -> list[Row]:
    """Each number between a reference and a map of now."""

    def row(metric: Metric, low: Array, high: Array) -> Row:
        cases = [
            Case([("reference", seen(ON)), ("now", seen(now))], float(metric.function(now[None], ON[None])[0]))
            for now in (low, high)
        ]
        return metric.name, cases[0], cases[1]

    alike = blob((FLOWER[0], FLOWER[1] + 0.03))
    ends = {"correlation": (1 - ON, alike), "spearman": (1 - ON, ON + 0.02 * NOISE)}
    compared = [m for m in get_metrics("all") if "reference" in m.needs]  # drift_prev is drift_ref's function
    return [
        row(m, *ends.get(m.name, (AWAY, alike) if m.worse == "low" else (alike, AWAY)))
        for m in sorted(compared, key=lambda m: m.name != "drift_ref")
    ]


def shape() -> list[Row]:
    """Each number of a single map."""
    corners = np.zeros((CELLS, CELLS))
    corners[0, 0] = corners[-1, -1] = 1
    frame = 1.0 - (squares((0.5, 0.5), CELLS) < 0.45**2) + 0.02
    ends = {
        "entropy": (ONE_CELL, UNIFORM),
        "gini": (UNIFORM, blob(FLOWER, 0.06)),
        "spread": (blob(FLOWER, 0.06), corners),
        "border_enrichment": (ON, frame),
        "top_mass": (UNIFORM, blob(FLOWER, 0.06)),
    }
    found = {m.name: m.function for m in get_metrics("all")}

    def case(name: str, map_: Array) -> Case:
        # A map without contrast is drawn in the colour of its one value.
        flat = np.array(Image.blend(*map(Image.fromarray, (PHOTO, colorize(np.full((SIDE, SIDE), 0.6)))), 0.6))
        picture = flat if np.ptp(map_) == 0 else seen(map_, cells=True)
        return Case([("uniform" if np.ptp(map_) == 0 else "map", picture)], float(found[name](map_[None])[0]))

    return [(name, case(name, low), case(name, high)) for name, (low, high) in ends.items()]


def localisation() -> list[Row]:
    """Each number of a map and the outlined region. The same on a suspected region gives the nuisance numbers."""
    region = metrics.coverage(MASK[None], (CELLS, CELLS))

    def row(metric: Metric) -> Row:
        low, high = (
            Case([("map and region", seen(map_, MASK))], float(metric.function(map_[None], region)[0]))
            for map_ in (1 - ON if metric.name == "pixel_auc" else AWAY, ON)
        )
        return metric.name, low, high

    return [row(m) for m in get_metrics("all") if "region" in m.needs]


def shortcut() -> list[Row]:
    """Numbers of a whole probe set, here of eight maps of which four are drawn."""
    random = np.random.default_rng(1)
    scattered = np.stack([blob(tuple(at)) for at in random.uniform(0.15, 0.85, (8, 2))])
    nudged = np.stack([blob(tuple(FLOWER + at)) for at in random.normal(0, 0.03, (8, 2))])
    again = np.stack([blob(tuple(FLOWER + at)) for at in random.normal(0, 0.03, (8, 2))])
    moved = np.stack([blob(tuple(SHADE + at)) for at in random.normal(0, 0.03, (8, 2))])

    def case(maps: Array, value: float) -> Case:
        return Case([(f"image {i + 1}", seen(maps[i])) for i in range(4)], value)

    agree = [case(maps, metrics.mean(metrics.consensus(maps))) for maps in (scattered, nudged)]
    still, gone = metrics.max_t(nudged, again), metrics.max_t(moved, nudged)
    return [
        ("consensus", agree[0], agree[1]),
        ("max_t", case(nudged, still.statistic), case(moved, gone.statistic)),
        ("max_t_p", case(moved, gone.p), case(nudged, still.p)),
    ]


def faithfulness() -> list[Row]:
    """Each number for a stand-in model that scores the flower's colour: how much of its red the picture still has."""
    images = torch.from_numpy(PHOTO).permute(2, 0, 1)[None].double() / 255 - 0.25
    heat = {name: metrics.heatmaps(map_[None], (SIDE, SIDE)) for name, map_ in (("on", ON), ("away", AWAY))}

    def red(batch: torch.Tensor) -> torch.Tensor:
        return ((batch[:, 0] - batch[:, 1]).relu() * torch.from_numpy(MASK)).square().mean((1, 2))

    whole = red(images)

    def score(batch: torch.Tensor) -> torch.Tensor:
        return (red(batch) / whole).clamp(0, 1)

    def row(metric: Metric) -> Row:
        values = {name: float(metric.function(score, images, heatmaps)[0]) for name, heatmaps in heat.items()}
        low, high = (
            Case([("map", seen(ON if name == "on" else AWAY))], values[name]) for name in sorted(values, key=values.get)
        )
        return metric.name, low, high

    names = ("average_drop", "insertion", "deletion", "road")
    return [row(m) for m in get_metrics(names) if m.name in names]


GROUPS: dict[str, Callable[[], list[Row]]] = {
    group.__name__: group for group in (drift, shape, localisation, shortcut, faithfulness)
}


def number(case: Case) -> str:
    return f"{round(case.value, 4) + 0.0:.3g}"


def draw(rows: list[Row], path: Path) -> None:
    """A line for each number: its name, the low case, the high case."""
    count = len(rows[0][1].pictures)
    size = 1.5 if count < 4 else 1.1
    figure = plt.figure(figsize=(1.9 + size * 2 * count + 0.4, 0.2 + (size + 0.3) * len(rows)), dpi=100)
    lines = figure.add_gridspec(
        len(rows), 2 * count + 2, width_ratios=[1.9 / size, *[1] * count, 0.2, *[1] * count], wspace=0.06, hspace=0.2
    )
    figure.subplots_adjust(0.01, 0.01, 0.99, 1 - 0.35 / figure.get_figheight())
    for i, (name, low, high) in enumerate(rows):
        label = figure.add_subplot(lines[i, 0])
        label.text(0, 0.5, f"{name}\n\nlow    {number(low)}\nhigh  {number(high)}", va="center", fontsize=10)
        label.axis("off")
        for word, case, first in (("low", low, 1), ("high", high, count + 2)):
            for j, (what, picture) in enumerate(case.pictures):
                panel = figure.add_subplot(lines[i, first + j])
                panel.imshow(picture)
                panel.axis("off")
                panel.set_title(f"{word}: {what}" if j == 0 else what, fontsize=8, pad=3)
    figure.savefig(path)
    plt.close(figure)


def main(folder: Path = FOLDER) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, group in GROUPS.items():
        draw(group(), folder / f"{name}.png")
        print(folder / f"{name}.png")


if __name__ == "__main__":
    main()
