"""What one look measured, durable on disk.

A store is one folder for one run:

    manifest.json      schema version, and what the looks have in common (probe, methods, layers, target, versions)
    probe.npz          the probe images as a person sees them, labels, masks
    look-000000.npz    one file a look: maps, per-image numbers, and a JSON header with everything else

Every file is written to a temporary name, flushed to disk and renamed, so that a reader never sees half of one. Nothing
is pickled.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

SCHEMA = 1
MANIFEST = "manifest.json"
PROBE = "probe.npz"
LARGEST = 2**30  # bytes that a file may unpack to
UNWRITTEN_LOOKS = 16  # kept in memory while the disk is full
LOOK = re.compile(r"look-(\d{6,})\.npz")

Maps = dict[tuple[str, str], NDArray[np.float32]]


class RecordError(ValueError):
    """A file of records that cannot be read: damaged, not one of ours, or of a newer schema."""


@dataclass(frozen=True)
class Alert:
    """A rule that holds for one method on one layer at a look (:mod:`cam_callbacks.alerts`).

    ``look``, ``epoch``: of this record. ``since_look``, ``since_epoch``: where the rule began to hold. ``new``: raised at
    this very look. ``measured``: in words. ``images``: ids, the worst first. ``advice``: what to look at.
    """

    name: str
    method: str
    layer: str
    look: int
    epoch: int
    since_look: int
    since_epoch: int
    new: bool
    measured: str
    images: tuple[str, ...]
    advice: str

    def __str__(self) -> str:
        images = f" Images: {', '.join(self.images)}." if self.images else ""
        return (
            f"{self.name} ({self.method} at {self.layer}, epoch {self.epoch}): {self.measured}; "
            f"since epoch {self.since_epoch}.{images} {self.advice}"
        )

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Alert:
        """From a record's header; what a later version wrote besides is left out."""
        known = {f.name: values[f.name] for f in fields(cls)}
        return cls(**known | {"images": tuple(known["images"])})


