"""What looks cost, beside the training."""

from __future__ import annotations

import time


class Clock:
    """Counts the seconds that looks took since it was made."""

    def __init__(self) -> None:
        self.started = self.last_end = time.perf_counter()
        self.spent = 0.0
        self.expected: float | None = None

    def affords(self, share: float) -> bool:
        """Would another look like the last leave the looks' share of the time at most this?"""
        elapsed = time.perf_counter() - self.started
        return self.expected is None or self.spent + self.expected <= share * (elapsed + self.expected)

    def spend(self, seconds: float) -> float:
        """A look that ended now took so long; its share of the time since the one before."""
        now = time.perf_counter()
        share = seconds / max(now - self.last_end, seconds)
        self.last_end = now
        self.spent += seconds
        self.expected = seconds
        return share
