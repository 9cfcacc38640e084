"""What the page is given to draw boxes on, where there is no run yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cam_callbacks.compare.blocks import pictures
from cam_callbacks.compare.data import FORMAT
from cam_callbacks.text_table import printable


def annotation_data(
    pixels: NDArray[np.uint8],
    ids: Sequence[str] | None = None,
    labels: NDArray[np.int64] | None = None,
    class_names: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Data of a page that does nothing but take boxes; ``render_page`` makes it.

    Args:
        pixels: (N, H, W, 3), in the size of the probe's images: boxes are in their pixels.
        ids: N names, under which boxes are found again; by default "0", "1", ….
        labels: (N,) class indices.
        class_names: Name of each class.

    >>> from cam_callbacks.compare import annotation_data, render_page
    >>> data = annotation_data(np.zeros((2, 32, 32, 3), np.uint8), ids=["left", "right"])
    >>> page = render_page(data, title="Where?")  # `cam-callbacks annotate` serves such a page
    >>> "<title>Where?</title>" in page
    True
    """
    n, height, width = pixels.shape[:3]
    probe = {
        "fingerprint": "",
        "n": n,
        "height": height,
        "width": width,
        "ids": [printable(str(name)) for name in (range(n) if ids is None else ids)],
        "labels": None if labels is None else [int(label) for label in labels],
        "groups": None,
        "class_names": None if class_names is None else [printable(str(name)) for name in class_names],
        "pictures": pictures(pixels),
        "outlines": {"masks": None, "nuisance": None},
    }
    return {"format": FORMAT, "title": "Draw boxes", "runs": [], "probes": [probe], "colormaps": {}}
