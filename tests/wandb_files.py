"""What an offline run of Weights & Biases left on disk, read without its server."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

OFFLINE = {"WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "WANDB_ERROR_REPORTING": "false", "WANDB_MODE": "offline"}
BLOCK, HEADER, WHOLE, LAST = 32768, 7, 1, 4


def history(folder: Path) -> list[dict[str, Any]]:
    """The rows of all runs below a folder, oldest run first; of a picture ``{"path": …}``, where its file lies."""
    _wait_for_ends(folder)
    return [
        _row(record) | {"files": path.parent / "files"}
        for path in sorted(folder.rglob("*.wandb"))
        for record in _records(path)
        if record.WhichOneof("record_type") == "history"
    ]


def kinds(folder: Path, kind: str) -> list[Any]:
    """The other things that were sent: ``metric``, ``alert``, …."""
    _wait_for_ends(folder)
    found = [record for path in sorted(folder.rglob("*.wandb")) for record in _records(path)]
    return [getattr(record, kind) for record in found if record.WhichOneof("record_type") == kind]


def _wait_for_ends(folder: Path, patience: float = 20.0) -> None:
    """W&B's own process writes, and may still do so when a run has been finished: until all runs have ended, or nothing more comes
    for a while."""
    deadline, before, quiet = time.monotonic() + patience, -1, 0
    while time.monotonic() < deadline:
        runs = [list(_records(path)) for path in folder.rglob("*.wandb")]
        if runs and all("exit" in {record.WhichOneof("record_type") for record in run} for run in runs):
            return
        size = sum(map(len, runs))
        quiet, before = quiet + 1 if size == before and size > 5 else 0, size
        if quiet == 10:
            return
        time.sleep(0.2)


def _row(record: Record) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for item in record.history.item:
        *nests, key = item.nested_key or [item.key]
        inside = row
        for nest in nests:
            inside = inside.setdefault(nest, {})
        inside[key] = json.loads(item.value_json)
    return row


def _records(path: Path) -> Iterator[Record]:
    """The file is LevelDB's log: blocks, in which a record may be in pieces."""
    data, at, pieces = path.read_bytes(), HEADER, b""
    while at + HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        at += HEADER
        pieces, at = pieces + data[at : at + length], at + length
        if kind in (WHOLE, LAST):
            record = Record()
            record.ParseFromString(pieces)
            pieces = b""
            yield record
