"""Pictures as the bytes of a file, and PNG files that appear whole or not at all.

OpenCV encodes PNG and JPEG, in a fraction of Pillow's time. Both it and Pillow release the interpreter's lock meanwhile: a training
beside it goes on.
"""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cam_engine.render._cv2 import cv2
from cam_engine.render.heat import check_image

JPEG_QUALITY = 85
WEBP_QUALITY = 82
WEBP_LARGEST = 16383
"""Pixels: the format has room for no longer side."""


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """The picture, (H, W, 3) uint8 RGB, as the bytes of a PNG file.

    >>> from cam_engine.render import encode_png
    >>> encode_png(np.zeros((8, 8, 3), np.uint8))[1:4]
    b'PNG'
    """
    return _encode(".png", image, ())  # OpenCV's own settings: half the time of its level 1, and a tenth larger


def encode_jpeg(image: NDArray[np.uint8]) -> bytes:
    """The picture, (H, W, 3) uint8 RGB, as the bytes of a JPEG file: smaller than a PNG, and made faster.

    >>> from cam_engine.render import encode_jpeg
    >>> encode_jpeg(np.zeros((8, 8, 3), np.uint8))[:2]
    b'\xff\xd8'
    """
    full = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444  # a quarter of the colours would blur outlines and small tags
    quality = (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1)
    return _encode(".jpg", image, (*quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, full))


def encode_webp(image: NDArray[np.uint8]) -> bytes:
    """The picture, (H, W, 3) uint8 RGB, as the bytes of a lossy WebP file: smaller than a JPEG, and slower to make.

    By Pillow, whose methods below 3 take a third of OpenCV's time; it releases the interpreter's lock too.

    Raises:
        ValueError: A side is longer than ``WEBP_LARGEST``.

    >>> from cam_engine.render import encode_webp
    >>> encode_webp(np.zeros((8, 8, 3), np.uint8))[8:12]
    b'WEBP'
    """
    data = io.BytesIO()
    Image.fromarray(check_image(image)).save(data, "WEBP", quality=WEBP_QUALITY, method=2)
    return data.getvalue()


def mean_difference(data: bytes, image: NDArray[np.uint8]) -> float:
    """How far the picture in a file is from ``image``, (H, W, 3) uint8 RGB: the mean difference, in levels of 255.

    Raises:
        ValueError: The file holds no picture.

    >>> from cam_engine.render import encode_jpeg, mean_difference
    >>> mean_difference(encode_jpeg(np.full((8, 8, 3), 80, np.uint8)), np.full((8, 8, 3), 90, np.uint8))
    10.0
    """
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError(f"{len(data)} bytes that are no picture.")
    return float(cv2.norm(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), image, cv2.NORM_L1) / image.size)


def write_png(path: str | os.PathLike[str], image: NDArray[np.uint8]) -> None:
    """Write the picture, (H, W, 3) uint8 RGB, to ``path``, replacing what is there.

    A reader sees the old file or the new one, never half of one: the bytes go to a temporary file in the same
    folder, which then takes the name. A missing folder is an error (FileNotFoundError), as for ``open``.

    >>> from cam_engine.render import write_png
    >>> from pathlib import Path
    >>> write_png("grey.png", np.full((8, 8, 3), 128, np.uint8))
    >>> Path("grey.png").stat().st_size > 0
    True
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


def _encode(suffix: str, image: NDArray[np.uint8], options: Sequence[int]) -> bytes:
    done, data = cv2.imencode(suffix, cv2.cvtColor(check_image(image), cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ValueError(f"a picture of shape {image.shape} could not be encoded as {suffix[1:]}.")
    return data.tobytes()
