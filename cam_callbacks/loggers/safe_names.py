"""Names of images, layers and callbacks as loggers can make files of them: an image may be called ``../../x``."""

from __future__ import annotations

import hashlib
import re

_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_.-]+")
_LONGEST = 140  # MLflow makes one file name of a key, with a step, a time and a uuid in it


def safe_key(tag: str) -> str:
    """A key of pictures: parts that are safe names, and short enough for the file name that a logger makes of them all."""
    key = "/".join(map(safe_name, tag.split("/")))
    return key if len(key) <= _LONGEST else f"{key[:_LONGEST].rstrip('/.')}-{_digest(tag)}"


def safe_name(name: str) -> str:
    """A name that loggers accept as one part of a path: letters, digits, ``_``, ``.`` and ``-``.

    What has to be changed gets a digest behind it, so that different names stay different.
    """
    safe = _NOT_ALLOWED.sub("_", name).strip(".")
    return safe if safe == name and name else f"{safe}-{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
