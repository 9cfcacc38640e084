"""What is to be predicted of the images: told from the targets of them all, since one alone leaves it open.

A row with a single 1 is a class where every row has one, and a set of classes where another row has two; 0.0 and 1.0 are
classes where there are no other numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cam_callbacks.probe_checks import IGNORED

Array = NDArray[Any]


def read_targets(targets: Sequence[Array | None], size: tuple[int, int]) -> dict[str, Any]:
    """``labels``, ``label_sets``, ``class_maps`` or ``values`` of :class:`cam_callbacks.ProbeSet`; {} of targets that are none.

    Args:
        targets: One for each image: a number, (1,), (K,), or a map as for :func:`read_maps`.
        size: Height and width of the images.
    """
    if any(target is None for target in targets):
        return {}
    given = [np.asarray(target) for target in targets]
    shapes = {array.shape for array in given}
    if any(len(shape) >= 2 for shape in shapes):
        maps = read_maps(given, size)
        return {} if maps is None else {"class_maps": maps}
    if len(shapes) != 1:
        return {}
    rows = np.stack(given).reshape(len(given), -1)
    if not np.isfinite(rows).all():
        return {}
    if rows.shape[1] == 1:
        return _of_numbers(rows[:, 0])
    if np.isin(rows, (0, 1)).all():
        one_each = bool((rows.sum(1) == 1).all())
        return {"labels": rows.argmax(1)} if one_each else {"label_sets": rows.astype(bool)}
    return {"values": rows.astype(np.float32)} if rows.dtype.kind == "f" else {}


def read_maps(maps: Sequence[Array | None], size: tuple[int, int]) -> NDArray[np.int64] | None:
    """(N, H, W) the class of each pixel, −1 where ignored; None of what holds no classes.

    Args:
        maps: (H, W), (1, H, W) or (H, W, 1) whole numbers, or one-hot (K, H, W); a map of another resolution is brought to
            the images' by its nearest pixels. A mask of 0 and 255 alone is one of two classes.
        size: Height and width of the images.
    """
    read = [None if array is None else _class_map(np.asarray(array), size) for array in maps]
    whole = [array for array in read if array is not None]
    if len(whole) < len(maps):
        return None
    together = np.stack(whole)
    if set(np.unique(together).tolist()) == {0, IGNORED}:
        return (together == IGNORED).astype(np.int64)
    return np.where((together < 0) | (together == IGNORED), -1, together)


def _of_numbers(numbers: Array) -> dict[str, Any]:
    whole = numbers.dtype.kind in "biu" or bool(np.isin(numbers, (0.0, 1.0)).all())
    if whole and numbers.min() >= 0:
        return {"labels": numbers.astype(np.int64)}
    return {"values": numbers.astype(np.float32)}


def _class_map(array: Array, size: tuple[int, int]) -> NDArray[np.int64] | None:
    """(H, W); None where the numbers are no classes, or the shape is that of no map."""
    if array.ndim == 3 and array.shape[-1] == 1 and array.shape[0] != 1:
        array = array[..., 0]
    if array.ndim == 3 and len(array) == 1:
        array = array[0]
    if array.ndim == 3 and _is_one_hot(array):
        array = array.argmax(0)
    if array.ndim != 2 or not _are_classes(array) or array.shape[0] * size[1] != array.shape[1] * size[0]:
        return None
    rows, columns = ((np.arange(to) * of) // to for to, of in zip(size, array.shape, strict=True))
    return array[rows[:, None], columns].astype(np.int64)


def _is_one_hot(array: Array) -> bool:
    return bool(np.isin(array, (0, 1)).all() and (array.sum(0) == 1).all())


def _are_classes(array: Array) -> bool:
    return array.dtype.kind in "biu" or bool(np.isfinite(array).all() and (array == np.round(array)).all())
