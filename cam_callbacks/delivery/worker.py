"""One sink's share of the work: every look to it, in order, once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from zlib import crc32

from cam_callbacks.delivery.background import Background
from cam_callbacks.delivery.ledger import Ledger
from cam_callbacks.delivery.lock import alone
from cam_callbacks.delivery.sink import Sink
from cam_callbacks.drawing import Drawing
from cam_callbacks.failures import one_line
from cam_callbacks.records import RecordError, RecordStore

log = logging.getLogger(__name__)


class Worker:
    """Delivers to one sink, in the background.

    Args:
        store: The run's records.
        sink: Where they go.
        drawing: Draws them.
        ledger: The store's.
    """

    def __init__(self, store: RecordStore, sink: Sink, drawing: Drawing, ledger: Ledger) -> None:
        self.store, self.sink, self.drawing, self.ledger = store, sink, drawing, ledger
        self._closing = False
        self._newest = -1  # look that was offered
        self.background = Background(f"cam-callbacks {sink.name}", self.deliver)
        self._refused: set[int] = set()
        self._warned = False

    def offer(self, newest: int) -> None:
        """Looks up to this one are complete. Returns at once."""
        self._newest = newest
        self.background.wake()

    def close(self) -> None:
        """All looks are complete, and the run's summary is due. Returns at once."""
        self._closing = True
        self.background.wake()

    def pending(self) -> list[int]:
        """Looks on disk that the sink has not taken yet."""
        return [n for n in self.store.looks if (self.sink.name, n) not in self.ledger and n not in self._refused]

    def deliver(self) -> None:
        """Deliver what waits, and raise at the first failure."""
        with alone(self.store.folder / f".{crc32(self.sink.name.encode()):08x}.lock"):
            self.ledger.read()
            self._deliver()

    def _deliver(self) -> None:
        closing = self._closing  # looks that come while others are delivered have a signal of their own
        newest = self._newest
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
