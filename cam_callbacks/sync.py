"""Deliver what a training could not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from cam_callbacks.delivery import ADDRESSES, Delivery, Sink, addresses
from cam_callbacks.outbox import RUN, Outbox
from cam_callbacks.records import RecordStore


def sync(folder: str | os.PathLike[str], tracking_uri: str | None = None, wait: float = 3600.0) -> list[str]:
    """Deliver everything that waits in a folder and below it, to where the training would have sent it.

    Args:
        folder: Of records, of a queue (:class:`cam_callbacks.loggers.DurableMLFlowLogger`), or one above them.
        tracking_uri: MLflow's, where it has moved or needs a password: none is stored.
        wait: Seconds at most for each place.

    Returns:
        What was done, a line for each place.

    Raises:
        FileNotFoundError: Nothing there was made to be delivered.
        ConnectionError: Something is left; the message says how much and why.
    """
    folder = Path(folder)
    stores = sorted(path.parent for path in folder.rglob(ADDRESSES))
    queues = {path.parent.absolute() for path in folder.rglob(RUN) if _is_queue(path)}
    queues |= {Path(a["queue"]) for store in stores for a in addresses(store) if a.get("queue")}
    if not stores and not queues:
        raise FileNotFoundError(f"nothing to deliver in {folder}: no records with loggers and no queue are there.")
    said, left = [], []
    runs: dict[str, dict[str, Any]] = {}
    for path in sorted(path for path in queues if (path / RUN).is_file()):
        queue = Outbox(path, tracking_uri=tracking_uri)
        waiting = len(queue.waiting())
        try:
            queue.deliver()
        except Exception as error:
            left.append(f"{len(queue.waiting())} calls in {path} ({error})")
        else:
            said.append(f"{path}: {waiting} calls delivered to MLflow run {queue.run['run_id']}")
        runs[queue.run["id"]] = queue.run
    for store in stores:
        said_here, left_here = _sync_records(store, tracking_uri, wait, runs)
        said += said_here
        left += left_here
    if left:
        raise ConnectionError("not everything could be delivered: " + "; ".join([*left, *said]))
    return said


def _sync_records(
    folder: Path, tracking_uri: str | None, wait: float, runs: dict[str, dict[str, Any]]
) -> tuple[list[str], list[str]]:
    """What was delivered of one folder of records, and what was not."""
    store, said, left = RecordStore(folder), [], []
    for address in addresses(folder):
        delivery = Delivery(store, [_sink(address, tracking_uri, runs)], int(address.get("max_images", 16)))
        waiting = sum(delivery.pending().values())
        if delivery.finish(wait):
            said.append(f"{folder}: {waiting} looks delivered to {address['name']}")
        else:
            left.append(f"{sum(delivery.pending().values())} looks in {folder} for {address['name']}")
    return said, left


def _sink(address: dict[str, Any], tracking_uri: str | None, runs: dict[str, dict[str, Any]]) -> Sink:
    every = int(address.get("every_n_looks", 1))
    sink: Sink
    if address.get("kind") == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter

        from cam_callbacks.loggers.tensorboard import TensorBoardSink

        sink = TensorBoardSink(SummaryWriter(address["log_dir"]), every, address["name"])
    else:
        from mlflow.tracking import MlflowClient

        from cam_callbacks.loggers.mlflow import MLflowSink

        run = runs.get(address["run_id"], {})  # by id: a folder may have been moved since
        client = MlflowClient(tracking_uri or address["tracking_uri"])
        sink = MLflowSink(client, run.get("run_id") or address["run_id"], every)
    # Under the name and the address that the training gave it, so that ledger and addresses stay as they are.
    sink.name, sink.address = address["name"], {k: v for k, v in address.items() if k not in ("name", "max_images")}
    return sink


def _is_queue(path: Path) -> bool:
    try:
        return "tracking_uri" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False
