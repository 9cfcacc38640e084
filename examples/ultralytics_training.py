"""Watch a YOLO while it learns to find squares, discs and triangles, on pictures made here.

    python examples/ultralytics_training.py --epochs 10 --folder runs/shapes

Needs ultralytics (`pip install ultralytics`). Nothing is downloaded.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from cam_callbacks.ultralytics import attach, probe_from_yolo

SHAPES = ("square", "disc", "triangle")
SIZE = 160


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=256, help="for training; a quarter as many for validation")
    parser.add_argument("--folder", type=Path, default=Path("runs/shapes"))
    parser.add_argument("--mlflow", action="store_true", help="log to an MLflow run in the folder, too")
    args = parser.parse_args()
    folder = args.folder.resolve()
    data = make_shapes(folder / "data", {"train": args.images, "val": max(args.images // 4, 8)})

    from ultralytics import YOLO

    run = tracking_uri = None
    if args.mlflow:
        from mlflow import MlflowClient

        tracking_uri = f"sqlite:///{folder}/mlflow.db"
        client = MlflowClient(tracking_uri)
        experiment = client.create_experiment("shapes", artifact_location=(folder / "mlartifacts").as_uri())
        run = client.create_run(experiment, run_name="yolov8n").info.run_id

    yolo = YOLO("yolov8n.yaml")
    probe = probe_from_yolo(data, n=16, size=SIZE)
    watch = attach(yolo, probe, mlflow=run, tracking_uri=tracking_uri)
    yolo.train(data=str(data), epochs=args.epochs, imgsz=SIZE, batch=16, workers=0, amp=False, plots=False,
               close_mosaic=2, project=str(folder), name="train")  # fmt: skip

    for record in watch.store:
        enrichment = [f"{k.split('/')[-1]} {v:.2f}" for k, v in record.metrics.items() if "enrichment/layercam" in k]
        print(f"epoch {record.epoch}: focus on the shapes, 1 is chance: {', '.join(enrichment)}")
    print(f"Records: {watch.store.folder}")
    print(f"Pictures: tensorboard --logdir {watch.store.folder.parent} --samples_per_plugin images=1000")


def make_shapes(folder: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Write a YOLO data set of one to three shapes on noise in each picture; returns its YAML."""
    rng = np.random.default_rng(seed)
    for split, count in counts.items():
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            picture, lines = draw_shapes(rng)
            picture.save(folder / "images" / split / f"{split}_{index:04d}.png")
            (folder / "labels" / split / f"{split}_{index:04d}.txt").write_text("\n".join(lines))
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(SHAPES))
    yaml = folder / "shapes.yaml"
    yaml.write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames:\n{names}")
    return yaml


def draw_shapes(rng: np.random.Generator) -> tuple[Image.Image, list[str]]:
    """A picture, and a line `class x y width height` (shares of the picture) for each shape."""
    noise = rng.integers(0, 90, (SIZE // 8, SIZE // 8, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    draw, lines = ImageDraw.Draw(picture), []
    quarters = rng.permutation(4)[: rng.integers(1, 4)]
    for quarter in quarters:
        radius = rng.uniform(14, 34)
        centre = np.array([quarter % 2, quarter // 2]) * SIZE / 2 + SIZE / 4 + rng.uniform(-5, 5, 2)
        low, high = centre - radius, centre + radius
        low, high = np.clip(low, 0, SIZE - 1), np.clip(high, 0, SIZE - 1)
        colour = tuple(int(c) for c in rng.integers(120, 256, 3))
        shape = int(rng.integers(len(SHAPES)))
        corners = [*low, *high]
        if SHAPES[shape] == "square":
            draw.rectangle(corners, fill=colour)
        elif SHAPES[shape] == "disc":
            draw.ellipse(corners, fill=colour)
        else:
            draw.polygon([(low[0], high[1]), (high[0], high[1]), ((low[0] + high[0]) / 2, low[1])], fill=colour)
        (x, y), (w, h) = (low + high) / 2 / SIZE, (high - low) / SIZE
        lines.append(f"{shape} {x:.6f} {y:.6f} {w:.6f} {h:.6f}")
    return picture, lines


if __name__ == "__main__":
    main()
