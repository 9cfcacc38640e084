"""The command ``cam-callbacks``: for each subcommand one function that runs it, and imports what it needs itself."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cam_callbacks.records import RecordError


class CommandError(Exception):
    """Something the user can put right; said in one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 2 for a mistake in its use, or 130 when interrupted."""
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
    except (CommandError, RecordError, OSError) as error:
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
    _add_compare(commands)
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


def _add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    compare = commands.add_parser(
        "compare",
        help="runs side by side: a table here and one self-contained HTML page",
        description="Compare what runs look at. Prints a table of final and best values and writes one HTML page with "
        "the curves and the film strips. The first run is the one that the others are compared with.",
        epilog="examples:\n"
        "  cam-callbacks compare lightning_logs/version_0 lightning_logs/version_1\n"
        "  cam-callbacks compare --tracking-uri sqlite:///mlflow.db 4f0c…e1 9b1d…07 -o page.html",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="a folder of records, a folder above one (a TensorBoard log folder), or an MLflow run id",
    )
    compare.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("cam_compare.html"),
        metavar="PAGE",
        help="the page (default: %(default)s)",
    )
    compare.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow's, such as sqlite:///mlflow.db (default: MLflow's own)"
    )
    compare.set_defaults(command=run_compare)


def run_compare(args: argparse.Namespace) -> int:
    """``cam-callbacks compare``."""
    from cam_callbacks.compare import LoadError, compare_runs

    if args.output.is_dir():
        raise CommandError(f"{str(args.output)!r} is a folder; -o takes the file to write.")
    try:
        comparison = compare_runs(*args.runs, tracking_uri=args.tracking_uri)
    except LoadError as error:
        raise CommandError(str(error)) from error
    print(comparison.text())
    print(f"\npage: {comparison.write(args.output).resolve()}")
    return 0


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
