"""What several commands share: a model that is named on the command line, and mistakes that are said in one line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


class CommandError(Exception):
    """Something the user can put right; said in one line."""


def add_model(command: argparse.ArgumentParser, optional: bool = False) -> None:
    """The arguments that name a model and prepare its input."""
    command.add_argument(
        "model",
        nargs="?" if optional else None,
        metavar="MODEL",
        help="best.pt or a .yaml of ultralytics; timm:NAME, torchvision:NAME; hf:FOLDER of a transformers model; or "
        "package.module:name of a model, or of a function that makes one (called without arguments)",
    )
    command.add_argument(
        "--weights",
        "--checkpoint",
        dest="checkpoint",
        type=Path,
        metavar="FILE",
        help="weights for it: a state dict, or a checkpoint that holds one (Lightning's)",
    )
    command.add_argument(
        "--pretrained", action="store_true", help="of timm: and torchvision:, the weights that the library downloads"
    )
    command.add_argument(
        "--num-classes", type=at_least_one, metavar="N", help="of timm: and torchvision:, a head of so many classes"
    )
    command.add_argument(
        "--size",
        type=at_least_one,
        metavar="N",
        help="side of the model's input: the picture is resized to N×N; for YOLO letterboxed (default: as the model says)",
    )
    command.add_argument("--mean", type=float, nargs="+", metavar="X", help="of the images in [0, 1], taken off")
    command.add_argument("--std", type=float, nargs="+", metavar="X", help="of the images, divided by")
    command.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1 … (default: %(default)s)")


def model_of(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The model, with its weights and on its device, and what :func:`cam_engine.loading.load_model` is to prepare its input by.

    Random weights are said on the standard error: maps of such a model mean nothing.
    """
    from cam_engine.loading import import_model, load_checkpoint, load_model
    from cam_engine.loading.importing import looks_untrained

    settings: dict[str, Any] = {"size": args.size, "mean": args.mean, "std": args.std}
    try:
        model = import_model(args.model, pretrained=args.pretrained, num_classes=args.num_classes)
        if args.checkpoint is not None:
            load_checkpoint(model, args.checkpoint)
        elif looks_untrained(model) or (args.model.startswith(("timm:", "torchvision:")) and not args.pretrained):
            print(
                f"cam-callbacks: WARNING: {args.model} HAS RANDOM WEIGHTS, as it seems: what its maps show was never learned. Pass "
                "--weights FILE, or --pretrained for timm: and torchvision:.",
                file=sys.stderr,
            )
        load_model(model, **settings).net.to(args.device)
    except (ImportError, OSError, TypeError, ValueError, RuntimeError) as error:
        raise CommandError(str(error)) from error
    return model, settings


def at_least_one(text: str) -> int:
    """A whole number above zero, as an argument."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"at least 1 is needed, not {value}")
    return value
