"""Files that nobody sees half of: npz without pickles, strict JSON, writing to a temporary name."""

from __future__ import annotations

import io
import json
import math
import os
import stat
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA = 1
LARGEST = 2**30  # bytes that a file may have, and unpack to
LARGEST_TEXT = 2**24  # bytes of a file of JSON
WITH_NAN = ("metrics", "aggregates", "reference", "user_metrics")  # parts of a header in which null is NaN


class RecordError(ValueError):
    """A file of records that cannot be read: damaged, not one of ours, or of a newer schema.

    >>> from pathlib import Path
    >>> from cam_callbacks import RecordError, RecordStore
    >>> _ = Path("runs/one/look-000001.npz").write_bytes(b"half a file")
    >>> try:
    ...     RecordStore("runs/one")[1]
    ... except RecordError as error:
    ...     print(error)
    runs/one/look-000001.npz is damaged or is no record (not a whole npz file).
    """


def write_atomically(path: Path, data: bytes, flush: bool = True, private: bool = False) -> Path:
    """Write to a temporary name beside ``path``, flush to disk, rename. ``private``: readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open(temporary, "wb") as file:
            if private:
                os.chmod(temporary, 0o600)
            file.write(data)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(OSError):  # one in the way of the error that matters
            temporary.unlink(missing_ok=True)
    return path


def read_file(path: Path, most: int = LARGEST) -> bytes:
    """The content of a regular file. A folder of records may come from anywhere: what is none is not opened, what is too large
    not read, and a link, which may lead anywhere, not followed.

    Raises:
        RecordError: One of these.
        OSError: It cannot be read.
    """
    status = os.lstat(path)  # opening a FIFO would wait for a writer, and a device may do something
    if not stat.S_ISREG(status.st_mode):
        raise RecordError(f"{path} is no regular file; links, devices and the like are not read.")
    if status.st_size > most:
        raise RecordError(f"{path} has {status.st_size >> 20} MiB; at most {most >> 20} MiB are read.")
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
        return file.read(most)


def write_new(path: Path, data: bytes) -> bool:
    """Write a file that is not there yet, atomically; of several processes that try, one succeeds.

    Returns:
        Whether it was this one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.new")
    try:
        write_atomically(temporary, data)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            with suppress(FileExistsError), open(path, "xb") as file:
                file.write(data)
                return True
            return False
        return True
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def to_npz(arrays: Mapping[str, Any]) -> bytes:
    """Arrays by name, as a compressed npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


@contextmanager
def open_npz(data: bytes, source: str, damaged: str = "is damaged") -> Iterator[Any]:
    """The npz file that ``data`` holds; what goes wrong inside is a RecordError that says ``damaged`` of ``source``.

    Raises:
        RecordError: Damaged, no npz file, one that would have to be unpickled, or one that would fill the memory.
    """
    if not zipfile.is_zipfile(io.BytesIO(data)):  # numpy takes it for a pickle, and words that as its version does
        raise RecordError(f"{source} {damaged} (not a whole npz file).")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            _check_size(file, source)
            yield file
    except RecordError:
        raise
    except Exception as error:  # zipfile, zlib, json and numpy each have their own for a damaged file
        raise RecordError(f"{source} {damaged} ({type(error).__name__}: {error}).") from error


def check_schema(header: Any, source: str) -> None:
    """Refuse what this version cannot read."""
    schema = header.get("schema") if isinstance(header, dict) else None
    if not isinstance(schema, int):
        raise RecordError(f"{source} has no schema version: it is no record of cam-callbacks.")
    if schema > SCHEMA:
        raise RecordError(
            f"{source} has schema {schema}; this version reads up to {SCHEMA}. Update cam-callbacks to open it."
        )


def to_json(value: Any, **options: Any) -> str:
    """Strict JSON: NaN and infinities become null, numpy scalars become numbers."""
    return json.dumps(_plain(value), allow_nan=False, **options)


def from_json(text: str) -> Any:
    """Read :func:`to_json`; null inside ``metrics``, ``aggregates``, ``reference`` and ``user_metrics`` is NaN again."""
    value = json.loads(text)
    if isinstance(value, dict):
        value |= {key: _nan(value[key]) for key in WITH_NAN if key in value}
    return value


def _check_size(file: Any, source: str) -> None:
    """Refuse a file that would fill the memory: zip can keep gigabytes of zeros in a few kilobytes."""
    size = sum(entry.file_size for entry in file.zip.infolist()) if file.zip is not None else 0
    if size > LARGEST:
        raise RecordError(f"{source} unpacks to {size >> 20} MiB; at most {LARGEST >> 20} MiB are read.")


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
