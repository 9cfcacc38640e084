"""Where a run's records go, on disk: what a later process needs to deliver them."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cam_callbacks.delivery.places import place_of, remember
from cam_callbacks.delivery.sink import Sink
from cam_callbacks.records.files import LARGEST_TEXT, read_file, write_atomically

log = logging.getLogger(__name__)

ADDRESSES = "addresses.json"


def read_addresses(folder: Path) -> list[dict[str, Any]]:
    """Where the records in a folder go, as :attr:`Sink.address` said."""
    try:
        listed = json.loads(read_file(folder / ADDRESSES, LARGEST_TEXT))
        return [address for address in listed if isinstance(address, dict)]
    except (OSError, ValueError, TypeError, RecursionError):
        return []


def write_addresses(folder: Path, sinks: Sequence[Sink], max_images: int) -> bool:
    """Those of earlier sinks that still miss looks stay: a resumed run may log elsewhere. Are they on disk?"""
    new = [{"name": s.name, "max_images": max_images, **s.address} for s in sinks if s.address is not None]
    remember(map(place_of, new))
    names = {address["name"] for address in new}
    old = [address for address in read_addresses(folder) if address.get("name") not in names]
    try:
        write_atomically(folder / ADDRESSES, json.dumps([*old, *new], indent=1).encode(), private=True)
    except OSError as error:
        log.warning("cam-callbacks: %s could not be written (%s)", folder / ADDRESSES, error)
        return False
    return True
