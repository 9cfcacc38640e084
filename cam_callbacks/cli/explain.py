"""``cam-callbacks explain``: heatmaps and overlays for images."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cam_callbacks.cli.arguments import CommandError, add_model, model_of


def add_explain(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command and its arguments."""
    explain = commands.add_parser(
        "explain",
        help="heatmaps and overlays for images",
        description="Show where a model looks in images: an overlay, a figure with its caption, the heatmap (PNG and .npy) and "
        "metadata.json for each, in a folder of its own; nothing is written over.",
        epilog="examples:\n"
        "  cam-callbacks explain best.pt bus.jpg --method gradcam eigencam\n"
        "  cam-callbacks explain timm:mobilenetv2_100 cat.jpg --pretrained --target 'Egyptian cat' -o cat.png\n"
        "  cam-callbacks explain torchvision:mobilenet_v2 cat.jpg --weights mobilenet_v2.pth --colormap red\n"
        "  cam-callbacks explain hf:vit-folder photos/\n"
        "  cam-callbacks explain project.net:make photos/ --weights last.ckpt --layer layer4 -o maps",
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
    explain.add_argument("--target", metavar="CLASS", help="the class, by name or index (default: the predicted one)")
    explain.add_argument(
        "--class-names",
        nargs="+",
        metavar="NAME",
        help="of all classes, in order (default: those that the model knows)",
    )
    explain.add_argument(
        "--component", type=int, default=0, metavar="N", help="of the eigen methods: which principal component, from 0"
    )
    explain.add_argument("--eigen-smooth", action="store_true", help="keep the maps' first principal component only")
    explain.add_argument(
        "--aug-smooth", action="store_true", help="average over mirrored and scaled inputs (not for detectors)"
    )
    explain.add_argument(
        "--alpha",
        type=float,
        default=0.5,
        metavar="X",
        help="share of the colour at the peak, 0 to 1 (default: %(default)s)",
    )
    explain.add_argument(
        "--colormap", default="inferno", metavar="NAME", help="inferno, viridis, …; with a red peak: red, turbo, jet"
    )
    explain.add_argument("--no-caption", dest="caption", action="store_false", help="no figures with words")
    explain.add_argument(
        "--aggregate", choices=("mean", "max"), help="over several layers (default: mean; detectors: max)"
    )
    _add_detectors(explain)
    explain.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FOLDER",
        help="a folder for each image goes here (default: runs/<method>); of one image also a file, such as cat.png",
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
    detectors.add_argument("--matching", choices=("exact", "overlap"), help="rows of a detection (default: exact)")
    detectors.add_argument("--k", type=int, metavar="N", help="of overlap: so many rows (default: 10)")
    detectors.add_argument(
        "--confidence", type=float, default=0.25, metavar="X", help="least of a detection (default: %(default)s)"
    )


def run_explain(args: argparse.Namespace) -> int:
    """``cam-callbacks explain``."""
    from tqdm import tqdm

    from cam_engine import explain
    from cam_engine.explanation.reading import paths_of
    from cam_engine.explanation.saving import is_picture_file

    model, settings = model_of(args)
    names = ("target", "class_names", "component", "eigen_smooth", "aug_smooth", "alpha", "colormap", "caption", "aggregate",
             "classes", "per", "items", "matching", "k", "confidence")  # fmt: skip
    settings |= {name: getattr(args, name) for name in names}
    paths = [path for image in args.images for path in paths_of(image) or [Path(image)]]
    folder = args.output or Path("runs", "_".join(args.method))
    one_file = is_picture_file(folder)
    if one_file and len(paths) > 1:
        raise CommandError(f"-o {folder} is one file, and there are {len(paths)} pictures; name a folder.")
    method = args.method[0] if len(args.method) == 1 else args.method
    failed = 0
    for path in tqdm(paths, unit="image", disable=len(paths) < 2 or not sys.stderr.isatty()):
        place = folder if one_file else folder / path.stem
        try:
            result = explain(model, path, method, args.layer, save=True, output_path=place, **settings)
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            raise CommandError(f"{path}: {error}") from error
        except OSError as error:  # a file that is no picture ends its own row only
            failed += 1
            tqdm.write(f"cam-callbacks: {path}: {error}", file=sys.stderr)
            continue
        tqdm.write(line_of(path, result), file=sys.stdout)
    return 2 if failed else 0


def line_of(path: Path, result: Mapping[str, Any]) -> str:
    """What the terminal shows for an image: what was found, where the picture lies, and what is to be known about it."""
    from cam_engine.explanation.detectors import detections_in_words
    from cam_engine.explanation.naming import ExplainedClass

    of = ExplainedClass(*(result.get(name) for name in ("class_index", "class_name", "probability")))
    found = of.words() or detections_in_words(result.get("detections", []))
    line = f"{path}: {result['saved_path']}" + (f"  {found}" if found else "")
    return line + (f"  ({result['message']})" if "message" in result else "")
