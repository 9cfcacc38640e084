"""Is what a file of records says of the kind that it should be? Asked once, here, so that nothing else has to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cam_callbacks.records.files import RecordError
from cam_callbacks.text_table import printable

LONGEST = 10_000  # characters of a name
MOST_IMAGES = 1_000_000


def check_manifest(manifest: dict[str, Any], source: str) -> dict[str, Any]:
    """The manifest, if what it holds is of the right kind; what it lacks was not known to the version that wrote it. Names are
    printable: what would steer a terminal, or turn a line around, is an escape.

    Raises:
        RecordError: It is not.
    """
    _check(manifest, _RUN, source)
    probe = manifest.get("probe", {})
    _check(probe, _PROBE, source)
    n = probe.get("n")
    for name in ("ids", "groups"):
        if n is not None and probe.get(name) is not None and len(probe[name]) != n:
            raise RecordError(f"{source} is damaged: {len(probe[name])} {name} for {n} probe images.")
    shown = {name: printable(manifest[name]) for name in ("run", "name", "model") if manifest.get(name)}
    of_probe = {
        name: [printable(each) for each in probe[name]] for name in ("ids", "class_names", "groups") if probe.get(name)
    }
    return manifest | shown | ({"probe": probe | of_probe} if "probe" in manifest else {})


def check_probe(arrays: dict[str, NDArray[Any]], source: str) -> dict[str, NDArray[Any]]:
    """The arrays of the probe, if they fit together.

    Raises:
        RecordError: They do not.
    """
    pictures = arrays.get("pictures")
    if pictures is None or pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
        raise RecordError(f"{source} is damaged: it holds no pictures (N, H, W, 3) of uint8.")
    shapes = {"labels": pictures.shape[:1], "masks": pictures.shape[:3], "nuisance": pictures.shape[:3]}
    for name, shape in shapes.items():
        array = arrays.get(name)
        if array is not None and (array.shape != shape or array.dtype.kind not in ("iu" if name == "labels" else "b")):
            raise RecordError(f"{source} is damaged: {name} of shape {array.shape} and {array.dtype} for {shape}.")
    return arrays


def check_names(names: Any, length: int, source: str) -> list[Any]:
    """Lists of so many names each; ``length`` 1: names themselves.

    Raises:
        RecordError: Something else.
    """
    rows = [[each] if length == 1 else each for each in names] if isinstance(names, list) else None
    if rows is None or not all(isinstance(row, list) and len(row) == length and all(map(_name, row)) for row in rows):
        raise RecordError(f"{source} is damaged: names were expected, and are not there.")
    return names


def numbers(values: Any) -> dict[str, float]:
    """Numbers by name; raises ValueError, TypeError or AttributeError where they are none."""
    return {_checked_name(name): float(value) for name, value in values.items()}


def numbers_by_name(values: Any) -> dict[str, dict[str, float]]:
    """The same, a level deeper."""
    return {_checked_name(name): numbers(of) for name, of in values.items()}


def references(values: Any) -> dict[str, dict[str, Any]]:
    """What drift was measured against, for each series: numbers, truths, and the grid as two whole numbers."""
    return {
        _checked_name(series): {_checked_name(name): _of_reference(value) for name, value in of.items()}
        for series, of in values.items()
    }


def whole(value: Any, least: int = -(2**53)) -> int:
    """A whole number that JSON and JavaScript can tell apart; raises ValueError where it is none."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 2**53:
        raise ValueError(f"a whole number was expected, not {str(value)[:40]!r}")
    return value


def _of_reference(value: Any) -> Any:
    if isinstance(value, list):
        return [whole(each, 0) for each in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return _checked_name(value)


@lru_cache(maxsize=1024)  # a run's looks have the same few hundred names
def _checked_name(name: Any) -> str:
    if not _name(name):
        raise ValueError(f"a name was expected, not {str(name)[:40]!r}")
    return printable(name)


Test = Callable[[Any], bool]


def _name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_name, value))


def _plain_names(value: Any) -> bool:
    """Of methods and layers, which tell series apart."""
    return _names(value) and all(map(str.isprintable, value))


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_IMAGES


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_number, value))


def _grids(value: Any) -> bool:
    return isinstance(value, dict) and all(_name(k) and _numbers(v) and len(v) == 2 for k, v in value.items())


def _or_none(test: Test) -> Test:
    return lambda value: value is None or test(value)


_RUN: dict[str, Test] = {
    "run": _or_none(_name),
    "name": _or_none(_name),
    "created": _or_none(_number),
    "version": _name,
    "model": _name,
    "methods": _plain_names,
    "layers": _plain_names,
    "grids": _grids,
    "target": lambda value: _name(value) or _number(value),
    "reference": lambda value: _name(value) or _number(value),
    "picture_step": _name,
    "store_images": lambda value: isinstance(value, bool),
    "task": lambda value: isinstance(value, dict) and all(_name(k) and _name(v) for k, v in value.items()),
    "probe": lambda value: isinstance(value, dict),
}
_PROBE: dict[str, Test] = {
    "fingerprint": _name,
    "n": _count,
    "image_size": lambda value: _numbers(value) and len(value) == 2,
    "ids": _names,
    "class_names": _or_none(_names),
    "groups": _or_none(_names),
    "mean": _or_none(_numbers),
    "std": _or_none(_numbers),
}


def _check(values: Mapping[str, Any], tests: Mapping[str, Test], source: str) -> None:
    for name, test in tests.items():
        if name in values and not test(values[name]):
            raise RecordError(f"{source} is damaged: {name!r} is {str(values[name])[:80]!r}.")
