"""Text and data inside HTML, so that no name can become code."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

from cam_callbacks.compare.load import printable

_PLACE = re.compile(r"\{\{(\w+)\}\}")


def escape(text: Any) -> str:
    """Text for an element or a quoted attribute."""
    return html.escape(printable(str(text)), quote=True)


def name_of(text: Any, longest: int = 80) -> str:
    """A user's name for something, as an element: shortened in its middle, whole in its tooltip."""
    whole = printable(str(text))
    if len(whole) <= longest:
        return f"<bdi>{escape(whole)}</bdi>"
    half = (longest - 1) // 2
    return f'<bdi title="{escape(whole)}">{escape(whole[:half])}…{escape(whole[-half:])}</bdi>'


def json_block(data: Any) -> str:
    """JSON for a ``<script type="application/json">``; nothing in it can end the element or open a comment."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))  # ASCII only
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def data_uri(data: bytes, kind: str) -> str:
    """Bytes as a ``data:`` address."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def asset(name: str) -> str:
    """A file beside this module, as text."""
    return resources.files("cam_callbacks.compare").joinpath(name).read_text(encoding="utf-8")


def content_hash(text: str) -> str:
    """What a content security policy calls an inline script or style by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def fill(template: str, values: Mapping[str, str]) -> str:
    """Put values in the ``{{places}}`` of a template, in one pass: what a value contains is never a place.

    Raises:
        KeyError: A place without a value.
    """
    return _PLACE.sub(lambda match: values[match[1]], template)
