"""What watching costs, beside the training."""

from __future__ import annotations

import time

# Exchange tests take about this share of a training's time at most, or so many seconds where that is more: a test of many forwards
# costs next to nothing beside an epoch of minutes, and half an epoch beside one of seconds.
EXTRAS_SHARE, EXTRAS_SECONDS = 0.03, 2.0


class Clock:
    """Counts the seconds that watching took since it was made: looks, and what is delivered of them meanwhile.

    Delivery runs beside the training, in threads; the processor time that it takes is counted as if the training had waited for
    it, as it does wherever all cores are busy.
    """

    def __init__(self) -> None:
        self.started = self.last_end = time.perf_counter()
        self.spent = 0.0
        self._charged = 0.0  # beside looks, since the last one
        self.expected: float | None = None
        self.expected_extras = self.spent_on_extras = self._forward = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self.started

    def affords(self, share: float, extras: bool = True) -> bool:
        """Would another look like the last leave the looks' share of the time at most this? ``extras``: with what of it can be
        left out."""
        if self.expected is None:
            return True
        seconds = self.expected + (self.expected_extras if extras else 0.0)
        return self.spent + seconds <= share * (self.elapsed + seconds)

    def affords_extras(self, forwards: int, last: bool = False) -> bool:
        """Would so many images more, by what the last ones took, stay within the share of what can be left out of a look?

        That of all looks together; of the last look by itself. Yes, while it is not known what they take: a run that is resumed
        goes on as one without a break.
        """
        seconds = forwards * self._forward
        before = 0.0 if last else self.spent_on_extras
        return before + seconds <= max(EXTRAS_SECONDS, EXTRAS_SHARE * (self.elapsed + seconds))

    def charge(self, seconds: float) -> None:
        """So much was taken beside the looks: drawing, writing, logging, waiting for loggers."""
        self._charged += seconds
        self.spent += seconds

    def spend(self, seconds: float, extras: float = 0.0, forwards: int = 0) -> float:
        """A look that ended now took so long, ``extras`` of it what can be left out, for so many ``forwards``; the share that it
        and all that was charged since the one before have of the time since then."""
        now = time.perf_counter()
        taken = seconds + self._charged
        share = taken / max(now - self.last_end, taken)
        self.last_end, self._charged = now, 0.0
        self.spent += seconds
        self.expected = taken - extras
        self.expected_extras = extras or self.expected_extras
        self.spent_on_extras += extras
        self._forward = extras / forwards if forwards else self._forward
        return share
