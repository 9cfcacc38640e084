"""Outlines of a region as polygons, for those who draw it themselves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cam_engine.render._cv2 import cv2


def contours(mask: NDArray[np.bool_]) -> list[NDArray[np.int32]]:
    """The borders of a region's pieces and of their holes, in no particular order.

    Args:
        mask: (H, W) bool.

    Returns:
        Closed polygons (K, 2) of (x, y), through the centres of the region's outermost pixels; none for an empty mask.

    Raises:
        TypeError, ValueError: Another dtype or shape.

    >>> from cam_engine.render import contours
    >>> mask = np.zeros((6, 6), bool)
    >>> mask[1:4, 2:5] = True
    >>> [outline.tolist() for outline in contours(mask)]
    [[[2, 1], [2, 3], [4, 3], [4, 1]]]
    """
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        raise TypeError(f"mask must be a bool array, got {getattr(mask, 'dtype', type(mask).__name__)}")
    if mask.ndim != 2:
        raise ValueError(f"mask must have shape (H, W), got {mask.shape}")
    polygons, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    return [np.asarray(points[:, 0], np.int32) for points in polygons]
