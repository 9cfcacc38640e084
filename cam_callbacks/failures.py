"""Errors of ours stay ours: a warning instead of an end to the training."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from cam_callbacks import processes
from cam_callbacks.text_table import printable, without_password

REST_AFTER = 3  # failed looks in a row
_VARIES = re.compile(
    r"0x[0-9a-f]+|\d+"
)  # in the message of a cause that comes again: addresses, bytes, an image's number


class Failures:
    """Turns errors into warnings, one a cause, counts the looks that failed, and knows when to give up.

    Args:
        who: Stands at the start of every warning.
        on_error: ``"warn"``, or ``"raise"`` to let errors through.
    """

    def __init__(self, who: str, on_error: str) -> None:
        if on_error not in ("warn", "raise"):
            raise ValueError(f'on_error= takes "warn" or "raise", not {on_error!r}.')
        self.who = who
        self.on_error = on_error
        self.looks = 0
        self.in_a_row = 0
        self._told: set[str] = set()

    @property
    def resting(self) -> bool:
        """Have so many looks failed one after the other that another try is pointless?"""
        return self.in_a_row >= REST_AFTER

    def start_anew(self) -> None:
        """A training starts: what failed before it is no reason to rest, and told again where it fails again."""
        self.in_a_row = 0
        self._told.clear()

    @contextmanager
    def guarded(self, what: str, look: bool = False, setup: bool = False) -> Iterator[None]:
        """Warn of an error inside.

        Args:
            what: What it cost.
            look: What is inside is a whole look, to be counted where it fails.
            setup: It is what each look will try again.
        """
        try:
            yield
        except Exception as error:
            if look:
                self.looks += 1
                self.in_a_row = REST_AFTER if isinstance(error, processes.CollectiveError) else self.in_a_row + 1
            if self.on_error == "raise":
                raise
            last = f" After {REST_AFTER} failed looks in a row there are no more in this training."
            self._tell(f"{what}; training goes on.{last if look or setup else ''}", error)
        else:
            self.in_a_row = 0 if look else self.in_a_row

    def _tell(self, what: str, error: Exception) -> None:
        """Warn, if nobody was told of the cause: it comes again at every look, by several ways, and on every process."""
        known = isinstance(error, processes.LookError) and isinstance(error.__cause__, Exception)
        cause = error.__cause__ if known else error
        kind = f"{type(cause).__name__}: {_VARIES.sub('#', str(cause))}"
        if kind in self._told or processes.rank() != 0:
            return
        self._told.add(kind)
        warnings.warn(f"{self.who}: {what} {type(cause).__name__}: {without_password(str(cause))}", stacklevel=5)


def one_line(error: Exception) -> str:
    """Kind and message of an error, for a line of log."""
    return f"{type(error).__name__}: {printable(str(error))[:300]}"
