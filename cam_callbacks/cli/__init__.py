"""The command ``cam-callbacks``: a file for each subcommand, which imports what it needs when it runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from cam_callbacks import __version__
from cam_callbacks.cli.annotate import add_annotate
from cam_callbacks.cli.arguments import CommandError
from cam_callbacks.cli.calibrate import add_calibrate
from cam_callbacks.cli.demo import add_demo
from cam_callbacks.cli.doctor import add_doctor
from cam_callbacks.cli.explain import add_explain
from cam_callbacks.cli.layers import add_layers
from cam_callbacks.cli.replay import add_replay
from cam_callbacks.cli.sanity import add_sanity
from cam_callbacks.cli.sync import add_sync
from cam_callbacks.compare.command import CompareCommandError, add_compare, add_report
from cam_callbacks.records import RecordError
from cam_callbacks.text_table import printable


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
        code = command(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever reads this has seen enough, as in "| head"
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # or Python would complain when it flushes at its end
        return 141  # as a shell says of any command that a closed pipe ended
    except (CommandError, CompareCommandError, RecordError, OSError) as error:
        print(f"cam-callbacks: {printable(str(error))}", file=sys.stderr)
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
    top.add_argument("--version", action="version", version=f"cam-callbacks {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_demo(commands)
    add_compare(commands)
    add_report(commands)
    add_calibrate(commands)
    add_annotate(commands)
    add_explain(commands)
    add_layers(commands)
    add_sanity(commands)
    add_replay(commands)
    add_sync(commands)
    add_doctor(commands)
    return top
