"""LibreYOLO's `model.explain(...)`, from outside: every option of it, on a libreyolo 1.6 model.

    python examples/libreyolo_explain.py --folder runs/libreyolo

Needs libreyolo (`pip install libreyolo`), which itself no longer has `explain`. Without --weights the model is untrained.
"""

import argparse
from pathlib import Path

from libreyolo import LibreYOLO9
from untrained import make_it_detect, photograph

from cam_engine import AutoSave, explain, get_available_layer_names, save_feature_maps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights")
    parser.add_argument("--folder", type=Path, default=Path("runs/libreyolo"))
    parser.add_argument("--size", type=int, default=320)
    args = parser.parse_args()
    model = LibreYOLO9(args.weights, size="t", device="cpu")
    if args.weights is None:
        make_it_detect(model.model)
    args.folder.mkdir(parents=True, exist_ok=True)
    image = args.folder / "image.jpg"
    photograph().save(image)

    print("layers:", ", ".join(get_available_layer_names(model)[:14]))
    result = explain(
        model,
        image=image,
        method="eigencam",
        target_layer="neck_elan_down2",
        eigen_smooth=False,
        save=True,
        output_path=args.folder / "results",
        alpha=0.5,
        size=args.size,
    )
    print(result["heatmap"].shape, result["overlay"].dtype, result["target_layer"], result["saved_path"])

    for method in ("eigencam", "gradcam", "gradcam++", "xgradcam", "hirescam", "layercam", "eigengradcam"):
        result = explain(model, image, method, save=True, output_path=args.folder / method, size=args.size)
        print(f"{method}: saved to {result['saved_path']}")

    saving = AutoSave(model, save_eigen_cam=True, cam_method="eigencam", cam_layer="neck_elan_down2",
                      folder=args.folder / "auto", save_feature_maps=True)  # fmt: skip
    saving(str(image), imgsz=args.size)
    print("saved beside the detections:", *saving.paths, *saving.saved.feature_map_paths)
    saving.disable()

    print("feature maps:", save_feature_maps(model, image, ["backbone_conv0", "neck_elan_down2"],
                                             folder=args.folder / "features", size=args.size))  # fmt: skip


if __name__ == "__main__":
    main()
