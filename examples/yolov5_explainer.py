"""The YOLOv5 explainer's `run(source, method, layer, class_names, backward_per_class, backprop_array)`, with the same names.

    python examples/yolov5_explainer.py --folder runs/yolov5

Needs ultralytics (`pip install ultralytics`; AGPL), whose "yolov5n" has the new head; networks of the YOLOv5 repository,
`torch.hub.load("ultralytics/yolov5", ...)`, are taken too. Without --weights the network is untrained.
"""

import argparse
from pathlib import Path

from ultralytics import YOLO
from untrained import make_it_detect, photograph

from cam_engine import explain


def run(model, **arguments):
    """As there: `explain` understands the explainer's names, and `k` asks for its rows, those that overlap a box most."""
    return explain(model, **{"method": "GradCAM", "layer": -2, "k": 10} | arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="yolov5n.yaml")
    parser.add_argument("--folder", type=Path, default=Path("runs/yolov5"))
    parser.add_argument("--size", type=int, default=320)
    args = parser.parse_args()
    yolo = YOLO(args.weights)
    if args.weights.endswith(".yaml"):
        make_it_detect(yolo.model)
        yolo.model.names |= {0: "person", 15: "cat", 16: "dog"}
    args.folder.mkdir(parents=True, exist_ok=True)
    source = args.folder / "cat-dog.jpg"
    photograph().save(source)

    ways = {
        "default": {},
        "layer": {"layer": -3},
        "layers": {"layer": [17, 20, 23], "aggregate": "mean"},
        "dog": {"class_names": ["dog"]},
        "per_class": {"backward_per_class": True},
        "confidence": {"backprop_array": ["confidence"]},
        "averaged": {"backprop_array": ["class", "x_c", "y_c", "w", "h"]},
        "none_found": {"class_names": ["person"]},
    }
    for name, arguments in ways.items():
        result = run(yolo, source=source, imgsz=args.size, save=True, output_path=args.folder / name, **arguments)
        print(f"{name}: {len(result['detections'])} detections, layers {result['target_layer']}, "
              f"{result.get('message') or result['saved_path']}")  # fmt: skip


if __name__ == "__main__":
    main()
