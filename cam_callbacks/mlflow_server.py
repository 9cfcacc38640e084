"""An MLflow server, before its client is asked: does it answer, and what of its address may be written down?"""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass


def check_reachable(tracking_uri: str, seconds: float = 2.0) -> None:
    """MLflow's client tries for minutes where its server is down; this finds out at once.

    Raises:
        ConnectionError: Nobody listens there. Addresses that are not HTTP, and those behind a proxy, are taken to be reachable.
    """
    url = urlsplit(tracking_uri)
    if url.scheme not in ("http", "https") or url.hostname is None:
        return
    if url.scheme in getproxies() and not proxy_bypass(url.hostname):
        return
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((url.hostname, port), timeout=seconds).close()
    except OSError as error:
        raise ConnectionError(f"no MLflow server answers at {url.hostname}:{port} ({error})") from error


def check_run(client: Any, run_id: str) -> None:
    """Is what answers there the server that has the run? A portal or proxy that says ``{}`` to everything would swallow all.

    Raises:
        ConnectionError: It is not. And what the client raises, where none answers. Addresses that are not HTTP are taken to be
            right.
    """
    if not client.tracking_uri.startswith("http"):
        return
    _forget_working_folder(run_id)
    found = client.get_run(run_id).info.run_id
    if not run_id or found != run_id:
        raise ConnectionError(f"what answers at {without_password(client.tracking_uri)} has no run {run_id!r}")


def check_sent(client: Any, run_id: str) -> None:
    """Has that server taken what was just sent to it? Of a portal's ``{}`` MLflow's client remembers, for as long as this process
    lives, that the run's files belong into the working folder; then they are there.

    Raises:
        ConnectionError: It has not; else as :func:`check_run`.
    """
    was_led_astray = _forget_working_folder(run_id)
    check_run(client, run_id)
    if was_led_astray:
        raise ConnectionError(
            f"what answered at {without_password(client.tracking_uri)} did not say where files belong"
        )


def without_password(uri: str) -> str:
    """The address without what stands before ``@``: it is written to disk."""
    url = urlsplit(uri)
    if "@" not in url.netloc or not url.hostname:
        return uri
    return urlunsplit(url._replace(netloc=url.netloc.rpartition("@")[2]))


def _forget_working_folder(run_id: str) -> bool:
    """Did MLflow's client take the working folder for the place of a run's files? No longer now."""
    from mlflow.tracking._tracking_service import utils

    places = getattr(utils, "_artifact_repos_cache", {})
    place = places.get(run_id)
    if place is None or place.artifact_uri:
        return False
    del places[run_id]
    return True
