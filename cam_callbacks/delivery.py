"""From records on disk to loggers, in the background: each look to each logger, once.

The records are the queue. Each sink has a thread of its own, which reads them from disk, so that a training waits for no
logger and a slow logger holds up no other. What a sink took is written in a ledger beside the records, and where it goes in
a list of addresses: ``cam-callbacks sync FOLDER`` delivers later what is left.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from zlib import crc32

from cam_callbacks.background import Background, alone
from cam_callbacks.drawing import Drawing
from cam_callbacks.records import Record, RecordError, RecordStore
from cam_callbacks.records.files import write_atomically

log = logging.getLogger(__name__)

LEDGER = "delivered.json"
ADDRESSES = "addresses.json"
WAIT = 30.0  # seconds that the end of a training waits for its loggers


class Sink(Protocol):
    """Where a record's pictures and files go.

    ``name`` tells sinks of one run apart, also after a restart. ``address`` holds what :func:`cam_callbacks.sync.sync` needs
    to make the sink again, as plain values; None where that cannot be.
    """

    name: str
    address: dict[str, Any] | None

    def deliver(self, record: Record, drawing: Drawing) -> None:
        """Take one look's pictures and files; raise if that fails."""

    def finish(self, store: RecordStore, drawing: Drawing) -> None:
        """Take what sums up the whole run."""


class Ledger:
    """What every sink of one store has taken, on disk."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LEDGER
        self._lock = threading.Lock()
        self._looks, self._summaries = _read_ledger(self.path)

    def read(self) -> None:
        """Take in what others wrote since."""
        looks, summaries = _read_ledger(self.path)
        for sink, found in looks.items():
            self._looks[sink] = self._looks.get(sink, set()) | found
        self._summaries = {s: max(n, self._summaries.get(s, 0)) for s, n in (self._summaries | summaries).items()}

    def __contains__(self, sink_and_look: tuple[str, int]) -> bool:
        sink, look = sink_and_look
        return look in self._looks.get(sink, ())

    def add(self, sink: str, look: int) -> None:
        self._looks.setdefault(sink, set()).add(look)
        self._write()

    def summary(self, sink: str) -> int:
        """How many looks the summary covers that a sink took last."""
        return self._summaries.get(sink, 0)

    def add_summary(self, sink: str, looks: int) -> None:
        self._summaries[sink] = looks
        self._write()

    def forget_from(self, look: int) -> None:
        """This look and later ones are made again."""
        self._looks = {sink: {n for n in looks if n < look} for sink, looks in self._looks.items()}
        self._summaries = {}
        self._write(merge=False)

    def _write(self, merge: bool = True) -> None:
        with self._lock:
            if merge:
                self.read()
            looks = {sink: sorted(looks) for sink, looks in list(self._looks.items())}
            content = json.dumps({"looks": looks, "summaries": self._summaries})
            try:
                write_atomically(self.path, content.encode())
            except OSError as error:  # a full disk; a look may then be delivered again by a later run
                log.warning("cam-callbacks: %s could not be written (%s)", self.path, error)


class Delivery:
    """Delivers the looks of one store to its sinks, each in a thread of its own, in order.

    Args:
        store: The run's records.
        sinks: Where they go.
        max_images: How many probe images are drawn.
    """

    def __init__(self, store: RecordStore, sinks: Sequence[Sink], max_images: int = 16) -> None:
        self.store = store
        self.ledger = Ledger(store.folder)
        self._workers = [_Worker(store, sink, Drawing(store, max_images), self.ledger) for sink in sinks]
        _write_addresses(store.folder, sinks, max_images)

    def pending(self) -> dict[str, int]:
        """How many looks on disk each sink has not taken yet."""
        return {worker.sink.name: len(worker.pending()) for worker in self._workers}

    def offer(self) -> None:
        """The looks on disk are complete, as one that the trainer's numbers are yet to join is not. Returns at once."""
        newest = max(self.store.looks, default=-1)
        for worker in self._workers:
            worker.newest = newest
            worker.background.wake()

    def finish(self, wait: float = WAIT) -> bool:
        """Deliver what is left and a summary of the run, within ``wait`` seconds; say what is left then.

        Returns:
            Whether every sink has everything.
        """
        deadline = time.monotonic() + wait
        for worker in self._workers:
            worker.closing = True
            worker.background.wake()
        done = [worker.background.flush(max(0.0, deadline - time.monotonic())) for worker in self._workers]
        for worker in (worker for worker, is_done in zip(self._workers, done, strict=True) if not is_done):
            left = len(worker.pending())
            what = f"{left} of {len(self.store)} looks" if left else "the run's summary"
            error = worker.background.error
            log.warning(
                "cam-callbacks: %s did not get %s (%s). The records are safe; deliver them later with: "
                "cam-callbacks sync %s",
                worker.sink.name, what, f"not within {wait:g} s" if error is None else one_line(error), self.store.folder,
            )  # fmt: skip
        for worker in self._workers:
            worker.background.stop()
        return all(done)


