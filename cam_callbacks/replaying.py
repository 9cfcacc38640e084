"""The same records from checkpoints that were saved, after the fact."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from cam_callbacks.delivery.lock import alone
from cam_callbacks.look.monitor import CAMMonitor
from cam_callbacks.probe import ProbeSet
from cam_callbacks.records import Record
from cam_callbacks.replay_shards import Kept, Shard
from cam_engine.loading import is_sharded_checkpoint, load_checkpoint

SUFFIXES = (".ckpt", ".safetensors", ".pt", ".pth", ".bin")


def replay(
    model: nn.Module,
    checkpoints: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    probe: ProbeSet,
    *,
    folder: str | os.PathLike[str] | None = None,
    shard: Shard | None = None,
    **options: Any,
) -> list[Record]:
    """Look through the weights of every checkpoint in turn, as :class:`CAMCallback` would have done at the time.

    Args:
        model: Takes the weights; afterwards it has those of before.
        checkpoints: Files in the order of the training: Lightning's ``.ckpt``, plain state dicts, ``.safetensors``; or folders
            of shards that several processes saved, which are put together here. Or a folder of them, whose files are taken in the
            order of the numbers in their names.
        probe: The images.
        folder: Where the records go; None keeps nothing on disk.
        shard: Of several processes that share the checkpoints, at one time or not; ``Shard(3, 16)`` is the third of sixteen. Each
            keeps in ``folder`` what it has seen; the last one, or a later call without ``shard``, makes the records of it.
        **options: As for :class:`CAMMonitor`: ``methods``, ``layers``, ``target``, ``reference``, ``forward``, ….

    Returns:
        One record for each checkpoint, with its epoch and step where the file knows them, else their number. None from a shard
        that others are not done beside.

    Raises:
        FileNotFoundError: No such checkpoint, or none in the folder.
        ValueError: A file that holds more than weights and plain values (it would have to be unpickled, which can run
            code), or weights that do not fit.

    >>> from cam_callbacks import replay
    >>> torch.save({"state_dict": model.state_dict(), "epoch": 7}, "epoch7.ckpt")
    >>> [record.epoch for record in replay(model, ["epoch7.ckpt"], probe, methods="gradcam")]
    [7]
    """
    paths = checkpoint_paths([checkpoints] if isinstance(checkpoints, (str, os.PathLike)) else checkpoints)
    monitor = CAMMonitor(probe, folder=folder, **options)
    before = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    kept = None if folder is None else Kept(folder, paths, probe, monitor.options)
    try:
        if shard is None:
            return _looked(model, monitor, paths, kept)
        if kept is None:
            raise ValueError(f"shard {shard}: pass folder=, where the shards keep what they have seen.")
        load_checkpoint(model, paths[0])  # what a look settles is settled by the first one
        monitor.resolve(model)
        for index in shard.own(len(paths)):
            if kept.read(index) is None:
                when = load_checkpoint(model, paths[index])
                kept.write(index, monitor.see(model, **when))
        if not kept.complete:
            return []
        with alone(kept.lock):  # another may be the last one too
            return _looked(model, monitor, paths, kept) if kept.complete else []
    finally:
        model.load_state_dict(before)


def _looked(model: nn.Module, monitor: CAMMonitor, paths: Sequence[Path], kept: Kept | None) -> list[Record]:
    """The records of all checkpoints, of what was seen of them before where that was kept."""
    records = []
    for index, path in enumerate(paths):
        found = None if kept is None else kept.read(index)
        seen, when = (None, {}) if found is None else found
        if seen is None or not index:
            when = load_checkpoint(model, path)
        records.append(monitor.look(model, when.get("epoch"), when.get("global_step"), seen=seen))
    if kept is not None:
        kept.remove()
    return records


def checkpoint_paths(given: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The files, those of folders in the order of the numbers in their names; ``last.ckpt`` repeats one and is left out."""
    paths: list[Path] = []
    for path in map(Path, given):
        if is_sharded_checkpoint(path):
            paths.append(path)
        elif path.is_dir():
            found = [
                p for p in path.iterdir() if (p.suffix in SUFFIXES or is_sharded_checkpoint(p)) and p.stem != "last"
            ]
            if not found:
                raise FileNotFoundError(
                    f"no checkpoint in {str(path)!r}: files of {', '.join(SUFFIXES)} are looked for."
                )
            paths += sorted(found, key=lambda p: _natural(p.name))
        elif path.is_file():
            paths.append(path)
        else:
            raise FileNotFoundError(f"no checkpoint {str(path)!r}.")
    if not paths:
        raise FileNotFoundError("no checkpoint was given.")
    return paths


def _natural(name: str) -> list[tuple[int, str]]:
    """Numbers in a name count as numbers: epoch=10 comes after epoch=9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]
