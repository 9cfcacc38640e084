"""Calls in a folder until they are sent, a file each; in memory as long as the disk refuses.

00000000.json        one call and its arguments
00000001/            the files of a call that sends some
00000002.refused     what the server will never take, and why; its files stay too
00000003.damaged     what cannot be read
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from cam_callbacks.delivery.mlflow_calls import SENDS_FILES, Call, check_call, described
from cam_callbacks.failures import one_line
from cam_callbacks.records.files import LARGEST_TEXT, read_file, write_atomically

log = logging.getLogger(__name__)

MOST_IN_MEMORY = 100_000  # calls, mostly numbers: some ten megabytes
_NUMBERED = re.compile(r"([0-9]{8,})(\..+)?")


class CallFiles:
    """What waits in a folder, by number. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._in_memory: dict[str, bytes] = {}  # files that the disk refuses, by name
        self._elsewhere: dict[str, tempfile.TemporaryDirectory[str]] = {}  # what such calls send
        self._done: set[int] = set()  # and not to be removed from a disk that has become read-only
        self._warned = False
        self._next = max((number for number, _ in self._numbered()), default=-1) + 1

    def waiting(self) -> list[int]:
        """Numbers of the calls not sent yet, ascending."""
        return sorted({number for number, kind in self._numbered() if kind == ".json"} - self._done)

    def refused(self) -> list[str]:
        """What the server will never take, each with the reason."""
        told: list[str] = []
        for number in sorted(number for number, kind in self._numbered() if kind == ".refused"):
            with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):  # a folder may come from elsewhere
                told += [
                    f"{one['what']} ({one['why']})" for one in json.loads(self._data(self._path(number, ".refused")))
                ]
        return told

    def append(self, call: str, arguments: dict[str, Any], files: Path | None = None) -> None:
        """Keep a call; ``files`` is copied, a file or a folder.

        Raises:
            OSError: The files are not there, or neither this disk nor the temporary folder takes them; or memory holds enough.
        """
        with self._lock:
            number, self._next = self._next, self._next + 1
        name = self._path(number).name
        content = {"call": call, "file": None if files is None else files.name, "arguments": arguments}
        data = json.dumps(content, default=_plain).encode()
        try:
            if files is not None:
                _copy(files, self._files(name))
            # Numbers are many and small: a killed process loses none of them without fsync either, only a power cut may.
            self._save(name, data, flush=call != "log_batch")
        except OSError as error:
            shutil.rmtree(self._files(name), ignore_errors=True)
            if files is not None:
                elsewhere = tempfile.TemporaryDirectory(prefix="cam-callbacks-")
                _copy(files, Path(elsewhere.name))
                self._elsewhere[name] = elsewhere
            self._hold(name, data, error)
        else:
            self.to_disk()

    def write(self, name: str, data: bytes) -> None:
        """Keep another file beside them."""
        try:
            self._save(name, data)
        except OSError as error:
            self._hold(name, data, error)

    def to_disk(self) -> bool:
        """Write what is in memory, for there may be room again; is everything on disk now?"""
        with self._lock:
            for name, data in list(self._in_memory.items()):
                try:
                    if (elsewhere := self._elsewhere.get(name)) is not None:
                        shutil.copytree(elsewhere.name, self._files(name), dirs_exist_ok=True)
                    self._save(name, data)
                except OSError:
                    return False
        return True

    def read(self, number: int) -> dict[str, Any]:
        """A call that waits, with its number.

        Raises:
            ValueError, KeyError, TypeError: It is damaged, or can never be sent.
        """
        call: dict[str, Any] = json.loads(self._data(self._path(number)))
        call = call | {"number": number, "arguments": dict(call["arguments"])}
        check_call(call, self.file(call))
        return call

    def file(self, call: Call) -> Path | None:
        """What a call sends; inside the folder, whatever the call says."""
        if call["call"] not in SENDS_FILES:
            return None
        name = self._path(call["number"]).name
        elsewhere = self._elsewhere.get(name)
        return (self._files(name) if elsewhere is None else Path(elsewhere.name)) / Path(call["file"]).name

    def remove(self, number: int, files: bool = True) -> None:
        """The call is sent."""
        path = self._path(number)
        with self._lock:
            self._in_memory.pop(path.name, None)
            try:
                path.unlink(missing_ok=True)
            except OSError:
                self._done.add(number)
        if files:
            shutil.rmtree(self._files(path.name), ignore_errors=True)
            if (elsewhere := self._elsewhere.pop(path.name, None)) is not None:
                elsewhere.cleanup()

    def set_aside(self, number: int, error: Exception) -> None:
        """Keep what can never be sent, as it is, where it holds up nothing."""
        path = self._path(number)
        log.warning("cam-callbacks: %s is damaged and left out (%s)", path, one_line(error))
        try:
            path.rename(path.with_suffix(".damaged"))
        except OSError:
            self._done.add(number)

    def keep_refused(self, number: int, refused: list[tuple[Call, Exception]]) -> None:
        """Keep what the server will never take, with its reason, where it holds up nothing."""
        path = self._path(number, ".refused")
        kept = [dict(call) | {"what": described(call), "why": one_line(error)} for call, error in refused]
        self.write(path.name, json.dumps(kept, indent=1).encode())
        for one in kept:
            log.warning("cam-callbacks: MLflow refused %s (%s); it is kept in %s", one["what"], one["why"], path)

    def _save(self, name: str, data: bytes, flush: bool = True) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # parameters and tags may be anybody's secret
        write_atomically(self.folder / name, data, flush, private=True)
        self._in_memory.pop(name, None)

    def _hold(self, name: str, data: bytes, error: OSError) -> None:
        with self._lock:
            if len(self._in_memory) >= MOST_IN_MEMORY:
                raise error
            if not self._warned:
                log.warning(
                    "cam-callbacks: %s cannot be written to (%s); calls to MLflow are sent from memory, and lost where this "
                    "process ends before", self.folder, one_line(error),
                )  # fmt: skip
            self._warned = True
            self._in_memory[name] = data

    def _data(self, path: Path) -> bytes:
        held = self._in_memory.get(path.name)
        return read_file(path, LARGEST_TEXT) if held is None else held

    def _numbered(self) -> list[tuple[int, str]]:
        """The files and folders of calls, sent or not: their numbers, and what they are."""
        names = {*(os.listdir(self.folder) if self.folder.is_dir() else ()), *list(self._in_memory)}
        return [(int(found[1]), found[2] or "") for found in map(_NUMBERED.fullmatch, names) if found]

    def _path(self, number: int, kind: str = ".json") -> Path:
        return self.folder / f"{number:08d}{kind}"

    def _files(self, name: str) -> Path:
        return self.folder / name.removesuffix(".json")


def _copy(files: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if files.is_dir():
        shutil.copytree(files, folder / files.name)
    else:
        shutil.copy2(files, folder / files.name)


def _plain(value: Any) -> Any:
    """What MLflow's own client takes and JSON does not: numpy's and torch's numbers, paths."""
    return value.item() if hasattr(value, "item") else str(value)
