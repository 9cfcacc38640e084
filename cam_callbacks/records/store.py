"""The records of one run in a folder.

    manifest.json      schema version, and what the looks have in common (probe, methods, layers, target, versions)
    probe.npz          the probe images as a person sees them, labels, masks
    params.json        what the run had logged to MLflow as parameters, where it did
    look-000000.npz    one file a look: maps, per-image numbers, and a JSON header with everything else
    look-000000.user.json    what else the trainer had logged by the end of that validation, which is later than the look

Every file is written to a temporary name, flushed to disk and renamed, so that a reader never sees half of one. Nothing
is pickled.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

from numpy.typing import NDArray

from cam_callbacks.records.checking import check_manifest, check_probe
from cam_callbacks.records.files import (
    LARGEST,
    LARGEST_TEXT,
    SCHEMA,
    RecordError,
    check_schema,
    from_json,
    open_npz,
    read_file,
    to_json,
    to_npz,
    write_atomically,
    write_new,
)
from cam_callbacks.records.record import Record

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
PROBE = "probe.npz"
PARAMS = "params.json"
LOOK = re.compile(r"look-(\d{6,})\.npz")
UNWRITTEN_LOOKS = 16  # kept in memory while the disk is full
_FILE = re.compile(rf"{re.escape(MANIFEST)}|{re.escape(PROBE)}|{re.escape(PARAMS)}|look-\d{{6,}}\.(?:npz|user\.json)")


class RecordStore:
    """The records of one run, in a folder; opens while the run is still writing.

    ``len(store)``, ``store[-1]``, iteration in order of looks. ``store.manifest`` describes the run, ``store.probe``
    holds what is needed to draw it: ``pictures`` (N, H, W, 3) uint8, ``labels``, ``masks``, ``nuisance``.

    >>> from cam_callbacks import RecordStore
    >>> store = RecordStore("runs/one")
    >>> len(store), store.manifest["methods"], store.probe["pictures"].shape
    (2, ['eigencam', 'gradcam'], (6, 32, 32, 3))
    >>> [round(record.metrics["cam/entropy/gradcam"], 2) for record in store]
    [0.81, 0.81]
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._unwritten: dict[str, bytes] = {}
        self._writing = threading.Lock()  # the training writes looks, and a thread of the delivery parameters
        self._warned_of: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_writing"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _writing=threading.Lock())

    def __repr__(self) -> str:
        return f"RecordStore({str(self.folder)!r}, {len(self)} looks)"

    @property
    def looks(self) -> list[int]:
        """Numbers of the looks on disk, ascending."""
        names = os.listdir(self.folder) if self.folder.is_dir() else []
        matches = (LOOK.fullmatch(name) for name in {*names, *self._unwritten})
        return sorted(int(match[1]) for match in matches if match)

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

    def files(self, look: int) -> list[str]:
        """Names of the files of a look that exist, on disk or still in memory, the record's first."""
        path = self.path(look)
        return [name for name in (path.name, _annotation(path).name) if self.has(name)]

    @property
    def size(self) -> int:
        """Bytes of the looks on disk."""
        return sum(os.lstat(self.path(look)).st_size for look in self.looks if self.path(look).exists())

    def read(self, look: int) -> Record:
        """Read the record of a look (not an index: looks may have gaps), with what :meth:`annotate` put beside it.

        Raises:
            FileNotFoundError: No such look.
            RecordError: Its file is damaged or of a newer schema.
        """
        path = self.path(look)
        record = Record.from_bytes(self.data(path.name), str(path))
        beside = _annotation(path)
        return replace(record, user_metrics=self._user_metrics(beside)) if self.has(beside.name) else record

    def write(self, record: Record) -> Path:
        """Write a record, atomically; a look already there is replaced.

        Where the disk is full or refuses, a warning is logged and the record stays in memory, for those who hold this
        store; the last 16 at most.
        """
        path = self.path(record.look)
        with suppress(OSError):  # a disk that refuses
            self._remove(_annotation(path).name)  # of the look that is replaced
        return self._write(path.name, record.to_bytes())

    def annotate(self, look: int, user_metrics: Mapping[str, float]) -> Path:
        """Put :attr:`Record.user_metrics` beside a look's record, atomically, in place of those before.

        A small file of its own: they are known only after the look, and maps need not be compressed again for them.
        """
        content = to_json({"schema": SCHEMA, "user_metrics": user_metrics})
        return self._write(_annotation(self.path(look)).name, content.encode())

    def remove(self, look: int) -> None:
        """Remove all files of a look, if there are any."""
        for name in self.files(look):
            self._remove(name)

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
        except RecordError:
            raise
        except (ValueError, RecursionError) as error:
            raise RecordError(f"{path} is damaged ({error}).") from error
        check_schema(manifest, str(path))
        return check_manifest(manifest, str(path))

    def write_manifest(self, manifest: Mapping[str, Any]) -> Path:
        return self._write(MANIFEST, _manifest_bytes(manifest))

    def claim(self, manifest: Mapping[str, Any]) -> bool:
        """Write the manifest where there is none, and make the folder this run's: of several processes that try, one succeeds.

        Where the disk refuses, the folder is taken to be this run's, and the manifest waits in memory as looks do.

        Returns:
            Whether the folder is this run's.
        """
        try:
            return write_new(self.folder / MANIFEST, _manifest_bytes(manifest))
        except OSError:
            self.write_manifest(manifest)
            return True

    @property
    def probe(self) -> dict[str, NDArray[Any]]:
        """Arrays written by :meth:`write_probe`; {} where there are none."""
        path = self.folder / PROBE
        if not self.has(PROBE):
            return {}
        with open_npz(self.data(PROBE), str(path)) as file:
            return check_probe({name: file[name] for name in file.files}, str(path))

    def write_probe(self, arrays: Mapping[str, Any]) -> Path:
        return self._write(PROBE, to_npz(arrays))

    @property
    def params(self) -> dict[str, str]:
        """What :meth:`write_params` kept; {} where it is not there or damaged."""
        if not self.has(PARAMS):
            return {}
        try:
            content = from_json(self.data(PARAMS).decode())
            check_schema(content, PARAMS)
            return {str(name): str(value) for name, value in content["params"].items()}
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            log.warning("cam-callbacks: %s is damaged and left out (%s)", self.folder / PARAMS, error)
            return {}

    def write_params(self, params: Mapping[str, str]) -> Path:
        """Keep a run's parameters with its records, so that runs can be told apart by them."""
        return self._write(PARAMS, to_json({"schema": SCHEMA, "params": dict(params)}, indent=1).encode())

    def has(self, name: str) -> bool:
        """Is there a file of that name, on disk or still in memory?"""
        return name in self._unwritten or (self.folder / name).is_file()

    def data(self, name: str) -> bytes:
        """The content of a file, from disk or from memory."""
        unwritten = self._unwritten.get(name)
        most = LARGEST if name.endswith(".npz") else LARGEST_TEXT
        return read_file(self.folder / name, most) if unwritten is None else unwritten

    def _user_metrics(self, path: Path) -> dict[str, float]:
        """What :meth:`annotate` wrote; a damaged file is said once, and costs these numbers but no look."""
        try:
            content = from_json(self.data(path.name).decode())
            check_schema(content, str(path))
            return {str(key): float(value) for key, value in content["user_metrics"].items()}
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, OSError) as error:
            if path.name not in self._warned_of:
                log.warning("cam-callbacks: %s is damaged; the look has no numbers of the trainer's (%s)", path, error)
                self._warned_of.add(path.name)
            return {}

    def _remove(self, name: str) -> None:
        with self._writing:
            self._unwritten.pop(name, None)
            (self.folder / name).unlink(missing_ok=True)

    def _write(self, name: str, data: bytes) -> Path:
        with self._writing:
            self._unwritten[name] = data
            for waiting in list(self._unwritten):
                try:
                    write_atomically(self.folder / waiting, self._unwritten[waiting])
                except OSError as error:
                    log.warning(
                        "cam-callbacks: %s could not be written (%s); the loggers get it all the same",
                        self.folder / name, error,
                    )  # fmt: skip
                    break
                del self._unwritten[waiting]
            waiting_looks = [name for name in self._unwritten if LOOK.fullmatch(name)]
            for forgotten in waiting_looks[:-UNWRITTEN_LOOKS]:
                del self._unwritten[forgotten]
                self._unwritten.pop(_annotation(Path(forgotten)).name, None)
        return self.folder / name