@dataclass(frozen=True, eq=False)
class Record:
    """One look at the probe set.

    ``look`` counts looks from 0 and is unique; ``epoch`` and ``step`` are the trainer's.
    ``metrics``: the logged keys, ``"cam/drift_ref/gradcam"``; NaN where a number is undefined at this look.
    ``maps[method, layer]``: (N, h, w) float32 on the layer's grid, after ReLU, not rescaled.
    ``per_image["entropy/gradcam"]``: (N,) float64; with ``/<layer>`` appended when several layers are tracked.
    ``aggregates["entropy/gradcam"]``: mean, median, worst_tenth, worst_class (the worst class's mean), low and high (95 %
    bootstrap interval of the mean), n (images counted), and ``group:<tag>``, the mean of each of the probe's groups.
    ``t_maps[method, layer]``: (h, w) float32, the paired t of each cell against the reference, positive where focus was
    gained (:func:`cam_engine.metrics.max_t`).
    ``alerts``: those that are raised at this look, old and new.
    ``predictions``, ``confidences``, ``scores``, ``targets``: (N,), predicted class, its probability, the explained
    score and class; None where the model is no classifier.
    ``reference``: for each ``method/layer``, what drift is measured against: ``look``, ``settled``, ``floor``,
    ``ceiling``, the ``grid`` [h, w], and ``t_critical``, the |t| above which a cell of ``t_maps`` has moved significantly.
    ``user_metrics``: what else the trainer had logged by the end of that validation, such as its accuracy.
    ``seconds``: what the look cost. ``time``: seconds since 1970.
    """

    look: int
    epoch: int
    step: int
    metrics: dict[str, float]
    maps: Maps
    per_image: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    aggregates: dict[str, dict[str, float]] = field(default_factory=dict)
    predictions: NDArray[np.int64] | None = None
    confidences: NDArray[np.float64] | None = None
    scores: NDArray[np.float64] | None = None
    targets: NDArray[np.int64] | None = None
    reference: dict[str, dict[str, Any]] = field(default_factory=dict)
    user_metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    time: float = 0.0
    t_maps: Maps = field(default_factory=dict)
    alerts: tuple[Alert, ...] = ()

    _PLAIN = ("look", "epoch", "step", "metrics", "aggregates", "reference", "user_metrics", "seconds", "time")
    _ARRAYS = ("predictions", "confidences", "scores", "targets")

    def to_bytes(self) -> bytes:
        """The record as an npz file; arrays under numbered names, what they are in a JSON header."""
        header = {
            "schema": SCHEMA,
            **{name: getattr(self, name) for name in self._PLAIN},
            "maps": [list(key) for key in self.maps],
            "per_image": list(self.per_image),
            "t_maps": [list(key) for key in self.t_maps],
            "alerts": [asdict(alert) for alert in self.alerts],
        }
        arrays: dict[str, Any] = {f"map_{i}": m for i, m in enumerate(self.maps.values())}
        arrays |= {f"image_{i}": v for i, v in enumerate(self.per_image.values())}
        arrays |= {f"t_{i}": t for i, t in enumerate(self.t_maps.values())}
        arrays |= {name: getattr(self, name) for name in self._ARRAYS if getattr(self, name) is not None}
        arrays["header"] = np.frombuffer(to_json(header).encode(), dtype=np.uint8)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, source: str = "record") -> Record:
        """Read what :meth:`to_bytes` wrote.

        Raises:
            RecordError: Damaged, not a record, or written by a newer version.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                _check_size(file, source)
                header = from_json(_numbers(file, "header", 1).tobytes().decode())
                check_schema(header, source)
                return cls(
                    **{k: header[k] for k in cls._PLAIN},
                    maps={(m, layer): _numbers(file, f"map_{i}", 3) for i, (m, layer) in enumerate(header["maps"])},
                    per_image={name: _numbers(file, f"image_{i}", 1) for i, name in enumerate(header["per_image"])},
                    **{name: _numbers(file, name, 1) for name in cls._ARRAYS if name in file.files},
                    # Not in the first records of this schema:
                    t_maps={
                        (m, layer): _numbers(file, f"t_{i}") for i, (m, layer) in enumerate(header.get("t_maps", ()))
                    },
                    alerts=tuple(map(Alert.from_plain, header.get("alerts", ()))),
                )
        except RecordError:
            raise
        except Exception as error:  # zipfile, zlib, json and numpy each have their own for a damaged file
            raise RecordError(f"{source} is damaged or is no record ({type(error).__name__}: {error}).") from error


class RecordStore:
    """The records of one run, in a folder; opens while the run is still writing.

    ``len(store)``, ``store[-1]``, iteration in order of looks. ``store.manifest`` describes the run, ``store.probe``
    holds what is needed to draw it: ``pictures`` (N, H, W, 3) uint8, ``labels``, ``masks``, ``nuisance``.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._unwritten: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return f"RecordStore({str(self.folder)!r}, {len(self)} looks)"

    @property
    def looks(self) -> list[int]:
        """Numbers of the looks on disk, ascending."""
        names = os.listdir(self.folder) if self.folder.is_dir() else []
        found = (LOOK.fullmatch(name) for name in {*names, *self._unwritten})
        return sorted(int(match[1]) for match in found if match)

    def __len__(self) -> int:
        return len(self.looks)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        looks = self.looks
        if isinstance(index, slice):
            return [self.read(look) for look in looks[index]]
        try:
            return self.read(looks[index])
        except IndexError:
            raise IndexError(f"record {index} of {len(looks)} in {str(self.folder)!r}") from None

    def __iter__(self) -> Iterator[Record]:
        return (self.read(look) for look in self.looks)

    def path(self, look: int) -> Path:
        return self.folder / f"look-{look:06d}.npz"

    def read(self, look: int) -> Record:
        """Read the record of a look (not an index: looks may have gaps).

        Raises:
            FileNotFoundError: No such look.
            RecordError: Its file is damaged or of a newer schema.
        """
        path = self.path(look)
        return Record.from_bytes(self.data(path.name), str(path))

    def write(self, record: Record) -> Path:
        """Write a record, atomically; a look already there is replaced.

        Where the disk is full or refuses, a warning is logged and the record stays in memory, for those who hold this
        store; the last 16 at most.
        """
        return self._write(self.path(record.look).name, record.to_bytes())

    @property
    def manifest(self) -> dict[str, Any]:
        """What the looks have in common; {} before the first look.

        Raises:
            RecordError: Damaged or of a newer schema.
        """
        path = self.folder / MANIFEST
        if not self.has(MANIFEST):
            return {}
        try:
            manifest: dict[str, Any] = from_json(self.data(MANIFEST).decode())
        except ValueError as error:
            raise RecordError(f"{path} is damaged ({error}).") from error
        check_schema(manifest, str(path))
        return manifest

    def write_manifest(self, manifest: Mapping[str, Any]) -> Path:
        return self._write(MANIFEST, to_json({"schema": SCHEMA, **manifest}, indent=1).encode())

    @property
    def probe(self) -> dict[str, NDArray[Any]]:
        """Arrays written by :meth:`write_probe`; {} where there are none."""
        path = self.folder / PROBE
        if not self.has(PROBE):
            return {}
        try:
            with np.load(io.BytesIO(self.data(PROBE)), allow_pickle=False) as file:
                _check_size(file, str(path))
                return {name: file[name] for name in file.files}
        except RecordError:
            raise
        except Exception as error:
            raise RecordError(f"{path} is damaged ({type(error).__name__}: {error}).") from error

    def write_probe(self, arrays: Mapping[str, Any]) -> Path:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return self._write(PROBE, buffer.getvalue())

    def has(self, name: str) -> bool:
        """Is there a file of that name, on disk or still in memory?"""
        return name in self._unwritten or (self.folder / name).is_file()

    def data(self, name: str) -> bytes:
        """The content of a file, from disk or from memory."""
        unwritten = self._unwritten.get(name)
        return (self.folder / name).read_bytes() if unwritten is None else unwritten

    def _write(self, name: str, data: bytes) -> Path:
        self._unwritten[name] = data
        for waiting in list(self._unwritten):
            try:
                write_atomically(self.folder / waiting, self._unwritten[waiting])
            except OSError as error:
                log.warning(
                    "cam-callbacks: %s could not be written (%s); the loggers get it all the same",
                    self.folder / name,
                    error,
                )
                break
            del self._unwritten[waiting]
        waiting_looks = [name for name in self._unwritten if LOOK.fullmatch(name)]
        for forgotten in waiting_looks[:-UNWRITTEN_LOOKS]:
            del self._unwritten[forgotten]
        return self.folder / name


