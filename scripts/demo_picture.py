"""Make docs/demo.png, the README's picture, from the records of a finished `make demo`.

.venv/bin/python scripts/demo_picture.py demo_out docs/demo.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from cam_callbacks.compare import select_runs
from cam_callbacks.drawing import Drawing
from cam_callbacks.records import RecordStore
from cam_engine.render import Tile, film_strip, write_png

EPOCHS = (0, 1, 3, 7, 15)
CLASSES = (2, 4, 6, 7, 9)


def main(folder: str, picture: str) -> None:
    runs = select_runs([Path(folder, "tensorboard")]).runs
    strips = []
    for title, run in zip(
        ("clean: the tag's colour is random", "shortcut: the tag's colour tells the class"), runs, strict=True
    ):
        store = RecordStore(run.source)
        drawing = Drawing(store)
        labels = drawing.probe["labels"]
        rows = [int(np.flatnonzero(labels == c)[0]) for c in CLASSES]
        records = [r for r in store if r.epoch in EPOCHS]
        tiles = [[drawing.tile(r, "gradcam", store.manifest["layers"][0], i) for r in records] for i in rows]
        accuracy = records[-1].user_metrics["val_acc"]
        strips.append(
            film_strip(
                [[Tile(t.image, t.heatmap) for t in row] for row in tiles],
                row_labels=[drawing.class_name(int(labels[i])) for i in rows],
                column_labels=[f"epoch {r.epoch}" for r in records],
                title=f"{title} · validation accuracy {accuracy:.0%}",
                tile_size=104,
            )
        )
    gap = np.full((strips[0].shape[0], 24, 3), 255, np.uint8)
    write_png(picture, np.hstack([strips[0], gap, strips[1]]))


if __name__ == "__main__":
    main(*sys.argv[1:])