def _manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    return to_json({"schema": SCHEMA, **manifest}, indent=1).encode()


def is_record_file(name: str) -> bool:
    """Is this the name of a file that a :class:`RecordStore` writes?

    >>> from cam_callbacks.records import is_record_file
    >>> is_record_file("look-000012.npz"), is_record_file("notes.txt")
    (True, False)
    """
    return _FILE.fullmatch(name) is not None


def _annotation(record: Path) -> Path:
    """The file beside a look's record: ``look-000003.npz`` → ``look-000003.user.json``."""
    return record.with_suffix(".user.json")


def own_store(store: RecordStore, manifest: Mapping[str, Any]) -> RecordStore:
    """The store, or one in a folder beside it where another run has that; claimed for the run of this manifest.

    >>> from cam_callbacks.records import RecordStore, own_store
    >>> own_store(RecordStore("runs/one"), {"run": "another"}).folder.name
    'one-2'
    """
    wanted = store.folder
    while True:
        free = free_folder(wanted)
        own = store if free == wanted else RecordStore(free)
        if own.claim(manifest):  # another process may have been faster
            break
    if own is not store:
        log.warning("cam-callbacks: %s holds the records of another run; these go to %s", wanted, own.folder)
    return own


def free_folder(folder: Path) -> Path:
    """The folder, or the first of ``<folder>-2``, ``<folder>-3``, … where it is already a run's.

    >>> from pathlib import Path
    >>> from cam_callbacks.records import free_folder
    >>> free_folder(Path("runs/one")).name, free_folder(Path("runs/new")).name
    ('one-2', 'new')
    """
    free, number = folder, 2
    while len(RecordStore(free)) or (free / MANIFEST).exists():
        free, number = folder.with_name(f"{folder.name}-{number}"), number + 1
    return free
