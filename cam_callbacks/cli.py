"""The command ``cam-callbacks``: for each subcommand one function that runs it, and imports what it needs itself."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cam_callbacks.compare.command import CompareCommandError, add_compare, add_report
from cam_callbacks.records import RecordError


class CommandError(Exception):
    """Something the user can put right; said in one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 where a comparison fails its
    condition, 2 for a mistake in its use, 130 when interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without Unicode shows "?" instead of a traceback
    try:
        args = parser().parse_args(argv)
    except SystemExit as leaving:  # argparse: 0 after --help, 2 after a wrong argument
        return leaving.code if isinstance(leaving.code, int) else 2
    command: Callable[[argparse.Namespace], int] = args.command
    try:
        return command(args)
    except (CommandError, CompareCommandError, RecordError, OSError) as error:
        print(f"cam-callbacks: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("cam-callbacks: interrupted", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The whole command line; a subcommand's function is its ``command``."""
    top = argparse.ArgumentParser(
        prog="cam-callbacks",
        description="Where does a vision model look while it trains? Records, compared and shown.",
        epilog="'cam-callbacks COMMAND --help' says more about each.",
    )
    top.add_argument("--version", action="version", version=f"cam-callbacks {_version()}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demo(commands)
    add_compare(commands)
    add_report(commands)
    _add_explain(commands)
    _add_layers(commands)
    _add_sanity(commands)
    _add_replay(commands)
    _add_sync(commands)
    return top


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser(
        "demo",
        help="two short trainings, one of which learns a shortcut, logged and compared",
        description="Train the same small network twice on photographs with handwritten digits, the second time with a "
        "coloured tag that gives the class away; log both to TensorBoard and MLflow; compare them. Takes about two "
        "minutes on two cores.",
    )
    demo.add_argument(
        "--folder", type=Path, default=Path("demo_out"), help="where everything goes (default: %(default)s)"
    )
    demo.add_argument(
        "--epochs", type=_at_least_one, default=16, metavar="N", help="of each training (default: %(default)s)"
    )
    demo.add_argument("--seed", type=int, default=0, metavar="N", help="of data and training (default: %(default)s)")
    demo.set_defaults(command=run_demo)


def run_demo(args: argparse.Namespace) -> int:
    """``cam-callbacks demo``."""
    try:
        from cam_callbacks.demo.main import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "cam_callbacks":
            raise
        raise CommandError(f"the demo needs {error.name}: pip install 'cam-callbacks[demo]'") from error
    return run(args.folder, epochs=args.epochs, seed=args.seed)


def _add_model(command: argparse.ArgumentParser) -> None:
    """What ``explain`` and ``layers`` share."""
    command.add_argument(
        "model",
        metavar="MODEL",
        help="package.module:name of a model, or of a function that makes one (called without arguments)",
    )
    command.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="weights for it: a state dict, or a checkpoint that holds one (Lightning's)",
    )
    command.add_argument(
        "--size",
        type=_at_least_one,
        metavar="N",
        help="side of the model's input: the picture is resized to N×N; for YOLO letterboxed (default: as the model says)",
    )
    command.add_argument("--mean", type=float, nargs="+", metavar="X", help="of the images in [0, 1], taken off")
    command.add_argument("--std", type=float, nargs="+", metavar="X", help="of the images, divided by")
    command.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1 … (default: %(default)s)")


def _add_explain(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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
    _add_model(explain)
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
    explain.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="a folder for each image goes here (default: runs/<method>)"
    )
    explain.set_defaults(command=run_explain)


def run_explain(args: argparse.Namespace) -> int:
    """``cam-callbacks explain``."""
    from tqdm import tqdm

    from cam_engine import explain
    from cam_engine.explanation.pictures import paths_of

    model, settings = _model(args)
    paths = [path for image in args.images for path in paths_of(image) or [Path(image)]]
    folder = args.output or Path("runs", "_".join(args.method))
    method = args.method[0] if len(args.method) == 1 else args.method
    given = ("target", "eigen_smooth", "aug_smooth", "alpha", "classes", "per", "items", "matching", "confidence")
    settings |= {name: getattr(args, name) for name in given}
    failed = 0
    for path in tqdm(paths, unit="image", disable=len(paths) < 2 or not sys.stderr.isatty()):
        try:
            found = explain(model, path, method, args.layer, save=True, output_path=folder / path.stem, **settings)
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            raise CommandError(f"{path}: {error}") from error
        except OSError as error:  # a file that is no picture ends its own row only
            failed += 1
            tqdm.write(f"cam-callbacks: {path}: {error}", file=sys.stderr)
            continue
        note = f"  ({found['message']})" if "message" in found else ""
        tqdm.write(f"{path}: {found['saved_path']}{note}", file=sys.stdout)
    return 2 if failed else 0


def _add_layers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    layers = commands.add_parser(
        "layers",
        help="layers that can be explained",
        description="List the layers with a spatial grid, in the order in which they run: what --layer and layers= take.",
    )
    _add_model(layers)
    layers.set_defaults(command=run_layers)


def run_layers(args: argparse.Namespace) -> int:
    """``cam-callbacks layers``."""
    from cam_engine import available_layers
    from cam_engine.loading import example, load_model

    model, settings = _model(args)
    try:
        loaded = load_model(model, size=args.size, preprocess=settings.get("preprocess"))
        found = available_layers(loaded.net, example(loaded).to(args.device))
    except (TypeError, ValueError, RuntimeError) as error:
        raise CommandError(f"{args.model}: {error} (--size sets another size of input)") from error
    friendly = {dotted: name for name, dotted in loaded.friendly.items()}
    head = ("name", *(["friendly name"] if friendly else []), "type", "shape", "stride", "grid")
    rows = [
        (i.name, *([friendly.get(i.name, "")] if friendly else []), i.type, "×".join(map(str, i.shape)), str(i.stride),
         f"{i.grid[0]}×{i.grid[1]}")
        for i in found
    ]  # fmt: skip
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _add_replay(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    replay = commands.add_parser(
        "replay",
        help="the same records from checkpoints already saved, after the fact",
        description="Look through every checkpoint of a training and write the records that the callback would have written.",
        epilog="example:\n"
        "  cam-callbacks replay checkpoints/ --model project.net:make --probe photos/ --size 224 -o looks\n"
        "  cam-callbacks compare looks",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    replay.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="files in order, or a folder of them")
    replay.add_argument(
        "--model", required=True, metavar="MODEL", help="package.module:name of the model or its factory"
    )
    replay.add_argument("--probe", required=True, type=Path, metavar="FOLDER", help="pictures, one sub-folder a class")
    replay.add_argument("--size", type=_at_least_one, metavar="N", help="side of the model's input")
    replay.add_argument("--mean", type=float, nargs="+", metavar="X", help="of the images in [0, 1], taken off")
    replay.add_argument("--std", type=float, nargs="+", metavar="X", help="of the images, divided by")
    replay.add_argument(
        "--images", type=_at_least_one, metavar="N", help="how many, balanced over classes (default: all)"
    )
    replay.add_argument(
        "--method", nargs="+", default=["eigencam", "gradcam"], metavar="NAME", help="(default: %(default)s)"
    )
    replay.add_argument(
        "--layer", nargs="+", default="auto", metavar="NAME", help="as 'cam-callbacks layers' lists them"
    )
    replay.add_argument(
        "-o", "--output", type=Path, default=Path("looks"), metavar="FOLDER", help="(default: %(default)s)"
    )
    replay.set_defaults(command=run_replay)


def run_replay(args: argparse.Namespace) -> int:
    """``cam-callbacks replay``."""
    from cam_callbacks import ProbeSet
    from cam_callbacks.replay import replay
    from cam_engine.loading import import_model

    try:
        probe = ProbeSet.from_folder(args.probe, args.images, size=args.size, mean=args.mean, std=args.std)
        records = replay(
            import_model(args.model),
            args.checkpoints,
            probe,
            folder=args.output,
            methods=args.method,
            layers=args.layer,
        )
    except (ImportError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CommandError(str(error)) from error
    for record in records:
        drift = ", ".join(f"{k} {v:.3f}" for k, v in record.metrics.items() if k.startswith("cam/drift_ref/"))
        print(f"look {record.look}, epoch {record.epoch}, step {record.step}: {drift}")
    print(f"records: {args.output.resolve()}")
    return 0


def _add_sync(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    sync = commands.add_parser(
        "sync",
        help="deliver what a logger could not take at the time",
        description="Send to MLflow and TensorBoard what a training left behind, because a server was down or the training "
        "was killed. What was delivered before is not sent again.",
    )
    sync.add_argument("folder", type=Path, metavar="FOLDER", help="of records, of a queue, or one above them")
    sync.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow's, where it has moved (default: the one of the training)"
    )
    sync.set_defaults(command=run_sync)


def run_sync(args: argparse.Namespace) -> int:
    """``cam-callbacks sync``."""
    import os

    # Here somebody waits for an answer: minutes of silent retries, MLflow's default, would look like a hang.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    from cam_callbacks.delivery.sync import sync

    print("\n".join(sync(args.folder, args.tracking_uri)))
    return 0


def _add_sanity(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    sanity = commands.add_parser(
        "sanity",
        help="do the maps change when the model forgets? (cascading randomisation)",
        description="Make the model's layers random from the output backwards and print how far the maps drift (Jensen-Shannon, "
        "0 to 1). Drift must rise: maps that stay show the image and not what the model learned.",
    )
    _add_model(sanity)
    sanity.add_argument("images", nargs="+", metavar="IMAGE", help="a picture, a folder of them, or a quoted glob")
    sanity.add_argument("--method", nargs="+", default=["eigencam", "gradcam"], metavar="NAME")
    sanity.add_argument("--layer", nargs="+", metavar="NAME", help="as 'cam-callbacks layers' lists them")
    sanity.set_defaults(command=run_sanity)


def run_sanity(args: argparse.Namespace) -> int:
    """``cam-callbacks sanity``."""
    import torch
    from PIL import Image

    from cam_engine.explanation.pictures import paths_of
    from cam_engine.loading import load_model
    from cam_engine.metrics.sanity import cascading_randomisation

    model, settings = _model(args)
    loaded = load_model(model, size=args.size, preprocess=settings.get("preprocess"))
    paths = [path for image in args.images for path in paths_of(image) or [Path(image)]]
    try:
        images = torch.cat([loaded.prepare(Image.open(path).convert("RGB"))[0] for path in paths]).to(args.device)
        found = cascading_randomisation(loaded.net, images, None, args.method, args.layer or "auto")
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise CommandError(f"{args.model}: {error} (--size brings pictures to one size)") from error
    width = max(len(stage.layer) for stage in found) + 2
    print("random from the output to".ljust(max(width, 27)) + "".join(m.rjust(14) for m in found[0].drift))
    for stage in found:
        print(stage.layer.ljust(max(width, 27)) + "".join(f"{drift:14.3f}" for drift in stage.drift.values()))
    return 0


def _model(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The model, with its weights and on its device, and the settings of ``explain`` that prepare its input."""
    from cam_engine.loading import import_model, load_checkpoint, load_model, normalising

    try:
        model = import_model(args.model)
        loaded = load_model(model, size=args.size)
        if args.checkpoint is not None:
            load_checkpoint(model, args.checkpoint)
        loaded.net.to(args.device)
    except (ImportError, TypeError, ValueError, RuntimeError) as error:
        raise CommandError(str(error)) from error
    settings: dict[str, Any] = {"size": args.size}
    if args.mean or args.std:
        settings["preprocess"] = normalising(loaded.prepare, args.mean, args.std)
    return model, settings


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"at least 1 is needed, not {value}")
    return value


def _version() -> str:
    from cam_callbacks import __version__

    return __version__


if __name__ == "__main__":
    sys.exit(main())
