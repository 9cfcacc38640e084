"""How the cost of a look and of reading looks grows: with the probe, its images, classes, methods, layers; with looks and runs.

    .venv-peers/bin/python benchmarks/growth.py            # benchmarks/results/growth.json, and the plots in docs/
    .venv-peers/bin/python benchmarks/growth.py --draw     # the plots alone, from what was measured

Each point is the best of some repeats, in processor time of this process, which other programs hardly change. Looks are at a small
network, so that what is not the network shows; records are noise, as many and as long as those of a training.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from measure import MIB, aligned, least, machine, peak, reset_peak, seconds
from reading import write_run
from torch import nn

from cam_callbacks import CAMMonitor, ProbeSet
from cam_callbacks.compare import compare_runs, load_run, page_data, render_page
from cam_callbacks.tensorboard_plugin.watch import Watch

RESULTS = Path(__file__).parent / "results" / "growth.json"
DOCS = Path(__file__).parent.parent / "docs"
METHODS = ("gradcam", "eigencam", "gradcam++", "xgradcam", "hirescam", "layercam", "eigengradcam")
STAGES = ("6", "4", "2", "0")  # of the network, the last one first
Points = list[list[float]]  # [[how many, seconds], …]; of memory [how many, MiB]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the small half of each row, and no results file")
    parser.add_argument("--draw", action="store_true", help="draw what was measured before")
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch; more of them spin while they wait for each other"
    )
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if not given.draw:
        found: dict[str, Any] = {"machine": machine("cpu"), "looks": {}, "reading": {}, "bars": []}
        for name, points in looks(given.quick):
            found["looks"][name] = points
            print(name, points, flush=True)
        with tempfile.TemporaryDirectory() as temporary:
            for name, points in reading(Path(temporary), given.quick):
                found["reading"][name] = points
                print(name, points, flush=True)
            found["bars"] = bars(Path(temporary), given.quick)
        print(aligned(["what", "measured", "bar", ""], [verdict(**bar) for bar in found["bars"]]))
        if given.quick:
            return
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw(json.loads(RESULTS.read_text(encoding="utf-8")))


# A look
# ----------------------------------------------------------------------------------------------------------------------


def looks(quick: bool) -> Iterator[tuple[str, Points]]:
    """Processor time of a look after the first, without exchange tests; memory of the first."""
    half = 2 if quick else None
    sizes = (16, 64, 256, 1024, 4096)[:half]
    yield "images", [[n, look(images=n)] for n in sizes]
    # glibc keeps freed memory for later, which is no memory of the look: above this size it shall give it back at once.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(128 * 1024)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as fresh:
        yield "memory", [[n, grown] for n, grown in zip(sizes, fresh.map(memory, sizes), strict=True)]
    yield "size", [[n, look(size=n)] for n in (32, 64, 128, 256)[:half]]
    yield "classes", [[n, look(classes=n)] for n in (10, 100, 1000, 21_000)[:half]]
    yield "methods", [[n, look(methods=METHODS[:n])] for n in range(1, len(METHODS) + 1)[:half]]
    yield "layers", [[n, look(layers=STAGES[:n])] for n in range(1, len(STAGES) + 1)[:half]]


def look(images: int = 16, size: int = 64, classes: int = 10, **options: Any) -> float:
    """Seconds of processor time."""
    monitor, model = watched(images, size, classes, **options), network(classes)
    monitor.look(model)
    return least(lambda: monitor.look(model))


def memory(images: int) -> float:
    """MiB by which memory grows at its highest in the first look, beside the probe; to be called in a process of its own."""
    torch.set_num_threads(1)
    model, monitor = network(10), watched(images)
    watched(16).look(model)  # libraries have made what they keep
    before = reset_peak()
    monitor.look(model)
    return (peak() - before) / MIB


def watched(
    images: int,
    size: int = 64,
    classes: int = 10,
    methods: Iterable[str] = METHODS[:2],
    layers: Iterable[str] = STAGES[:1],
) -> CAMMonitor:
    probe = ProbeSet(torch.rand(images, 3, size, size), torch.arange(images) % classes)
    return CAMMonitor(probe, tuple(methods), list(layers), reference="first", exchange=[], alerts=[])


def network(classes: int) -> nn.Module:
    torch.manual_seed(0)
    widths = (3, 16, 32, 64, 128)
    stages: list[nn.Module] = []
    for before, after in pairwise(widths):
        stages += [nn.Conv2d(before, after, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes)).eval()


# Reading
# ----------------------------------------------------------------------------------------------------------------------


def reading(folder: Path, quick: bool) -> Iterator[tuple[str, Points]]:
    """Processor time of opening, the table, the page and the tab's data: over looks, over images, over runs."""
    half = 2 if quick else None
    for over, counts, make in (
        ("looks", (10, 30, 100, 300, 1000), lambda n: [made(folder / f"looks{n}", looks=n)]),
        ("images", (16, 64, 256, 1024), lambda n: [made(folder / f"images{n}", looks=20, images=n)]),
        ("runs", (2, 10, 50, 200, 500), lambda n: many(folder / f"runs{n}", n)),
    ):
        points: dict[str, Points] = {"open": [], "table": [], "page": [], "tab": []}
        for n in counts[:half]:
            runs = make(n)
            loaded = [load_run(run) for run in runs]
            jobs: dict[str, Callable[[], object]] = {
                "open": lambda runs=runs: [load_run(run) for run in runs],
                "table": lambda loaded=loaded: compare_runs(*loaded).text(),
                "page": lambda loaded=loaded: render_page(page_data(loaded)),
                "tab": lambda top=runs[0].parent if over == "runs" else runs[0]: tab(top),
            }
            for name, job in jobs.items():
                points[name].append([n, least(job, 1 if n > 100 else 2)])
        yield from ((f"{name} over {over}", of) for name, of in points.items())


