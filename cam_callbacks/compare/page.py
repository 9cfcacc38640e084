"""The viewer around its data: one HTML file that fetches nothing, or a page that asks its own server for the data.

The viewer's sources are in ``viewer/``; ``make viewer`` builds them into ``assets/``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cam_callbacks.compare.data import page_data
from cam_callbacks.compare.markup import asset, content_hash, escape, fill, json_block
from cam_callbacks.compare.run import Run
from cam_callbacks.records.files import write_atomically


def render_page(
    data: Mapping[str, Any] | None,
    *,
    data_src: str | None = None,
    refresh: float | None = None,
    title: str | None = None,
) -> str:
    """The viewer as a page.

    Everything is inline, and the page's own content security policy forbids the rest, so that it works from a disk, as an
    MLflow artifact and in a frame. There is one script, the same in every page; data stand in an element that is no script.

    Args:
        data: What :func:`~cam_callbacks.compare.data.page_data` returns.
        data_src: Instead of ``data``: the address, of the page's own server, where it fetches them as JSON.
        refresh: With ``data_src``: fetch them again after as many seconds, and show what is new.
        title: Of the window; by default the runs' names.

    Raises:
        ValueError: Neither or both of ``data`` and ``data_src``.

    >>> from cam_callbacks.compare import load_run, page_data, render_page
    >>> page = render_page(page_data([load_run("runs/one")]), title="One")
    >>> "<title>One</title>" in page
    True
    """
    if (data is None) == (data_src is None):
        raise ValueError("render_page takes data, or data_src= to fetch them from; exactly one of them.")
    style = asset("viewer.css")
    source = "" if data_src is None else f' data-src="{escape(data_src)}"'
    source += "" if refresh is None else f' data-refresh="{refresh:g}"'
    policy = (
        f"default-src 'none'; img-src data:; style-src {content_hash(style)}; script-src {script_hash()}; "
        "base-uri 'none'; form-action 'none'"
    )
    return fill(
        asset("viewer.html"),
        {
            "policy": policy + ("; connect-src 'self'" if data_src else ""),
            "title": escape(title or f"{(data or {}).get('title', 'CAM')[:120]} – where models look"),
            "style": style,
            "source": source,
            "data": "" if data is None else json_block(data),
            "script": asset("viewer.js"),
        },
    )


def script_hash() -> str:
    """The page's one script as a content security policy names it: ``'sha256-…'``, quotes included.

    >>> from cam_callbacks.compare import script_hash
    >>> script_hash()[:8]
    "'sha256-"
    """
    return content_hash(asset("viewer.js"))


def page(runs: Sequence[Run]) -> str:
    """One self-contained HTML page about one run or several.

    Raises:
        ValueError: No runs.
    """
    return render_page(page_data(runs))


def write_page(runs: Sequence[Run], path: str | os.PathLike[str]) -> Path:
    """Write :func:`page` to a file, whole or not at all; missing folders are made.

    >>> from cam_callbacks.compare import load_run, write_page
    >>> write_page([load_run("runs/one")], "pages/one.html").name
    'one.html'
    """
    return write_atomically(Path(path), page(runs).encode())
