"""How long a long run takes to open, and to load for the page, the terminal table and ``--json``.

``python benchmarks/reading.py``: a run of 1000 looks at 64 images by 3 methods, maps of 7 × 7 cells, with the numbers that a
look keeps by default of a probe with labels, masks and suspected regions. Each row is the best of three, wall and processor time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cam_callbacks.compare import compare_runs, load_run, page_data, render_page
from cam_callbacks.records import Record, RecordStore
from cam_engine.metrics import aggregate, get_metrics

LOOKS, IMAGES, GRID, SIDE = 1000, 64, 7, 64
METHODS = ("eigencam", "gradcam", "layercam")
LAYER = "layer4"
OF_MAPS = ("valid_frac", "reference_set", "noise_floor", "ceiling", "max_t", "max_t_p")
REPEATS = 3


def write_run(folder: Path, looks: int, images: int = IMAGES, seed: int = 0) -> None:
    """Records of a run whose maps and numbers are noise: as many of them, and as long, as those of a training."""
    random = np.random.default_rng(seed)
    store = RecordStore(folder)
    labels = np.arange(images) % 10
    masks = np.zeros((images, SIDE, SIDE), bool)
    masks[:, 20:40, 10:30] = True
    store.write_probe(
        {"pictures": random.integers(0, 255, (images, SIDE, SIDE, 3), np.uint8), "labels": labels, "masks": masks}
    )
    probe = {
        "fingerprint": "5f" * 32,
        "n": images,
        "image_size": [SIDE, SIDE],
        "ids": [f"{i}.png" for i in range(images)],
    }
    store.write_manifest(
        {"run": "long", "name": None, "created": 0.0, "version": "", "model": "ResNet", "target": "label"}
        | {"methods": list(METHODS), "layers": [LAYER], "grids": {LAYER: [GRID, GRID]}, "reference": "settled"}
        | {"probe": probe, "versions": {}}
    )
    for look in range(looks):
        store.write(_record(look, labels, random))


def _record(look: int, labels: np.ndarray, random: np.random.Generator) -> Record:
    images = len(labels)
    per_image = {
        f"{name}/{method}": random.random(images)
        for method in METHODS
        for name in [*(m.name for m in get_metrics()), "focus_drift"]
    }
    aggregates = {key: aggregate(values, labels) for key, values in per_image.items()}
    metrics = {f"cam/{key}": found["mean"] for key, found in aggregates.items()}
    metrics |= {f"cam/{name}/{method}": float(random.random()) for name in OF_MAPS for method in METHODS}
    return Record(
        look=look,
        epoch=look,
        step=100 * look,
        metrics=metrics | {"cam/seconds": 0.4},
        maps={(method, LAYER): random.random((images, GRID, GRID), np.float32) for method in METHODS},
        per_image=per_image,
        aggregates=aggregates,
        predictions=random.integers(0, 10, images),
        confidences=random.random(images),
        scores=random.random(images),
        targets=labels,
        reference={
            f"{method}/{LAYER}": {"look": 3, "settled": True, "floor": 0.02, "ceiling": 0.4, "grid": [GRID, GRID]}
            | {"t_critical": 3.4}
            for method in METHODS
        },
        user_metrics={"val_acc": float(random.random()), "val_loss": float(random.random())},
        t_maps={(method, LAYER): random.random((GRID, GRID), np.float32) for method in METHODS},
    )


def steps(folder: Path) -> dict[str, Callable[[], object]]:
    """What is measured, each from the files on."""
    return {
        "open": lambda: load_run(folder),
        "open, load for the page": lambda: page_data([load_run(folder)]),
        "open, write the page": lambda: render_page(page_data([load_run(folder)])),
        "open, print the table": lambda: compare_runs(folder).text(),
        "open, print --json": lambda: compare_runs(folder).json(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--looks", type=int, default=LOOKS)
    parser.add_argument("--folder", type=Path, help="keep the run here, and take the one that is there")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary) / "run"
        if not len(RecordStore(folder)):
            write_run(folder, args.looks)
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{len(RecordStore(folder))} looks, {size / 1e6:.0f} MB, {os.cpu_count()} cores")
        for name, step in steps(folder).items():
            took = []
            for _ in range(REPEATS):
                began, busy = time.perf_counter(), time.process_time()
                step()
                took.append((time.perf_counter() - began, time.process_time() - busy))
            wall, processor = map(min, zip(*took, strict=True))
            print(f"{name:<26}{wall:6.2f} s {processor:6.2f} s")


if __name__ == "__main__":
    main()
