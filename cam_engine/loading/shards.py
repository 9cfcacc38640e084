"""Checkpoints that several processes saved, each its shard (``torch.distributed.checkpoint``), put together in one."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_MODEL = "state_dict."  # what Lightning puts before the model's own names
_LISTED = (
    "BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties",
    "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
)  # fmt: skip
_KINDS = {  # what the list of shards is made of; beside these, torch's types of numbers
    *(("torch.distributed.checkpoint.metadata", name) for name in _LISTED),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("collections", "OrderedDict"),
    ("pathlib", "PosixPath"),
    ("pathlib", "WindowsPath"),
}


def is_sharded_checkpoint(path: Path) -> bool:
    """Is it the folder of a checkpoint that several processes saved, each its shard?

    >>> from pathlib import Path
    >>> from cam_engine.loading import is_sharded_checkpoint
    >>> is_sharded_checkpoint(Path("epoch7.ckpt"))  # no such folder
    False
    """
    return (path / ".metadata").is_file()


def read_shards(path: Path) -> dict[str, Tensor]:
    """All tensors of a sharded checkpoint, whole, by their dotted names; what belongs to an optimizer is left where it is.

    Raises:
        ValueError: It is no such folder; or its list of shards, a pickle, holds more than such a list, and reading it could run
            code.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

    if not is_sharded_checkpoint(path):
        raise ValueError(f"{str(path)!r} is a folder without .metadata, and so no sharded checkpoint.")
    with (path / ".metadata").open("rb") as file:
        stored = _ListOfShards(file).load()
    if not isinstance(stored, Metadata):
        raise ValueError(f"{str(path / '.metadata')!r} holds no list of shards, but a {type(stored).__name__}.")

    class Reader(dcp.FileSystemReader):
        def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
            return stored

    wanted = {
        key: torch.empty(entry.size, dtype=entry.properties.dtype)
        for key, entry in stored.state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata) and not key.startswith("optim")
    }
    model = {key: tensor for key, tensor in wanted.items() if key.startswith(_MODEL)} or wanted
    dcp.load(model, storage_reader=Reader(path), no_dist=True)
    return {key.removeprefix(_MODEL): tensor for key, tensor in model.items()}


class _ListOfShards(pickle.Unpickler):
    """Makes nothing but what a list of shards is made of."""

    def find_class(self, module: str, name: str) -> Any:
        number = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if not (number or (module, name) in _KINDS):
            raise ValueError(f"the checkpoint's .metadata names {module}.{name}, and loading it could run code.")
        return super().find_class(module, name)
