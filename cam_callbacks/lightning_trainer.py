"""What a Lightning Trainer and its module tell: which module is explained, and where records go."""

from __future__ import annotations

import operator
import os
import re
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from cam_callbacks.delivery.background import Background
from cam_callbacks.keys import plain_key
from cam_callbacks.loggers.registry import is_a
from cam_callbacks.mlflow_server import check_reachable
from cam_callbacks.run_folder import folder_name
from cam_engine.flattened import is_inside
from cam_engine.layers import module_names
from cam_engine.sharding import is_sharded

NAME_WAIT = 3.0  # seconds for an MLflow server to tell a run's name


def run_of(trainer: Any, folder: str | os.PathLike[str] | None, name: str | None) -> tuple[str, Path | None]:
    """Name of the run and folder of its records; None in a fast_dev_run, which leaves nothing behind.

    Args:
        trainer: Its MLFlowLogger names the run, else its WandbLogger, else its first logger that has a name; else the time does.
        folder: The user's choice; by default beside what a TensorBoardLogger or CSVLogger writes, else below
            ``default_root_dir``, under the name of the run.
        name: Of the callback, a folder of its own below.
    """
    run = _run_name(trainer.loggers) or time.strftime("%Y-%m-%d_%H-%M-%S")
    if folder is not None:
        return run, Path(folder)
    if trainer.fast_dev_run:
        return run, None
    folders = (logger for logger in _of_class(trainer.loggers, "TensorBoardLogger", "CSVLogger") if logger.log_dir)
    beside = next(folders, None)
    below = Path(trainer.default_root_dir) / "cam_records" / folder_name(run)
    own = below if beside is None else Path(beside.log_dir) / "cam"
    return run, own / name if name else own


def _run_name(loggers: Sequence[Any]) -> str:
    """What loggers call this run, the one that people name it in first; "" where none has a name for it."""
    for logger in _of_class(loggers, "MLFlowLogger"):
        return mlflow_run_name(logger)
    for logger in _of_class(loggers, "WandbLogger"):
        run = logger.experiment  # on other ranks than 0 a stand-in, which has no name: any will do there
        return next((name for name in (run.name, run.id) if name and isinstance(name, str)), "run")
    names = (
        "/".join(str(part) for part in (logger.name, logger.version) if part not in (None, "")) for logger in loggers
    )
    return next(filter(None, names), "")


def _of_class(loggers: Sequence[Any], *names: str) -> list[Any]:
    """Loggers of these classes, those of the first one first."""
    return [logger for name in names for logger in loggers if is_a(logger, name)]


def validates_last(trainer: Any) -> bool:
    """Is this the last validation of its fit, as far as the trainer's limits tell? Of one that is ended early it is not known."""
    if trainer.state.fn != "fit":
        return True
    loop, every = trainer.fit_loop, trainer.check_val_every_n_epoch
    steps_end = 0 <= trainer.max_steps <= trainer.global_step
    epochs_end = trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch + (every or 1)
    return steps_end or (epochs_end and bool(loop.epoch_loop.batch_progress.is_last_batch))


def tracking_uri(trainer: Any) -> str | None:
    """The tracking server of the first MLFlowLogger."""
    return next((getattr(flow, "_tracking_uri", None) for flow in _of_class(trainer.loggers, "MLFlowLogger")), None)


def mlflow_run_name(logger: Any) -> str:
    """The name that MLflow shows for a logger's run; on other ranks than 0, which have no run, any name will do."""
    if logger.run_id is None:
        return "run"
    client, run_id = logger.experiment, str(logger.run_id)
    names: list[str] = []

    def ask() -> None:
        check_reachable(client.tracking_uri)
        names.append(client.get_run(run_id).data.tags.get("mlflow.runName") or run_id)

    asking = Background("cam-callbacks run name", ask)  # a server that listens and is silent would hold us for minutes
    asking.flush(NAME_WAIT)
    asking.stop()
    return names[0] if names else str(logger._run_name or run_id)


