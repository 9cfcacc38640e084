"""``cam-callbacks explain``: heatmaps and overlays for images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cam_callbacks.cli.arguments import CommandError, add_model, model_of


def add_explain(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command and its arguments."""
    explain = commands.add_parser(
        "explain",
        help="heatmaps and overlays for images",
        description="Show where a model looks in images: an overlay, the heatmap (PNG and .npy) and metadata.json for each, "
        "in a folder of its own; nothing is written over.",
        epilog="examples:\n"
        "  cam-callbacks explain torchvision.models:resnet18 cat.jpg --size 224 --method gradcam eigencam\n"
        "  cam-callbacks explain project.net:make photos/ --checkpoint last.ckpt --layer layer4 -o maps",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model(explain)
    explain.add_argument("images", nargs="+", metavar="IMAGE", help="a picture, a folder of them, or a quoted glob")
    explain.add_argument(
        "--method",
        nargs="+",
        default=["gradcam"],
        metavar="NAME",
        help="one, or several for a sheet side by side (default: gradcam)",
    )
    explain.add_argument(
        "--layer", nargs="+", metavar="NAME", help="as 'cam-callbacks layers' lists them, or an index such as -2"
    )
    explain.add_argument("--target", type=int, metavar="CLASS", help="index of the class (default: the predicted one)")
    explain.add_argument("--eigen-smooth", action="store_true", help="keep the maps' first principal component only")
    explain.add_argument(
        "--aug-smooth", action="store_true", help="average over mirrored and scaled inputs (not for detectors)"
    )
    explain.add_argument(
        "--alpha", type=float, default=0.5, metavar="X", help="share of the colour, 0 to 1 (default: %(default)s)"
    )
    _add_detectors(explain)
    explain.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="a folder for each image goes here (default: runs/<method>)"
    )
    explain.set_defaults(command=run_explain)


def _add_detectors(explain: argparse.ArgumentParser) -> None:
    detectors = explain.add_argument_group("detectors")
    detectors.add_argument("--classes", nargs="+", metavar="NAME", help="only these classes, by name or index")
    detectors.add_argument("--per", choices=("all", "class", "detection"), default="all", help="a map for each")
    detectors.add_argument(
        "--items",
        nargs="+",
        default=["class"],
        metavar="NAME",
        help="what of a detection: class, confidence, class_confidence, x_center, y_center, width, height, mask; several "
        "are averaged (default: class)",
    )
    detectors.add_argument(
        "--matching", choices=("exact", "overlap"), default="exact", help="rows of a detection (default: %(default)s)"
    )
    detectors.add_argument(
        "--confidence", type=float, default=0.25, metavar="X", help="least of a detection (default: %(default)s)"
    )


def run_explain(args: argparse.Namespace) -> int:
    """``cam-callbacks explain``."""
    from tqdm import tqdm

    from cam_engine import explain
    from cam_engine.explanation.reading import paths_of

    model, settings = model_of(args)
    paths = [path for image in args.images for path in paths_of(image) or [Path(image)]]
    folder = args.output or Path("runs", "_".join(args.method))
    method = args.method[0] if len(args.method) == 1 else args.method
    settings |= {
        "target": args.target,
        "eigen_smooth": args.eigen_smooth,
        "aug_smooth": args.aug_smooth,
        "alpha": args.alpha,
        "classes": args.classes,
        "per": args.per,
        "items": args.items,
        "matching": args.matching,
        "confidence": args.confidence,
    }
    failed = 0
    for path in tqdm(paths, unit="image", disable=len(paths) < 2 or not sys.stderr.isatty()):
        try:
            result = explain(model, path, method, args.layer, save=True, output_path=folder / path.stem, **settings)
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            raise CommandError(f"{path}: {error}") from error
        except OSError as error:  # a file that is no picture ends its own row only
            failed += 1
            tqdm.write(f"cam-callbacks: {path}: {error}", file=sys.stderr)
            continue
        note = f"  ({result['message']})" if "message" in result else ""
        tqdm.write(f"{path}: {result['saved_path']}{note}", file=sys.stdout)
    return 2 if failed else 0
