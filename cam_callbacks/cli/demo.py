"""``cam-callbacks demo``: two short trainings, logged and compared."""

from __future__ import annotations

import argparse
from pathlib import Path

from cam_callbacks.cli.arguments import CommandError, at_least_one


def add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command and its arguments."""
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
        "--epochs", type=at_least_one, default=16, metavar="N", help="of each training (default: %(default)s)"
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
