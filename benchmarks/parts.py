"""Where the time of a look goes: processor time of each of its parts, for a ResNet-18 at 128 px, 16 images, two methods.

    .venv-peers/bin/python benchmarks/parts.py       # benchmarks/results/parts.json and docs/look_time.png

Each part runs by itself on one thread, some times over; the least is taken. What is not forwards is timed within whole looks.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from measure import least, machine, seconds
from watching import images

from cam_callbacks import CAMMonitor, ProbeSet
from cam_callbacks.drawing import Drawing
from cam_callbacks.loggers.mlflow import MLflowSink
from cam_callbacks.loggers.tensorboard import TensorBoardSink
from cam_callbacks.look import seen
from cam_callbacks.look.exchanging import Exchange
from cam_callbacks.look.explaining import explain
from cam_engine.render.text import written

RESULTS = Path(__file__).parent / "results" / "parts.json"
PICTURE = Path(__file__).parent.parent / "docs" / "look_time.png"
COLOURS = ("#1f5f8b", "#6fa3c7", "#c9c9c9", "#d9a441", "#c2693a", "#8a4f7d", "#5b8c5a")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="once each, and no results file")
    parser.add_argument("--draw", action="store_true", help="draw what was measured before")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if not given.draw:
        found = {"machine": machine("cpu"), "seconds": measured(1 if given.quick else 5)}
        print(*(f"{name:<42}{1e3 * seconds:8.0f} ms" for name, seconds in found["seconds"].items()), sep="\n")
        if given.quick:
            return
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw(json.loads(RESULTS.read_text(encoding="utf-8")))


def measured(repeats: int) -> dict[str, float]:
    """Seconds of each part; logs and records go to a temporary folder."""
    import mlflow
    import torchvision
    from torch.utils.tensorboard import SummaryWriter

    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10)
    probe = ProbeSet(*images(16, 128).tensors)

    best = functools.partial(least, repeats=repeats, clock="thread")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        watching = CAMMonitor(probe, folder=folder / "records", exchange=[])
        watching.look(model)
        subject = watching._subject_of(model)
        explained = explain(subject, probe.images)
        everyone = torch.arange(16).numpy() % 10  # a network that tells the images apart: every pair is tested
        apart = type(explained)(**{**vars(explained), "predictions": everyone})
        found = {
            "one forward and gradient, maps": best(lambda: explain(subject, probe.images)),
            "exchange tests, 384 mixtures (at some looks)": best(lambda: Exchange(probe).test(subject, apart)),
        }
        found["noise floor (until settled)"] = found["one forward and gradient, maps"]
        found["numbers, alerts, record on disk"] = min(
            beside_forwards(lambda: watching.look(model)) for _ in range(repeats)
        )
        client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
        experiment = client.create_experiment("parts", artifact_location=(folder / "artifacts").as_uri())
        board = TensorBoardSink(SummaryWriter(str(folder / "tensorboard")))
        server = MLflowSink(client, client.create_run(experiment).info.run_id)
        assert watching.store is not None
        record, drawings = watching.store[-1], []

        def draw_all() -> None:
            written.cache_clear()  # other epochs and confidences
            drawing = Drawing(watching.store)  # type: ignore[arg-type]
            for _ in drawing.panels(record):
                pass
            for series in drawing.series:
                drawing.latest(record, *series)
            drawings.append(drawing)

        found["drawing, once for all loggers"] = best(draw_all)
        draw_all()
        board.deliver(record, drawings[-1])
        server.deliver(record, drawings[-1])
        fresh = iter(drawings)  # drawn, and not encoded yet
        found["TensorBoard: WebP, event file"] = best(lambda: board.deliver(record, next(fresh)))
        found["MLflow: PNG, files, calls"] = best(lambda: server.deliver(record, drawings[0]))
        return found


def beside_forwards(look: Callable[[], object]) -> float:
    """Seconds of a look without its maps and its noise floor, which are timed within it."""
    within: list[float] = []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            kept: list[Any] = []
            within.append(seconds(lambda: kept.append(function(*args, **named)), clock="thread"))
            return kept[0]

        return call

    with mock.patch.multiple(seen, explain=timed(seen.explain), noise_floors=timed(seen.noise_floors)):
        whole = seconds(look, clock="thread")
    return whole - sum(within)


def draw(found: dict[str, Any]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 3.4), layout="constrained")
    names = list(found["seconds"])
    values = [1e3 * found["seconds"][name] for name in names]
    bars = axes.barh(names, values, color=COLOURS)
    axes.bar_label(bars, [f"{value:.0f} ms" for value in values], padding=4, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(right=1.15 * max(values))
    axes.set_xlabel("processor time")
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("A look at 16 images of 128 px by two methods, ResNet-18, into TensorBoard and MLflow", fontsize=10)
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
