"""Resizing as OpenCV does it, for those who have to do it just so."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cam_engine.render._cv2 import cv2


def resize_linear(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 to (height, width), bilinear without smoothing: YOLO models are trained with this rounding."""
    return np.asarray(
        cv2.resize(np.ascontiguousarray(image), (size[1], size[0]), interpolation=cv2.INTER_LINEAR), np.uint8
    )
