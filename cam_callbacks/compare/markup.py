"""Text and data inside HTML, so that no name can become code."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

from cam_callbacks.records.files import to_json
from cam_callbacks.text_table import printable

_PLACE = re.compile(r"\{\{(\w+)\}\}")


def escape(text: Any) -> str:
    """Text for an element or a quoted attribute."""
    return html.escape(printable(str(text)), quote=True)


def json_block(data: Any) -> str:
    """JSON for a ``<script type="application/json">``; nothing in it can end the element or open a comment."""
    text = to_json(data, separators=(",", ":"))  # ASCII only; what is undefined is null
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def asset(name: str) -> str:
    """A file of the built viewer, as text."""
    return resources.files("cam_callbacks.compare").joinpath("assets", name).read_text(encoding="utf-8")


def content_hash(text: str) -> str:
    """What a content security policy calls an inline script or style by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def fill(template: str, values: Mapping[str, str]) -> str:
    """Put values in the ``{{places}}`` of a template, in one pass: what a value contains is never a place.

    Raises:
        KeyError: A place without a value.
    """
    return _PLACE.sub(lambda match: values[match[1]], template)