def explained_module(trainer: Any, module: nn.Module, name: str | None, has_own_call: bool) -> nn.Module:
    """The part of a LightningModule that is explained: the one of that name, or itself, or its only network.

    Args:
        trainer: Its strategy may have wrapped the LightningModule.
        module: The LightningModule.
        name: Dotted name of its attribute, or None.
        has_own_call: It is called by the user's ``forward=``, and need not define a forward.

    Raises:
        ValueError, TypeError: No such attribute, or not clear which.
    """
    part = _part(module, name, has_own_call)
    if isinstance(trainer.strategy.model, nn.Module):
        is_inside(part, trainer.strategy.model)
    return part


def _part(module: nn.Module, name: str | None, has_own_call: bool) -> nn.Module:
    if name is not None:
        try:
            part = operator.attrgetter(name)(module)
        except AttributeError:
            children = [child for child in module_names(module).values() if child and "." not in child]
            raise ValueError(
                f"model={name!r}: {type(module).__name__} has no such attribute; its modules are {', '.join(children)}."
            ) from None
        if not isinstance(part, nn.Module):
            raise TypeError(f"model={name!r} is a {type(part).__name__}, not a torch.nn.Module.")
        return part
    if has_own_call or _has_forward(module):
        return module
    networks = {name: child for name, child in module.named_children() if any(True for _ in child.parameters())}
    if len(networks) == 1:
        return next(iter(networks.values()))
    raise ValueError(
        f"{type(module).__name__} defines no forward; say what to explain with model=, one of "
        f"{', '.join(map(repr, networks))}, or pass forward=."
    )


def can_begin(trainer: Any, module: nn.Module) -> bool:
    """Can the model be run before its first training batch?

    Not with parameters whose shape that batch will tell; not under ``fully_shard``, where torch takes the module that is run first
    for the whole model; and not where no optimizer trains it: what is fitted otherwise (PatchCore's memory, PaDiM's Gaussians)
    may say nothing of an image before its first epoch has ended.
    """
    whole = trainer.strategy.model if isinstance(trainer.strategy.model, nn.Module) else module
    if is_sharded(whole) or any(nn.parameter.is_lazy(p) for p in module.parameters()):
        return False
    return any(type(optimizer).__name__ != "_MockOptimizer" for optimizer in trainer.optimizers)


def expect_equal_values(name: str | None) -> None:
    """Let Lightning not recommend ``sync_dist`` for our keys, one by one: of several processes each logs the same values."""
    ours = re.escape(plain_key("", name))
    warnings.filterwarnings("ignore", rf"It is recommended to use `self\.log\('{ours}")


def log_metrics(trainer: Any, values: dict[str, float]) -> None:
    """Numbers for every logger, at the step under which Lightning logs those of a validation."""
    steps = getattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped", trainer.global_step)
    for logger in trainer.loggers if values else ():
        logger.log_metrics(values, step=steps)


def not_looked_at(trainer: Any) -> str | None:
    """Why models cannot be looked at under the trainer's strategy, and what would work; None where they can."""
    name = type(trainer.strategy).__name__
    if "XLA" not in name:
        return None
    return (
        f"under {name} there is no look at a model. Under FSDP, ModelParallelStrategy and DeepSpeed there is, and cam-callbacks "
        "replay looks at checkpoints."
    )


def refuse_twins(callback: Any, ours: Sequence[Any]) -> None:
    """Refuse several callbacks that would write to the same keys or the same records.

    Args:
        callback: A CAMCallback.
        ours: All CAMCallbacks of its trainer.

    Raises:
        ValueError: Another one has its name, or its folder.
    """
    names = [c.name for c in ours]
    if names.count(callback.name) > 1:
        raise ValueError(
            f"{names.count(callback.name)} CAMCallbacks on one trainer share name={callback.name!r}, and so their metric keys "
            'and records; give each its own name, such as CAMCallback(..., name="late").'
        )
    if callback.folder is not None and [c.folder and Path(c.folder) for c in ours].count(Path(callback.folder)) > 1:
        raise ValueError(
            f"several CAMCallbacks on one trainer write to folder={str(callback.folder)!r}; give each its own, or none: "
            "then each takes one under its name."
        )


def _has_forward(module: nn.Module) -> bool:
    """Did the user define a forward? Those of torch and of the two Lightning packages are placeholders."""
    owner = next(cls for cls in type(module).__mro__ if "forward" in vars(cls))
    packages = ("torch", "pytorch_lightning", "lightning")
    return "forward" in vars(module) or owner.__module__.partition(".")[0] not in packages
