"""Eigen-CAM of a YOLOv8, as in Datature's notebooks: detection and classification, layers together, n-th components.

    python examples/yolov8_eigencam.py --folder runs/yolov8_eigencam

Needs ultralytics (`pip install ultralytics`; AGPL). Without --weights the networks are untrained.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from ultralytics import YOLO
from untrained import make_it_detect, photograph

from cam_engine import explain
from cam_engine.render import Tile, contact_sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="yolov8n.yaml")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("runs/yolov8_eigencam"))
    parser.add_argument("--size", type=int, default=320)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    picture = photograph() if args.image is None else Image.open(args.image).convert("RGB")
    yolo = YOLO(args.weights)
    if args.weights.endswith(".yaml"):
        make_it_detect(yolo.model)

    # One layer, counted from the end as in the notebooks; then the inputs of the head together.
    for layer in (-4, [15, 18, 21]):
        result = explain(
            yolo, picture, "eigencam", layer, size=args.size, save=True, output_path=args.folder / "eigencam"
        )
        print(result["target_layer"], "->", result["saved_path"])

    # The n-th principal component, where the notebooks change VT[0, :] by hand.
    tiles = [Tile(np.asarray(picture), None, ("image",))]
    for n in range(3):
        result = explain(yolo, picture, "eigencam", "neck_c2f22", component=n, size=args.size)
        tiles.append(Tile(np.asarray(picture), result["heatmap"], (f"component {n}",)))
    Image.fromarray(contact_sheet(tiles, title="eigencam · neck_c2f22", columns=4)).save(args.folder / "components.png")

    # A map for each detected class.
    result = explain(yolo, picture, "eigengradcam", per="class", size=args.size, save=True,
                     output_path=args.folder / "per_class")  # fmt: skip
    for part in result["parts"]:
        print(f"class {part['label']}: {len(part['boxes'])} detections, best {part['score']:.2f}")

    # Classification models work the same way.
    result = explain(YOLO("yolov8n-cls.yaml"), picture, "eigencam", save=True, output_path=args.folder / "classify")
    print("classifier:", result["target_layer"], result["heatmap"].shape)


if __name__ == "__main__":
    main()
