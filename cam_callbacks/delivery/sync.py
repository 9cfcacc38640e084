"""Deliver what a training could not."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cam_callbacks.delivery.addresses import ADDRESSES, read_addresses
from cam_callbacks.delivery.delivery import Delivery
from cam_callbacks.delivery.outbox import RUN, TRIES, HeldUpError, Outbox
from cam_callbacks.delivery.sink import Moved
from cam_callbacks.failures import one_line
from cam_callbacks.loggers.registry import sink_from_address
from cam_callbacks.records import RecordStore


@dataclass
class _Report:
    """A line for each place: what was delivered, and what is left."""

    delivered: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


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
    queues |= {Path(a["queue"]) for store in stores for a in read_addresses(store) if a.get("queue")}
    if not stores and not queues:
        raise FileNotFoundError(f"nothing to deliver in {folder}: no records with loggers and no queue are there.")
    report = _Report()
    run_ids: dict[str, str] = {}  # by the id that a queue gave its run: its folder may have been moved since
    for path in sorted(path for path in queues if (path / RUN).is_file()):
        run = _sync_queue(path, tracking_uri, report)
        if run["run_id"] is not None:
            run_ids[run["id"]] = run["run_id"]
    for store in stores:
        for address in read_addresses(store):
            _sync_records(RecordStore(store), address, Moved(tracking_uri, run_ids), wait, report)
    if report.left:
        raise ConnectionError("not everything could be delivered: " + "; ".join([*report.left, *report.delivered]))
    return report.delivered


def _sync_queue(path: Path, tracking_uri: str | None, report: _Report) -> dict[str, Any]:
    """Deliver a queue's calls; its run, with MLflow's id where it has one by now."""
    queue = Outbox(path, tracking_uri=tracking_uri)
    waiting = len(queue.waiting())
    try:
        _deliver(queue)
    except Exception as error:
        report.left.append(f"{len(queue.waiting())} calls in {path} ({error})")
    else:
        report.delivered.append(f"{path}: {waiting} calls delivered to MLflow run {queue.run['run_id']}")
    if refused := queue.refused():
        report.delivered.append(f"{path}: MLflow refused, and {path} keeps, " + "; ".join(refused))
    return queue.run


def _deliver(queue: Outbox) -> None:
    """What the server does not take at once is tried as often as in a training."""
    for _ in range(TRIES - 1):
        try:
            return queue.deliver()
        except HeldUpError:
            pass
    queue.deliver()


def _sync_records(store: RecordStore, address: Mapping[str, Any], moved: Moved, wait: float, report: _Report) -> None:
    """Deliver a folder's looks to one of its addresses."""
    try:
        sink, max_images = sink_from_address(address, moved), int(address.get("max_images", 16))
    except Exception as error:  # an address that cannot be used any more costs the others nothing
        report.left.append(f"looks in {store.folder} for {address.get('name')} ({one_line(error)})")
        return
    delivery = Delivery(store, [sink], max_images)
    waiting = sum(delivery.pending().values())
    if delivery.finish(wait):
        report.delivered.append(f"{store.folder}: {waiting} looks delivered to {sink.name}")
    else:
        report.left.append(f"{sum(delivery.pending().values())} looks in {store.folder} for {sink.name}")


def _is_queue(path: Path) -> bool:
    try:
        return "tracking_uri" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False
