"""Weights from a file into a model."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cam_engine.loading.models import load_model
from cam_engine.loading.shards import read_shards

_PREFIXES = ("_orig_mod.", "module.", "model.", "net.", "network.", "backbone.")


def load_checkpoint(model: Any, path: str | Path) -> dict[str, int]:
    """Load weights into a model: a state dict, or a checkpoint that holds one under ``state_dict`` (Lightning), ``model``
    or ``model_state_dict``; ``.safetensors``; or the folder of a sharded checkpoint (torch's DCP, as Lightning and Fabric save it),
    whose shards are put together here. Prefixes such as ``module.`` and ``net.`` are taken off where that makes
    the keys fit.

    Returns:
        ``epoch`` and ``global_step`` of the training, as far as the file knows them.

    Raises:
        ValueError: No weights in the file, one that needs more than ``weights_only=True`` allows, or keys that do not
            fit; the message names them.

    >>> from cam_engine.loading import load_checkpoint
    >>> torch.save({"state_dict": model.state_dict(), "epoch": 7, "global_step": 80}, "epoch7.ckpt")
    >>> load_checkpoint(model, "epoch7.ckpt")
    {'epoch': 7, 'global_step': 80}
    """
    net = load_model(model).net
    loaded = _read(Path(path))
    state = _state_dict(loaded, path)
    wanted = net.state_dict().keys()
    state = _fitted(state, set(wanted))
    missing, unexpected = [k for k in wanted if k not in state], [k for k in state if k not in set(wanted)]
    if missing or unexpected:
        raise ValueError(
            f"{str(path)!r} does not fit {type(net).__name__}: {_listed('missing', missing)}; "
            f"{_listed('unexpected', unexpected)}."
        )
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{str(path)!r} does not fit {type(net).__name__}: {error}") from error
    return {key: loaded[key] for key in ("epoch", "global_step") if isinstance(loaded.get(key), int)}


def _read(path: Path) -> Any:
    """What a file of weights holds; nothing in it is run."""
    if path.is_dir():
        beside = path / "meta.pt"  # Lightning's
        return (_read(beside) if beside.is_file() else {}) | {"state_dict": read_shards(path)}
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{str(path)!r} is damaged or no safetensors file: {error}") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{str(path)!r} holds more than weights, and loading it could run code: {str(error).splitlines()[0]} "
            "Save the weights alone, torch.save(model.state_dict(), path), or let MODEL's factory load the file."
        ) from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"{str(path)!r} is damaged or no checkpoint: {str(error).splitlines()[0]}") from error


def _state_dict(loaded: Any, path: str | Path) -> dict[str, Tensor]:
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(v, Tensor) for v in loaded.values()):
        content = f"keys {list(loaded)[:8]}" if isinstance(loaded, Mapping) else type(loaded).__name__
        raise ValueError(
            f"{str(path)!r} holds no weights: {content}; a state dict, or one under 'state_dict', is expected."
        )
    return {str(key): value for key, value in loaded.items()}


def _fitted(state: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """The keys with prefixes taken off, as long as more of them then fit. A Lightning checkpoint also holds a loss's
    weights and metrics: where all that the model wants is there under one prefix, the rest is left out."""
    best = state
    while True:
        parts = [key.split(".")[:-1] for key in best]
        # Two at once where the first alone makes none fit: FSDP1's shards lie under "model." in front of the module's own names.
        prefixes = {".".join(of[:n]) + "." for of in parts for n in (1, 2) if len(of) >= n} | set(_PREFIXES)
        variants = [{k.removeprefix(p): v for k, v in best.items() if k.startswith(p)} for p in sorted(prefixes)]
        better = max(variants, key=lambda variant: len(wanted & variant.keys()))
        if len(wanted & better.keys()) <= len(wanted & best.keys()):
            return best
        best = better


def _listed(what: str, keys: list[str]) -> str:
    return f"{len(keys)} {what}" + (f" ({', '.join(keys[:5])}{', …' if len(keys) > 5 else ''})" if keys else "")
