"""PNG bytes, and PNG files that appear whole or not at all."""

from __future__ import annotations

import io
import os
import uuid
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cam_engine.render.heat import check_image


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """The picture, (H, W, 3) uint8 RGB, as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(check_image(image)).save(buffer, format="PNG")
    return buffer.getvalue()


def write_png(path: str | os.PathLike[str], image: NDArray[np.uint8]) -> None:
    """Write the picture, (H, W, 3) uint8 RGB, to ``path``, replacing what is there.

    A reader sees the old file or the new one, never half of one: the bytes go to a temporary file in the same
    folder, which then takes the name. A missing folder is an error (FileNotFoundError), as for ``open``.
    """
    target = Path(path)
    data = encode_png(image)
    # Not tempfile: its files are readable by their owner alone, and a logger's server may be another user.
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
