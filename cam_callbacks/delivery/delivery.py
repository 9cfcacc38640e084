"""From records on disk to loggers, in the background: each look to each logger, once.

The records are the queue. Each sink has a thread of its own, which reads them from disk, so that a training waits for no
logger and a slow logger holds up no other. What a sink took is written in a ledger beside the records, and where it goes in
a list of addresses: ``cam-callbacks sync FOLDER`` delivers later what is left.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from cam_callbacks.delivery.addresses import write_addresses
from cam_callbacks.delivery.budget import WAIT
from cam_callbacks.delivery.ledger import Ledger
from cam_callbacks.delivery.sink import Sink
from cam_callbacks.delivery.worker import Worker
from cam_callbacks.drawing import Drawing
from cam_callbacks.failures import one_line
from cam_callbacks.records import RecordStore

log = logging.getLogger(__name__)


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
        drawing = Drawing(store, max_images)
        self._workers = [Worker(store, sink, drawing, self.ledger) for sink in sinks]
        self._max_images = max_images
        self._is_addressed = write_addresses(store.folder, sinks, max_images)

    def pending(self) -> dict[str, int]:
        """How many looks on disk each sink has not taken yet."""
        return {worker.sink.name: len(worker.pending()) for worker in self._workers}

    @property
    def seconds(self) -> float:
        """Processor time that its threads have taken."""
        return sum(worker.background.seconds for worker in self._workers)

    def offer(self) -> None:
        """The looks on disk are complete, as one that the trainer's numbers are yet to join is not. Returns at once."""
        self._address()
        newest = max(self.store.looks, default=-1)
        for worker in self._workers:
            worker.offer(newest)

    def finish(self, wait: float = WAIT) -> bool:
        """Deliver what is left and a summary of the run, within ``wait`` seconds; say what is left then.

        Returns:
            Whether every sink has everything.
        """
        self._address()
        deadline = time.monotonic() + wait
        for worker in self._workers:
            worker.close()
        done = [worker.background.flush(max(0.0, deadline - time.monotonic())) for worker in self._workers]
        for worker in (worker for worker, is_done in zip(self._workers, done, strict=True) if not is_done):
            left = len(worker.pending())
            what = f"{left} of {len(self.store)} looks" if left else "the run's summary"
            error = worker.background.error
            log.warning(
                "cam-callbacks: %s did not get %s (%s). The records are safe; deliver them later with: "
                "cam-callbacks sync %s",
                worker.sink.name, what, f"not within {wait:.3g} s" if error is None else one_line(error), self.store.folder,
            )  # fmt: skip
        for worker in self._workers:
            worker.background.stop()
        return all(done)

    def _address(self) -> None:
        """Write down where the looks go, if the disk refused that before."""
        if not self._is_addressed:
            sinks = [worker.sink for worker in self._workers]
            self._is_addressed = write_addresses(self.store.folder, sinks, self._max_images)