def made(folder: Path, **of: int) -> Path:
    write_run(folder, **of)
    return folder


def many(folder: Path, count: int) -> list[Path]:
    """Runs of ten looks at 16 images: some that differ, and copies of them."""
    originals = [made(folder / f"run{i:03}", looks=10, images=16, seed=i) for i in range(min(count, 20))]
    for i in range(len(originals), count):
        shutil.copytree(originals[i % len(originals)], folder / f"run{i:03}")
    return [folder / f"run{i:03}" for i in range(count)]


def tab(logdir: Path) -> None:
    """What TensorBoard's tab asks for when it is opened: the list, and the first runs' data."""
    watch = Watch(str(logdir))
    rows = watch.listing()
    watch.data([str(row["name"]) for row in rows[:10]])


# What was to be reached
# ----------------------------------------------------------------------------------------------------------------------


def bars(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Wall-clock time of what a person waits for."""
    looks, runs, compared = (100, 50, 20) if quick else (1000, 500, 200)
    long = next(folder.glob(f"looks{looks}"), None) or made(folder / "long", looks=looks)
    listed = folder / f"runs{runs}"
    if not listed.is_dir():
        many(listed, runs)
    found = [
        {
            "what": f"{looks} looks × 64 images × 3 methods load",
            "bar": 3.0,
            "seconds": least(lambda: load_run(long), clock="wall"),
        },
        {
            "what": f"{runs} runs are listed in the tab",
            "bar": 2.0,
            "seconds": least(lambda: Watch(str(listed)).listing(), clock="wall"),
        },
    ]
    uri = experiment(folder / "mlflow", many(folder / "compared", compared))
    kept: list[Any] = []
    found.append({
        "what": f"compare experiment:NAME over {compared} runs draws its table",
        "bar": 10.0,
        "seconds": seconds(lambda: kept.append((c := compare_runs("experiment:many", tracking_uri=uri), c.text()))),
    })  # fmt: skip
    page = folder / "page.html"
    found.append({
        "what": f"the page of its {len(page_data(kept[0][0].runs)['runs'])} runs that differ most is written",
        "bar": 10.0,
        "seconds": seconds(lambda: kept[0][0].write(page)),
        "megabytes": page.stat().st_size / 1e6,
    })  # fmt: skip
    return found


def experiment(folder: Path, runs: Iterable[Path]) -> str:
    """An MLflow experiment, "many", whose runs hold these records; its tracking URI."""
    import mlflow

    folder.mkdir()
    uri = f"sqlite:///{folder}/mlflow.db"
    client = mlflow.MlflowClient(uri)
    number = client.create_experiment("many", artifact_location=(folder / "artifacts").as_uri())
    for records in runs:
        run = client.create_run(number, run_name=records.name, tags={"cam.records": "cam/records"}).info
        client.log_artifacts(run.run_id, str(records), "cam/records")
    return uri


def verdict(what: str, bar: float, seconds: float, megabytes: float | None = None) -> list[str]:
    size = "" if megabytes is None else f", {megabytes:.1f} MB"
    return [what, f"{seconds:.2f} s{size}", f"≤ {bar:g} s", "PASS" if seconds <= bar else "FAIL"]


# Plots
# ----------------------------------------------------------------------------------------------------------------------


def draw(found: dict[str, Any]) -> None:
    """docs/growth_look.png and docs/growth_reading.png; with each line what one more of it costs."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import matplotlib.ticker

    def panel(axes: Any, lines: dict[str, Points], title: str, unit: str = "s") -> None:
        for name, points in lines.items():
            counts, values = zip(*points, strict=True)
            axes.plot(counts, values, "o-", markersize=3, label=f"{name}: {slope(points, unit)}")
        if counts[-1] / counts[0] > 10:
            axes.set(xscale="log", yscale="log" if max(values) > 10 * min(values) and unit == "s" else "linear")
            axes.set_xticks(counts, [f"{n:,}" for n in counts], minor=False)
            axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        else:
            axes.set_xticks(counts)
        if axes.get_yscale() == "log":
            for formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
                formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "125" else ""))
        else:
            axes.set_ylim(bottom=0)
        axes.set_title(title, fontsize=10)
        axes.set_ylabel("MiB" if unit == "MiB" else "seconds", fontsize=8)
        axes.tick_params(labelsize=8, which="both")
        axes.legend(frameon=False, fontsize=8)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)

    figure, grid = plt.subplots(2, 3, figsize=(12, 6.4), layout="constrained")
    titles = {"images": "probe images", "memory": "memory beside the probe, over its images", "size": "pixels of a side",
              "classes": "classes", "methods": "methods", "layers": "layers"}  # fmt: skip
    for axes, (name, title) in zip(grid.flat, titles.items(), strict=True):
        panel(axes, {"a look": found["looks"][name]}, title, "MiB" if name == "memory" else "s")
    finish(figure, found, "growth_look.png")
    figure, row = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for axes, over in zip(row, ("looks", "images", "runs"), strict=True):
        panel(axes, {name: found["reading"][f"{name} over {over}"] for name in ("open", "table", "page", "tab")}, over)
    finish(figure, found, "growth_reading.png")


def slope(points: Points, unit: str) -> str:
    """What one more costs, between the two ends."""
    (first, low), (last, high) = points[0], points[-1]
    each = (high - low) / (last - first)
    return f"{each * 1024:.0f} KiB each" if unit == "MiB" else f"{each * 1e3:.2g} ms each"


def finish(figure: Any, found: dict[str, Any], name: str) -> None:
    figure.suptitle(f"processor time, {found['machine'][0]}", fontsize=9, color="#555555")
    figure.savefig(DOCS / name, dpi=110)


if __name__ == "__main__":
    main()