def free_folder(folder: Path) -> Path:
    """The folder, or the first of ``<folder>-2``, ``<folder>-3``, … where it already holds records."""
    free, number = folder, 2
    while len(RecordStore(free)):
        free, number = folder.with_name(f"{folder.name}-{number}"), number + 1
    return free


def _numbers(file: Any, name: str, dimensions: int | None = None) -> Any:
    """An array of numbers. A record has dozens of the same few layouts, which numpy would parse anew for each."""
    data = file.zip.read(f"{name}.npy")
    start = 10 + int.from_bytes(data[8:10], "little")
    if not data.startswith(b"\x93NUMPY\x01\x00"):
        raise ValueError(f"{name} is no array as it should be")
    shape, fortran, dtype = _layout(data[8:start])
    if fortran or dtype.kind not in "fiub" or len(shape) != (dimensions or len(shape)):
        raise ValueError(f"{name} is no array of numbers as it should be")
    return np.frombuffer(data, dtype, offset=start).reshape(shape).copy()


@lru_cache(maxsize=256)
def _layout(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and type of an array, from the header that numpy's format 1.0 puts before it."""
    return np.lib.format.read_array_header_1_0(io.BytesIO(header))


def _check_size(file: Any, source: str) -> None:
    """Refuse a file that would fill the memory: zip can keep gigabytes of zeros in a few kilobytes."""
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise RecordError(f"{source} is damaged or is no record (not an npz file).")
    size = sum(entry.file_size for entry in file.zip.infolist()) if file.zip is not None else 0
    if size > LARGEST:
        raise RecordError(f"{source} unpacks to {size >> 20} MiB; at most {LARGEST >> 20} MiB are read.")


def check_schema(header: Any, source: str) -> None:
    """Refuse what this version cannot read."""
    schema = header.get("schema") if isinstance(header, dict) else None
    if not isinstance(schema, int):
        raise RecordError(f"{source} has no schema version: it is no record of cam-callbacks.")
    if schema > SCHEMA:
        raise RecordError(
            f"{source} has schema {schema}; this version reads up to {SCHEMA}. Update cam-callbacks to open it."
        )


def write_atomically(path: Path, data: bytes, flush: bool = True) -> Path:
    """Write to a temporary name beside ``path``, flush to disk, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(OSError):  # one in the way of the error that matters
            temporary.unlink(missing_ok=True)
    return path


def to_json(value: Any, **options: Any) -> str:
    """Strict JSON: NaN and infinities become null, numpy scalars become numbers."""
    return json.dumps(_plain(value), allow_nan=False, **options)


def from_json(text: str) -> Any:
    """Read :func:`to_json`; null inside ``metrics`` and ``aggregates`` is NaN again."""
    value = json.loads(text)
    if isinstance(value, dict):
        for key in ("metrics", "aggregates", "reference", "user_metrics"):
            if key in value:
                value[key] = _nan(value[key])
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _nan(v) for k, v in value.items()}
    return float("nan") if value is None else value
