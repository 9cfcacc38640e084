"""Errors that several modules raise."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UnknownNameError(KeyError):
    """A name that is not there. A ``KeyError`` whose message reads as written, without the quotes that ``KeyError`` adds."""

    def __str__(self) -> str:
        return str(self.args[0])


def nearest(name: str, names: Iterable[str], *, most: int = 5) -> str:
    """The names closest to ``name``, comma-separated; those that share its last dotted part count as near."""
    names = list(names)
    near = difflib.get_close_matches(name, names, n=most, cutoff=0.4)
    near += [n for n in names if name.rsplit(".", 1)[-1] in n.split(".") and n not in near]
    return ", ".join((near or names[-most:])[:most])


@contextmanager
def renamed(inner: str, outer: str) -> Iterator[None]:
    """Errors inside that speak of an argument by its ``inner`` name, such as ``"targets="``, say the one that the caller has.

    Raises:
        TypeError, ValueError: As inside.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError) or inner not in str(error):
            raise
        raise type(error)(str(error).replace(inner, outer)) from error
