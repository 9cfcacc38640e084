"""Names under which numbers are logged and filed."""

from __future__ import annotations

from collections.abc import Sequence

from cam_engine.methods import metric_name


def per_image_key(metric: str, method: str, layer: str, layers: Sequence[str]) -> str:
    """``entropy/gradcam``, with ``/<layer>`` appended only when several layers are tracked."""
    key = f"{metric}/{metric_name(method)}"
    return f"{key}/{layer.replace('+', 'p')}" if len(layers) > 1 else key


def metric_key(metric: str, method: str, layer: str, layers: Sequence[str], name: str | None) -> str:
    """``cam/entropy/gradcam``, or ``cam/<name>/entropy/gradcam`` for a callback with a name."""
    return plain_key(per_image_key(metric, method, layer, layers), name)


def plain_key(metric: str, name: str | None) -> str:
    """``cam/seconds``, or ``cam/<name>/seconds``."""
    return f"cam/{name}/{metric}" if name else f"cam/{metric}"
