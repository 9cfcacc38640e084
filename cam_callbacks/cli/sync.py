"""``cam-callbacks sync``: deliver what is left."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


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

    print("\n".join(sync(args.folder, args.tracking_uri)))
    return 0
