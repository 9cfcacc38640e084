"""Errors of ours stay ours: a warning instead of an end to the training."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from cam_callbacks.text_table import printable, without_password

REST_AFTER = 3  # failed looks in a row


class Failures:
    """Turns errors into warnings, counts the looks that failed, and knows when to give up.

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

    @property
    def resting(self) -> bool:
        """Have so many looks failed one after the other that another try is pointless?"""
        return self.in_a_row >= REST_AFTER

    @contextmanager
    def guarded(self, what: str, look: bool = False) -> Iterator[None]:
        """Warn of an error inside; ``look``: what is inside is a whole look, to be counted where it fails."""
        try:
            yield
        except Exception as error:
            rests = ""
            if look:
                self.looks += 1
                self.in_a_row += 1
                rests = f" It was the {REST_AFTER}rd in a row: no more looks in this training." if self.resting else ""
            if self.on_error == "raise":
                raise
            message = (
                f"{self.who}: {what}; training goes on.{rests} {type(error).__name__}: {without_password(str(error))}"
            )
            warnings.warn(message, stacklevel=4)
        else:
            self.in_a_row = 0 if look else self.in_a_row


def one_line(error: Exception) -> str:
    """Kind and message of an error, for a line of log."""
    return f"{type(error).__name__}: {printable(str(error))[:300]}"
