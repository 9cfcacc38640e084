"""From records on disk to loggers: each look to each logger, once.

A look that a logger could not take stays queued and is offered again with the next look and at the end. What was
delivered is written in a ledger beside the records, so that a resumed run repeats nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Protocol

from cam_callbacks.drawing import Drawing
from cam_callbacks.records import Record, RecordError, RecordStore, write_atomically

log = logging.getLogger(__name__)

LEDGER = "delivered.json"


class Sink(Protocol):
    """Where a record's pictures and files go. ``name`` tells sinks of one run apart, also after a restart."""

    name: str

    def deliver(self, record: Record, drawing: Drawing) -> None:
        """Take one look's pictures and files; raise if that fails."""

    def finish(self, store: RecordStore, drawing: Drawing) -> None:
        """Take what sums up the whole run."""


class Delivery:
    """Delivers the looks of one store to its sinks, in order."""

    def __init__(self, store: RecordStore, sinks: Sequence[Sink], max_images: int = 16) -> None:
        self.store = store
        self.sinks = list(sinks)
        self.drawing = Drawing(store, max_images)
        self._delivered = self._read_ledger()
        self._warned: set[str] = set()

    def pending(self, sink: Sink) -> list[int]:
        """Looks on disk that a sink has not taken yet."""
        done = self._delivered.get(sink.name, set())
        return [look for look in self.store.looks if look not in done]

    def drain(self) -> None:
        """Offer every sink what it has not taken yet. A failure is a warning, and the look stays queued."""
        for sink in self.sinks:
            for look in self.pending(sink):
                try:
                    sink.deliver(self.store.read(look), self.drawing)
                except RecordError as error:  # damaged: later looks need not wait for it
                    self._warn(sink, f"was not given look {look}", error)
                    continue
                except Exception as error:
                    self._warn(sink, f"could not take look {look}", error)
                    break
                self._delivered.setdefault(sink.name, set()).add(look)
                self._write_ledger()

    def finish(self) -> None:
        """Drain, then let every sink take its summary of the run."""
        self.drain()
        for sink in self.sinks:
            try:
                sink.finish(self.store, self.drawing)
            except Exception as error:
                self._warn(sink, "could not take the run's summary", error)

    def _warn(self, sink: Sink, what: str, error: Exception) -> None:
        if sink.name not in self._warned:
            self._warned.add(sink.name)
            log.warning(
                "cam-callbacks: %s %s (%s: %s). The records are safe in %s; it is offered again later.",
                sink.name, what, type(error).__name__, error, self.store.folder,
            )  # fmt: skip

    def _read_ledger(self) -> dict[str, set[int]]:
        try:
            ledger = json.loads((self.store.folder / LEDGER).read_text(encoding="utf-8"))
            return {str(name): set(map(int, looks)) for name, looks in ledger.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}

    def _write_ledger(self) -> None:
        ledger = {name: sorted(looks) for name, looks in self._delivered.items()}
        write_atomically(self.store.folder / LEDGER, json.dumps(ledger).encode())
