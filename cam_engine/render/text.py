"""Words that fit the room they have, in the scalable font that Pillow carries with it."""

from __future__ import annotations

import functools
import math
import unicodedata
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

SEPARATOR = " · "
_ELLIPSIS = "…"
_LONGEST = 4000  # characters; more can never be seen
_SPELLED_OUT = {"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d"}
_SPELLED_OUT |= {"→": "->", "←": "<-", "×": "x", "—": "-", "–": "-", "“": '"', "”": '"', "‘": "'", "’": "'", "−": "-"}


@functools.lru_cache(maxsize=64)
def font(size: int) -> Font:
    """Pillow's embedded font at ``size`` pixels."""
    return ImageFont.load_default(size=size)


@functools.lru_cache(maxsize=4096)
def shorten(text: str, face: Font, width: float) -> str:
    """One line of ``text`` that is at most ``width`` pixels wide, shortened with an ellipsis where it must be.

    The parts between " · " share the room, the longest giving way first, so that of
    "gradcam · a.very.long.layer · epoch 12" only the layer is shortened. A part loses its middle.
    """
    line = printable(text)
    if face.getlength(line) <= width:
        return line
    parts = line.split(SEPARATOR)
    room = width - face.getlength(SEPARATOR) * (len(parts) - 1)
    if room >= 24 * len(parts):
        shares = _share([face.getlength(part) for part in parts], room)
        shorter = SEPARATOR.join(_cut_middle(part, face, share) for part, share in zip(parts, shares, strict=True))
        if face.getlength(shorter) <= width:
            return shorter
    return _cut_middle(line, face, width)


@functools.lru_cache(maxsize=256)
def written(line: str, face: Font, height: int) -> Image.Image:
    """A line as a stamp, an "L" image to paste a colour through: ``height`` pixels high and as wide as the words, with a margin of
    a quarter of the height on every side for what reaches beyond.

    Rendering letters is the dearest part of a picture, and a look says the same of an image on several.
    """
    margin = height // 4
    stamp = Image.new("L", (math.ceil(face.getlength(line)) + 2 * margin, height + 2 * margin))
    ImageDraw.Draw(stamp).text((margin, margin + height / 2), line, font=face, fill=255, anchor="lm")
    return stamp


def wrap(text: str, face: Font, width: float, lines: int) -> list[str]:
    """``text`` on at most ``lines`` lines of at most ``width`` pixels; what is left over is shortened on the last one."""
    words = printable(text).split(" ")
    wrapped: list[str] = []
    while words and len(wrapped) < lines - 1:
        count = 1
        while count < len(words) and face.getlength(" ".join(words[: count + 1])) <= width:
            count += 1
        wrapped.append(shorten(" ".join(words[:count]).removesuffix(" ·"), face, width))
        words = words[count:]
        words = words[1:] if words[:1] == ["·"] else words
    return [*wrapped, shorten(" ".join(words), face, width)] if words else wrapped


def printable(text: str) -> str:
    """One line that the font can draw: white space becomes single spaces, accents that the font lacks are dropped,
    and any other character it lacks becomes "?"."""
    text = str(text)
    if len(text) > _LONGEST:
        text = text[: _LONGEST // 2] + text[-_LONGEST // 2 :]
    return " ".join("".join(_drawable(character) for character in " ".join(text.split())).split())


@functools.lru_cache(maxsize=4096)
def _drawable(character: str) -> str:
    if " " <= character <= "~":
        return character
    category = unicodedata.category(character)
    if category in ("Cs", "Co", "Cn"):
        return "?"
    if category in ("Cc", "Cf", "Mn", "Me"):
        return ""
    if _has_glyph(character):
        return character
    if character in _SPELLED_OUT:
        return _SPELLED_OUT[character]
    bases = [base for base in unicodedata.normalize("NFKD", character) if not unicodedata.combining(base)]
    return "".join(base if base.isascii() or _has_glyph(base) else "?" for base in bases) or "?"


def _has_glyph(character: str) -> bool:
    face = font(16)
    glyph, missing = face.getmask(character), face.getmask("\uffff")  # U+FFFF is in no font
    return (glyph.size, bytes(glyph)) != (missing.size, bytes(missing))


def _share(lengths: list[float], room: float) -> list[float]:
    """Divide ``room`` so that only the longest are cut, all to the same length."""
    shares = [0.0] * len(lengths)
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    for position, index in enumerate(order):
        shares[index] = min(lengths[index], room / (len(order) - position))
        room -= shares[index]
    return shares


def _cut_middle(text: str, face: Font, width: float) -> str:
    """The longest head + "…" + tail of ``text`` that is at most ``width`` pixels wide; "" if not even "…" is."""
    if face.getlength(text) <= width:
        return text
    low, high = -1, len(text) - 1
    while low < high:
        kept = (low + high + 1) // 2
        if face.getlength(_without_middle(text, kept)) <= width:
            low = kept
        else:
            high = kept - 1
    return _without_middle(text, low) if low >= 0 else ""


def _without_middle(text: str, kept: int) -> str:
    head = math.ceil(kept * 0.6)
    tail = kept - head
    return text[:head].rstrip() + _ELLIPSIS + (text[-tail:].lstrip() if tail else "")
