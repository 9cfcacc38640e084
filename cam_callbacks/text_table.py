"""Text for a terminal: on one line, on so many columns, in a table."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_SECRET = re.compile(r"(?<=://)[^/?#\s]+@")


def printable(text: str) -> str:
    """Text on one line. Control characters, lone surrogates and marks that turn the direction of writing around are shown as
    escapes: they would steer a terminal, or make a name look like another. What stands before the ``@`` of an address, which is a
    password, is left out."""
    text = without_password(text)
    kept = (
        _escaped(c) if unicodedata.category(c) in ("Cc", "Cs") or c in _DIRECTION else c for c in " ".join(text.split())
    )
    return "".join(kept).strip()


def without_password(text: str) -> str:
    """The text, with "…" for what stands before the ``@`` of every address in it."""
    return _SECRET.sub("…@", text)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def table(rows: Sequence[Sequence[str]], align: str = "<", gap: int = 2) -> list[str]:
    """A line for each row, every column as wide as its widest cell, with ``gap`` spaces between; ``align`` as in :func:`line`."""
    widths = [max(map(columns, cells)) + gap for cells in zip(*rows, strict=True)]
    return [line(row, widths, align) for row in rows]


def line(cells: Sequence[str], widths: Sequence[int], align: str = "<") -> str:
    """Cells side by side, each on as many terminal columns as its width, and cut to it.

    ``align`` has "<" (left) or ">" (right) for each cell; its last one goes for the rest.
    """
    places = align.ljust(len(cells), align[-1])
    return "".join(fit(c, w, p == ">") for c, w, p in zip(cells, widths, places, strict=True)).rstrip()


def fit(text: str, width: int, right: bool = False) -> str:
    """Text on exactly ``width`` terminal columns."""
    short = shorten(text, width)
    space = " " * (width - columns(short))
    return space + short if right else short + space


def shorten(text: str, width: int) -> str:
    """Text on at most ``width`` terminal columns, with "…" at the end where some is left out."""
    if columns(text) <= width:
        return text
    while text and columns(text) > width - 1:
        text = text[:-1]
    return f"{text}…"


def columns(text: str) -> int:
    """Columns that a terminal takes: two for wide characters and emoji, none for marks that combine."""
    return sum(
        0 if unicodedata.combining(c) or unicodedata.category(c) in ("Cf", "Mn") else 2 if _is_wide(c) else 1
        for c in text
    )


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in ("W", "F")
