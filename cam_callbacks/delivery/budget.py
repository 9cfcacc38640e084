"""How long the end of a training waits: one budget for all who wait at it, one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

WAIT = 30.0  # seconds that the end of a training waits for its loggers
WAIT_AFTER_ERROR = 3.0  # at an exception or an interrupt: a checkpoint may be due after us


class Budget:
    """Seconds that were waited since the training last went on."""

    def __init__(self) -> None:
        self.spent = 0.0

    def goes_on(self) -> None:
        """The training goes on, or another one starts: its end has the whole budget."""
        self.spent = 0.0

    @contextmanager
    def within(self, seconds: float) -> Iterator[float]:
        """How many of so many seconds are left; what is waited inside is counted."""
        started = time.monotonic()
        try:
            yield max(0.0, seconds - self.spent)
        finally:
            self.spent += time.monotonic() - started


END = Budget()
