"""Deliver what a training could not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cam_callbacks.delivery.addresses import ADDRESSES, read_addresses
from cam_callbacks.delivery.delivery import Delivery
from cam_callbacks.delivery.outbox import RUN, TRIES, HeldUpError, Outbox
from cam_callbacks.delivery.places import is_known, place_of, remember
from cam_callbacks.delivery.sink import Moved
from cam_callbacks.failures import one_line
from cam_callbacks.loggers.registry import sink_from_address
from cam_callbacks.records import RecordStore
from cam_callbacks.records.files import LARGEST_TEXT, read_file


@dataclass
class _Report:
    """A line for each place: what was delivered, and what is left."""

    delivered: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def sync(
    folder: str | os.PathLike[str],
    tracking_uri: str | None = None,
    wait: float = 3600.0,
    approve: Callable[[str], bool] = lambda place: False,
) -> list[str]:
    """Deliver everything that waits in a folder and below it, to where the training would have sent it.

    A folder may come from elsewhere. Links are not followed, event files are written below it or into the log folder that it is
    in, and a place that this machine has never delivered to is asked about before anything, a token above all, is sent there.

    Args:
        folder: Of records, of a queue (:class:`cam_callbacks.loggers.DurableMLFlowLogger`), or one above them.
        tracking_uri: MLflow's, where it has moved or needs a password: none is stored.
        wait: Seconds at most for each place.
        approve: Asked about each place, an address or a folder, that was never used from here; ``tracking_uri`` is approved.

    Returns:
        What was done, a line for each place.

    Raises:
        FileNotFoundError: Nothing there was made to be delivered.
        ConnectionError: Something is left; the message says how much and why.
    """
    folder = Path(folder)
    stores = sorted(path.parent for path in _files_below(folder, ADDRESSES))
    queues = sorted(path.parent for path in _files_below(folder, RUN) if _is_queue(path))
    elsewhere = {Path(a["queue"]) for store in stores for a in read_addresses(store) if isinstance(a.get("queue"), str)}
    if not stores and not queues:
        raise FileNotFoundError(f"nothing to deliver in {folder}: no records with loggers and no queue are there.")
    report = _Report()
    run_ids: dict[str, str] = {}  # by the id that a queue gave its run: its folder may have been moved since
    trusted = _Trust(folder, tracking_uri, approve)
    # The queue of a training's own logger lies beside its records, outside of this folder, and is gone by on this machine only.
    queues += [
        path
        for path in sorted(elsewhere)
        if trusted.is_used(path) and path.absolute() not in map(Path.absolute, queues)
    ]
    for path in queues:
        run = _sync_queue(path, tracking_uri, trusted, report)
        if run["run_id"] is not None:
            run_ids[run["id"]] = run["run_id"]
    for store in stores:
        for address in read_addresses(store):
            if trusted.allows(address, report, f"looks in {store}"):
                _sync_records(RecordStore(store), address, Moved(tracking_uri, run_ids), wait, report)
    if report.left:
        raise ConnectionError("not everything could be delivered: " + "; ".join([*report.left, *report.delivered]))
    return report.delivered


class _Trust:
    """Which places may be delivered to."""

    def __init__(self, folder: Path, tracking_uri: str | None, approve: Callable[[str], bool]) -> None:
        self.folder, self.tracking_uri, self.approve = folder.resolve(), tracking_uri, approve
        self._answers: dict[str, bool] = {}

    def allows(self, address: Mapping[str, Any], report: _Report, what: str) -> bool:
        """May what waits for this address be sent there? What may not is in the report."""
        place = place_of(address)
        if place is None or ("tracking_uri" in address and self.tracking_uri is not None) or self._is_near(address):
            return True
        if place not in self._answers:
            self._answers[place] = is_known(place) or self.approve(place)
            remember([place] if self._answers[place] else [])
        if not self._answers[place]:
            how = "--tracking-uri" if "tracking_uri" in address else "the command in a terminal, which asks"
            report.left.append(
                f"{what} for {place}, which was never used from this machine; to send it there use {how}"
            )
        return self._answers[place]

    def is_used(self, queue: Path) -> bool:
        """Is it a queue of this machine: not a link, and of a place that was used from here?"""
        try:
            run = json.loads(read_file(queue / RUN, LARGEST_TEXT))
        except (OSError, ValueError, RecursionError):
            return False
        place = place_of(run) if isinstance(run, dict) else None
        return place is not None and is_known(place)

    def _is_near(self, address: Mapping[str, Any]) -> bool:
        """Do event files go below the folder, or into the log folder that it stands in?"""
        if "tracking_uri" in address or not isinstance(address.get("log_dir"), str):
            return False
        target = Path(address["log_dir"]).resolve()
        return target.is_relative_to(self.folder) or target == self.folder.parent


def _sync_queue(path: Path, tracking_uri: str | None, trusted: _Trust, report: _Report) -> dict[str, Any]:
    """Deliver a queue's calls; its run, with MLflow's id where it has one by now."""
    queue = Outbox(path, tracking_uri=tracking_uri)
    waiting = len(queue.waiting())
    if not trusted.allows(queue.run, report, f"{waiting} calls in {path}"):
        return queue.run
    try:
        _deliver(queue)
    except Exception as error:
        report.left.append(f"{len(queue.waiting())} calls in {path} ({one_line(error)})")
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


def _files_below(folder: Path, name: str) -> list[Path]:
    """Regular files of that name; links lead anywhere."""
    found = [Path(parent) / name for parent, _, files in os.walk(folder) if name in files]
    return [path for path in found if not path.is_symlink() and path.is_file()]


def _is_queue(path: Path) -> bool:
    try:
        return "tracking_uri" in json.loads(read_file(path, LARGEST_TEXT))
    except (OSError, ValueError, TypeError, RecursionError):
        return False
