"""Where this machine has delivered to. A folder that comes from elsewhere names places of its own: those are asked about first."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cam_callbacks.delivery.lock import alone
from cam_callbacks.mlflow_server import without_password
from cam_callbacks.records.files import write_atomically

log = logging.getLogger(__name__)

MOST = 1000  # places that are remembered


def place_of(address: Mapping[str, Any]) -> str | None:
    """What an address leads to: MLflow's tracking URI without its password, the folder of event files or of W&B's offline runs,
    W&B's project; None of others."""
    if isinstance(address.get("tracking_uri"), str):
        return without_password(address["tracking_uri"])
    if isinstance(address.get("log_dir"), str):
        return str(Path(address["log_dir"]).absolute())
    if address.get("kind") == "wandb":
        if address.get("offline"):
            return str(Path(str(address.get("dir"))).absolute())
        return f"wandb:{address.get('entity') or ''}/{address.get('project')}"
    return None


def remember(places: Iterable[str | None]) -> None:
    """A training of this machine, or somebody who was asked, sends records there."""
    known = _read()
    new = [place for place in dict.fromkeys(places) if place is not None and place not in known]
    if not new:
        return
    path = _file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with alone(path.with_suffix(".lock")):  # of two trainings that begin at once neither forgets the other's
            every = list(dict.fromkeys([*_read(), *new]))
            write_atomically(path, json.dumps(every[-MOST:], indent=1).encode(), private=True)
    except OSError as error:  # a home that cannot be written to: sync asks, or is told --tracking-uri
        log.debug("cam-callbacks: %s could not be written (%s)", path, error)


def is_known(place: str) -> bool:
    """Has this machine used it?"""
    return place in _read()


def _read() -> list[str]:
    try:
        return [str(place) for place in json.loads(_file().read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def _file() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "cam-callbacks" / "places.json"
