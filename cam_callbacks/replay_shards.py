"""Checkpoints that several processes share: each keeps what it has seen in files, and the last one makes the records of them.

What a look asks of the model does not depend on the looks before it; drift, references and alerts do, and need no model. So the
records are those of one process that goes through all checkpoints. The processes need not run at one time, nor talk to each other.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cam_callbacks.look.options import LookOptions
from cam_callbacks.look.seen import Seen, from_bytes
from cam_callbacks.probe import ProbeSet
from cam_callbacks.records.files import RecordError, read_file, write_atomically

FOLDER = "shards"
# Of the options those that change what is asked of a model; the others only what is made of it.
_ASKED = (
    "methods", "layers", "target", "forward", "output", "reshape", "seed", "metrics", "exchange", "exchange_pairs", "hooks",
)  # fmt: skip


@dataclass(frozen=True)
class Shard:
    """The ``number``-th, from 1, of ``count`` processes that share the checkpoints of :func:`cam_callbacks.replay`.

    >>> from cam_callbacks import Shard, replay
    >>> files = [f"epoch{epoch}.pt" for epoch in range(2)]
    >>> for file in files:
    ...     torch.save(model.state_dict(), file)
    >>> done = replay(model, files, probe, folder="shared", shard=Shard(1, 2))  # nothing while the other is not done
    >>> [record.look for record in replay(model, files, probe, folder="shared", shard=Shard(2, 2))]
    [0, 1]
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"shard {self}: shards are counted from 1, as in 3/16.")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Of ``"3/16"``.

        Raises:
            ValueError: It is not of that form.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None:
            raise ValueError(f"{text!r} is no shard; the third of sixteen is 3/16.")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of_launcher(cls, environment: Mapping[str, str] = os.environ) -> Shard | None:
        """What torchrun says of this process; None where it did not start it, or alone."""
        rank, world = environment.get("RANK", ""), environment.get("WORLD_SIZE", "")
        return cls(int(rank) + 1, int(world)) if rank.isdigit() and world.isdigit() and int(world) > 1 else None

    def own(self, n: int) -> range:
        """Which of ``n`` checkpoints are this process's."""
        return range(self.number - 1, n, self.count)


class Kept:
    """What processes have seen of the checkpoints, a file each, beside the records to come."""

    def __init__(
        self, folder: str | os.PathLike[str], paths: Sequence[Path], probe: ProbeSet, options: LookOptions
    ) -> None:
        asked = {name: _named(getattr(options, name)) for name in _ASKED}
        described = repr(([path.name for path in paths], probe.fingerprint, sorted(asked.items())))
        self.folder = Path(folder) / FOLDER / hashlib.sha256(described.encode()).hexdigest()[:16]
        self.paths = paths

    def file(self, index: int) -> Path:
        """Where what was seen of a checkpoint is kept."""
        return self.folder / f"{index:06d}.pt"

    def write(self, index: int, data: bytes) -> None:
        """Keep what :meth:`CAMMonitor.see` returned."""
        write_atomically(self.file(index), data)

    def read(self, index: int) -> tuple[Seen, dict[str, Any]] | None:
        """What was seen of a checkpoint; None where there is no such file, or a damaged one, or the checkpoint is newer."""
        try:
            if os.stat(self.file(index)).st_mtime < os.stat(self.paths[index]).st_mtime:
                return None
            return from_bytes(read_file(self.file(index)))
        except (OSError, RecordError, ValueError):
            return None

    @property
    def complete(self) -> bool:
        """Has every checkpoint been seen?"""
        return all(self.file(index).is_file() for index in range(len(self.paths)))

    @property
    def lock(self) -> Path:
        """Of the process that makes the records."""
        return self.folder.with_suffix(".lock")

    def remove(self) -> None:
        """The records are there."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):  # others may be at work there
            self.lock.unlink(missing_ok=True)
            self.folder.parent.rmdir()


def _named(option: Any) -> Any:
    """An option as it is on every machine: of what is no plain value its name or type."""
    if isinstance(option, (list, tuple)):
        return [_named(each) for each in option]
    plain = option is None or isinstance(option, (str, int, float))
    return option if plain else getattr(option, "__qualname__", type(option).__qualname__)
