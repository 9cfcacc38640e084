"""What looks cost, beside the training."""

from __future__ import annotations

import time


class Clock:
    """Counts the seconds that looks took since it was made."""

    def __init__(self) -> None:
        self.started = self.last_end = time.perf_counter()
        self.spent = 0.0
        self.expected: float | None = None
        self.expected_extras = 0.0

    def affords(self, share: float, extras: bool = True) -> bool:
        """Would another look like the last leave the looks' share of the time at most this? ``extras``: with what of it can be
        left out."""
        if self.expected is None:
            return True
        elapsed = time.perf_counter() - self.started
        seconds = self.expected + (self.expected_extras if extras else 0.0)
        return self.spent + seconds <= share * (elapsed + seconds)

    def spend(self, seconds: float, extras: float = 0.0) -> float:
        """A look that ended now took so long, ``extras`` of it what can be left out; its share of the time since the one before."""
        now = time.perf_counter()
        share = seconds / max(now - self.last_end, seconds)
        self.last_end = now
        self.spent += seconds
        self.expected = seconds - extras
        self.expected_extras = extras or self.expected_extras
        return share
