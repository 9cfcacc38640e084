"""``cam-callbacks sync``: deliver what is left."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from cam_callbacks.text_table import printable


def add_sync(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command and its arguments."""
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
    # Here somebody waits for an answer: minutes of silent retries, MLflow's default, would look like a hang.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    from cam_callbacks.delivery.sync import sync

    print("\n".join(sync(args.folder, args.tracking_uri, approve=_ask)))
    return 0


def _ask(place: str) -> bool:
    """Ask whoever sits at the terminal; without one it is no."""
    if not sys.stdin.isatty():
        return False
    shown = printable(place)
    answer = input(f"{shown} was never used from this machine. Send the records, and your token for it, there? [y/N] ")
    return answer.strip().lower() in ("y", "yes")
