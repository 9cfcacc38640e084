"""What was delivered, on disk: each look to each logger, once."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cam_callbacks.records.files import LARGEST_TEXT, read_file, write_atomically

log = logging.getLogger(__name__)

LEDGER = "delivered.json"


class Ledger:
    """What every sink of one store has taken, on disk."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LEDGER
        self._lock = threading.Lock()
        self._looks, self._summaries = _read_ledger(self.path)

    def read(self) -> None:
        """Take in what others wrote since."""
        looks, summaries = _read_ledger(self.path)
        for sink, delivered in looks.items():
            self._looks[sink] = self._looks.get(sink, set()) | delivered
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


def _read_ledger(path: Path) -> tuple[dict[str, set[int]], dict[str, int]]:
    try:
        ledger: Mapping[str, Any] = json.loads(read_file(path, LARGEST_TEXT))
        looks = {str(sink): set(map(int, looks)) for sink, looks in ledger["looks"].items()}
        return looks, {str(sink): int(n) for sink, n in ledger["summaries"].items()}
    except (OSError, ValueError, AttributeError, TypeError, KeyError, OverflowError, RecursionError):
        return {}, {}
