"""What several commands share: a model that is named on the command line, and mistakes that are said in one line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


class CommandError(Exception):
    """Something the user can put right; said in one line."""


def add_model(command: argparse.ArgumentParser) -> None:
    """The arguments that name a model and prepare its input."""
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
        type=at_least_one,
        metavar="N",
        help="side of the model's input: the picture is resized to N×N; for YOLO letterboxed (default: as the model says)",
    )
    command.add_argument("--mean", type=float, nargs="+", metavar="X", help="of the images in [0, 1], taken off")
    command.add_argument("--std", type=float, nargs="+", metavar="X", help="of the images, divided by")
    command.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1 … (default: %(default)s)")


def model_of(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
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


def at_least_one(text: str) -> int:
    """A whole number above zero, as an argument."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"at least 1 is needed, not {value}")
    return value
