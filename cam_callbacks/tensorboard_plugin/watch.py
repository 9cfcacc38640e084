"""Records below a log folder, read again only where they have changed. Imports neither torch nor Lightning."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cam_callbacks.compare.run import LoadError, Run, hyperparameters, logged_params, name_below, read_store
from cam_callbacks.compare.select import folders_below
from cam_callbacks.records import LOOK, MANIFEST, PROBE, Record, RecordError, RecordStore, is_record_file
from cam_callbacks.records.files import to_json
from cam_callbacks.text_table import printable

RESCAN = 3.0  # seconds
KEPT = 10  # runs whose records stay in memory
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9.+-]*://")

Stamp = tuple[int, int]  # a file's time of change in ns, and its size in bytes


@dataclass(eq=False)
class Watched(RecordStore):
    """One folder of records, whose looks are read once, and again when one of their files has changed."""

    folder: Path
    name: str
    root: Path
    _read: dict[int, tuple[list[Stamp], Record]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(self.folder)

    def stamps(self) -> dict[str, Stamp]:
        """The files of the records; links are left out, for they may lead anywhere."""
        stamps = {}
        for entry in os.scandir(self.folder):
            if is_record_file(entry.name) and entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                stamps[entry.name] = (status.st_mtime_ns, status.st_size)
        return stamps

    @property
    def version(self) -> str:
        """Another text whenever a file of the records is another."""
        return hashlib.sha256(repr(sorted(self.stamps().items())).encode()).hexdigest()[:16]

    @property
    def looks(self) -> list[int]:
        return sorted(int(match[1]) for name in self.stamps() if (match := LOOK.fullmatch(name)))

    @property
    def manifest(self) -> dict[str, Any]:
        self._refuse_link(MANIFEST)
        return super().manifest

    @property
    def probe(self) -> dict[str, NDArray[Any]]:
        self._refuse_link(PROBE)
        return super().probe

    def read(self, look: int) -> Record:
        stats = [(self.folder / name).stat(follow_symlinks=False) for name in self.files(look)]
        stamps = [(status.st_mtime_ns, status.st_size) for status in stats]
        before = self._read.get(look)
        if before is None or before[0] != stamps:
            before = self._read[look] = (stamps, super().read(look))
        return before[1]

    def has(self, name: str) -> bool:
        return super().has(name) and not (self.folder / name).is_symlink()

    def _refuse_link(self, name: str) -> None:
        if (self.folder / name).is_symlink():
            raise RecordError(f"{name} is a link; only files below the log folder are read.")

    def forget(self) -> None:
        """Give the memory of the looks back."""
        self._read.clear()

    def run(self) -> Run:
        """The records as :func:`cam_callbacks.compare.load_run` gives them.

        Raises:
            LoadError, RecordError, OSError: They cannot be read, or there is no look yet.
        """
        gone = self._read.keys() - set(self.looks)
        for look in gone:
            del self._read[look]
        params = logged_params(self) | hyperparameters(self.folder, top=self.root)
        return read_store(self, source=self.name, name=self.name, params=params)


class Watch:
    """The folders of records below TensorBoard's log folders. Safe to call from several threads."""

    def __init__(self, logdir: str | None) -> None:
        self.roots = roots(logdir)
        self._scanning, self._reading = threading.Lock(), threading.Lock()
        self._by_name: dict[str, Watched] = {}
        self._next_scan = 0.0
        self._recent: OrderedDict[str, Watched] = OrderedDict()
        self._data: tuple[str, bytes] = ("", b"")

    def runs(self) -> dict[str, Watched]:
        """Name → folder, sorted by name; scanned at most every three seconds, and a tenth of the time on a slow disk."""
        with self._scanning:
            began = time.monotonic()
            if began >= self._next_scan:
                fresh = {w.name: w for root, group in self.roots.items() for w in _below(root, group)}
                kept = {w.folder: w for w in self._by_name.values()}
                self._by_name = {name: kept.get(w.folder, w) for name, w in sorted(fresh.items())}
                now = time.monotonic()
                self._next_scan = now + max(RESCAN, 9 * (now - began))
            return self._by_name

    def listing(self) -> list[dict[str, object]]:
        """What the tab lists, a row for each run: name, looks, epoch of the last, version, and what is wrong with it."""
        return [_row(watched) for watched in self.runs().values()]

    def version(self, names: Sequence[str]) -> str:
        """Another text whenever the records of one of these runs have changed.

        Raises:
            KeyError: No such run.
        """
        chosen = [self.runs()[name] for name in names]
        return hashlib.sha256(repr([(watched.name, watched.version) for watched in chosen]).encode()).hexdigest()[:16]

    def data(self, names: Sequence[str]) -> bytes:
        """What the viewer shows of the runs of these names, as JSON; what cannot be read is said in it.

        Raises:
            KeyError: No such run.
            LoadError: None of them can be read.
        """
        from cam_callbacks.compare.data import page_data

        with self._reading:
            version = self.version(names)
            if self._data[0] != version:
                runs, problems = self._runs([self.runs()[name] for name in dict.fromkeys(names)])
                data = page_data(runs)
                data["notes"] = [*problems, *data["notes"]]
                self._data = (version, to_json(data, separators=(",", ":")).encode())
            return self._data[1]

    def _runs(self, chosen: Sequence[Watched]) -> tuple[list[Run], list[str]]:
        runs, problems = [], []
        for watched in chosen:
            try:
                runs.append(watched.run())
            except (LoadError, RecordError, OSError) as error:
                problems.append(printable(f"Left out: {watched.name}: {error}"))
            self._recent[watched.name] = watched
            self._recent.move_to_end(watched.name)
        while len(self._recent) > KEPT:
            self._recent.popitem(last=False)[1].forget()
        if not runs:
            raise LoadError(" ".join(problems) or "no run was asked for.")
        return runs, problems


def roots(logdir: str | None) -> Mapping[Path, str]:
    """The local folders that ``--logdir`` or ``--logdir_spec`` name, and the name of each one's group or ""."""
    groups: dict[Path, str] = {}
    whole = Path(logdir).expanduser() if logdir else None
    if whole is not None and whole.is_dir():  # a folder may well have a comma in its name
        return {whole.resolve(): ""}
    for spec in (logdir or "").split(","):
        group, colon, path = spec.partition(":")
        if not colon or spec.startswith("/") or os.path.splitdrive(spec)[0]:
            group, path = "", spec
        if path and not _SCHEME.match(spec):
            groups[Path(path).expanduser().resolve()] = group
    return groups


def _below(root: Path, group: str) -> list[Watched]:
    return [
        Watched(folder, "/".join(filter(None, (group, name_below(folder, root)))) or ".", root)
        for folder in folders_below(root)
    ]


def _row(watched: Watched) -> dict[str, object]:
    row: dict[str, object] = {"name": watched.name, "looks": 0, "version": "", "problem": ""}
    try:
        looks = watched.looks
        row |= {"looks": len(looks), "version": watched.version}
        if watched.manifest and not looks:
            row["problem"] = "no look yet: the first is written at the first validation"
    except (RecordError, OSError) as error:
        row["problem"] = printable(str(error).replace(f"{watched.folder}{os.sep}", ""))[:300]
    return row