class _Worker:
    """Delivers to one sink, in the background."""

    def __init__(self, store: RecordStore, sink: Sink, drawing: Drawing, ledger: Ledger) -> None:
        self.store, self.sink, self.drawing, self.ledger = store, sink, drawing, ledger
        self.closing = False
        self.newest = -1  # look that was offered
        self.background = Background(f"cam-callbacks {sink.name}", self._attempt)
        self._refused: set[int] = set()
        self._warned = False

    def pending(self) -> list[int]:
        return [n for n in self.store.looks if (self.sink.name, n) not in self.ledger and n not in self._refused]

    def _attempt(self) -> None:
        if self.store.folder.is_dir():
            with alone(self.store.folder / f".{crc32(self.sink.name.encode()):08x}.lock"):
                self.ledger.read()
                self._deliver()
        else:  # a disk so full that there is no folder
            self._deliver()

    def _deliver(self) -> None:
        closing = self.closing  # looks that come while others are delivered have a signal of their own
        newest = self.newest
        for look in (n for n in self.pending() if closing or n <= newest):
            with self._warning(f"could not take look {look}"):
                try:
                    record = self.store.read(look)
                except RecordError as error:  # damaged: later looks need not wait for it
                    self._refused.add(look)
                    log.warning("cam-callbacks: %s was not given look %d (%s)", self.sink.name, look, error)
                    continue
                self.sink.deliver(record, self.drawing)
            self.ledger.add(self.sink.name, look)
        looks = len(self.store)
        if closing and looks and self.ledger.summary(self.sink.name) != looks:
            with self._warning("could not take the run's summary"):
                self.sink.finish(self.store, self.drawing)
            self.ledger.add_summary(self.sink.name, looks)

    @contextmanager
    def _warning(self, what: str) -> Iterator[None]:
        """Warn of the first error of several."""
        try:
            yield
        except Exception as error:
            if not self._warned:
                log.warning(
                    "cam-callbacks: %s %s (%s). The records are safe in %s; it is offered again later.",
                    self.sink.name, what, one_line(error), self.store.folder,
                )  # fmt: skip
            self._warned = True
            raise
        self._warned = False


def one_line(error: Exception) -> str:
    """Kind and message of an error, for a line of log."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def addresses(folder: Path) -> list[dict[str, Any]]:
    """Where the records in a folder go, as :attr:`Sink.address` said."""
    try:
        found = json.loads((folder / ADDRESSES).read_text(encoding="utf-8"))
        return [address for address in found if isinstance(address, dict)]
    except (OSError, ValueError, TypeError):
        return []


def _write_addresses(folder: Path, sinks: Sequence[Sink], max_images: int) -> None:
    """Those of earlier sinks that still miss looks stay: a resumed run may log elsewhere."""
    new = [{"name": s.name, "max_images": max_images, **s.address} for s in sinks if s.address is not None]
    names = {address["name"] for address in new}
    old = [address for address in addresses(folder) if address.get("name") not in names]
    try:
        write_atomically(folder / ADDRESSES, json.dumps([*old, *new], indent=1).encode())
    except OSError as error:
        log.warning("cam-callbacks: %s could not be written (%s)", folder / ADDRESSES, error)


def _read_ledger(path: Path) -> tuple[dict[str, set[int]], dict[str, int]]:
    try:
        ledger: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        looks = {str(sink): set(map(int, looks)) for sink, looks in ledger["looks"].items()}
        return looks, {str(sink): int(n) for sink, n in ledger["summaries"].items()}
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return {}, {}
