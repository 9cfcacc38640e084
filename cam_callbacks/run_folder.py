"""Where the records of a run go: one folder a run, which a resumed run goes on with and a new one never shares."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cam_callbacks.delivery import Ledger
from cam_callbacks.records import MANIFEST, RecordStore, free_folder

log = logging.getLogger(__name__)


def folder_name(run: str) -> str:
    """A run's name as that of one folder, inside the one it is put in and not longer than file systems take."""
    return re.sub(r"[/\\\0]", "_", run)[:80].strip(". ") or "run"


def take_up(folder: Path, resumed: Mapping[str, Any] | None) -> Path:
    """The folder to write to, with the records that are there to be gone on with.

    A new run gets ``<folder>-2``, ``<folder>-3``, … where the folder holds records already. A resumed one gets copies of
    its records where it writes elsewhere now; those of looks after the checkpoint are removed, for they are made again.

    Args:
        folder: Where the run is to write.
        resumed: What :meth:`cam_callbacks.CAMMonitor.state_dict` said at the checkpoint; None for a new run.
    """
    if resumed is None:
        return own_folder(folder)
    store = RecordStore(folder)
    before = None if resumed["folder"] is None else Path(resumed["folder"])
    if before is not None and before != folder and before.is_dir() and not len(store):
        folder.mkdir(parents=True, exist_ok=True)
        for path in before.iterdir():
            if path.is_file() and not path.name.startswith("."):
                shutil.copy2(path, folder / path.name)
    for look in store.looks:
        if look >= resumed["looks"]:
            store.remove(look)
    if not resumed["looks"]:  # the first look claims the folder anew
        (folder / MANIFEST).unlink(missing_ok=True)
    Ledger(folder).forget_from(resumed["looks"])
    return folder


def own_folder(folder: Path) -> Path:
    """The folder, or one beside it where it holds the records of another run."""
    free = free_folder(folder)
    if free != folder:
        log.warning("cam-callbacks: %s holds the records of another run; these go to %s", folder, free)
    return free
