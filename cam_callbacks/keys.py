"""Names under which numbers are logged and filed."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9_./-]")  # in MLflow's; a layer may be called fpn[0]
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,98}[A-Za-z0-9_])?")


def check_name(name: str | None) -> str | None:
    """A name that can stand in metric keys of every logger and in folder names, or None.

    Raises:
        ValueError: It cannot.
    """
    if name is not None and (not _NAME.fullmatch(name) or ".." in name):
        raise ValueError(
            f"name={name!r} becomes part of metric keys and folders; use at most 100 letters (a-z), digits, '_', '-' and '.', "
            "with a letter, digit or '_' at both ends."
        )
    return name


def metric_name(method: str) -> str:
    """A method's name as it stands in metric keys, which every logger has to take: ``gradcam++`` → ``gradcampp``."""
    return _NOT_IN_KEYS.sub("_", method.replace("+", "p").replace("/", "_"))


def series_name(method: str, layer: str, layers: Sequence[str]) -> str:
    """``gradcam``, with ``/<layer>`` appended only when several layers are tracked."""
    series = metric_name(method)
    return f"{series}/{_NOT_IN_KEYS.sub('_', layer)}" if len(layers) > 1 else series


def per_image_key(metric: str, method: str, layer: str, layers: Sequence[str]) -> str:
    """``entropy/gradcam``, or ``entropy/gradcam/<layer>``."""
    return f"{metric}/{series_name(method, layer, layers)}"


def metric_key(metric: str, method: str, layer: str, layers: Sequence[str], name: str | None) -> str:
    """``cam/entropy/gradcam``, or ``cam/<name>/entropy/gradcam`` for a callback with a name."""
    return plain_key(per_image_key(metric, method, layer, layers), name)


def plain_key(metric: str, name: str | None) -> str:
    """``cam/seconds``, or ``cam/<name>/seconds``."""
    return f"cam/{name}/{metric}" if name else f"cam/{metric}"


def group_keys(groups: Sequence[str]) -> dict[str, str]:
    """Each group's tag as a part of a metric's name, ``on_target_enrichment.<tag>``: letters, digits, ``_`` and ``-``.

    Tags that would look alike get a number.
    """
    keys: dict[str, str] = {}
    for tag in dict.fromkeys(groups):
        plain = re.sub(r"[^A-Za-z0-9_-]", "_", tag)[:60] or "_"
        same = sum(key == plain or key.startswith(f"{plain}_n") for key in keys.values())
        keys[tag] = f"{plain}_n{same + 1}" if same else plain
    return keys
