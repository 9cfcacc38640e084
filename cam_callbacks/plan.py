"""How the processes of a training share a look: one plan for models that each of them has whole, and for those that are spread.

Replicated (one process, DDP): each explains its share of the probe by itself; what it found is gathered. Sharded (FSDP, ZeRO-3,
tensor parallel): no process can run the model alone, so all take every step together, on equally many images, the last ones of a
share twice where the numbers do not come out even. Processes that hold parts of the same layer get the same images, and are one
share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from torch import nn

from cam_callbacks import processes
from cam_callbacks.agreement import Agreement, own_connections
from cam_engine.flattened import begin_units, is_inside, units_of
from cam_engine.partitioned import is_partitioned
from cam_engine.sharding import is_sharded, ranks_of_same_images, refuse_flattened, refuse_part

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Plan:
    """Who explains what, and what all have to do together.

    ``shares``: for each share the ranks that compute it. ``agreement``: of the processes, where the model is sharded.
    """

    shares: tuple[tuple[int, ...], ...]
    agreement: Agreement | None = None

    @property
    def sharded(self) -> bool:
        """Does a forward of the model take all processes?"""
        return self.agreement is not None

    def own(self, n: int) -> list[int]:
        """Which of ``n`` images this process explains; empty where there are more shares than images."""
        index = next(i for i, ranks in enumerate(self.shares) if processes.rank() in ranks)
        return [int(i) for i in np.array_split(np.arange(n), len(self.shares))[index]]

    def padded(self, n: int) -> list[int]:
        """The same, and of a sharded model further ones, so that it runs equally often on every process."""
        own = self.own(n)
        most = -(-n // len(self.shares)) if self.sharded else len(own)
        return own + (own[-1:] or [0]) * (most - len(own))

    def everywhere(self, compute: Callable[[], T], alike: Callable[[T, T], bool] | None = None) -> list[T]:
        """What ``compute`` returns for every share, in order, on every process; it may run the model.

        Args:
            compute: Of this process's share.
            alike: Are two answers to the same question the same? Asked of processes that hold parts of one layer.

        Raises:
            LookError: On every process alike, if it failed on any, or answers differ that should not.
        """
        gathered = self._gathered(compute)
        if alike is not None and not all(
            alike(gathered[ranks[0]], gathered[r]) for ranks in self.shares for r in ranks[1:]
        ):
            raise processes.LookError(
                "processes that hold parts of one tensor parallel layer found different maps for the same images: inside of such a "
                "block a layer returns on each process only its own part. Choose layers= at the end of the block, or let its parts "
                "return DTensors (use_local_output=False), which are put together."
            )
        return [gathered[ranks[0]] for ranks in self.shares]

    def together(self, compute: Callable[[], T]) -> T:
        """This process's own answer, once ``compute``, which may run the model, has failed on none.

        Raises:
            LookError: On every process alike, if it failed on any.
        """
        answers: list[T] = []
        self._gathered(lambda: answers.append(compute()))
        return answers[0]

    def step(self, compute: Callable[[], T]) -> T:
        """A part of the computing that may be done again where memory ran out: by all processes, where the model is sharded.

        Raises:
            StepError: Of a sharded model, on every process alike, where it failed on any.
        """
        return compute() if self.agreement is None else self.agreement.step(compute)

    def _gathered(self, compute: Callable[[], T]) -> list[T]:
        if self.agreement is None:
            return processes.everywhere(compute)
        return processes.everywhere(lambda: self.step(compute), self.agreement.connections)


def network_of(model: nn.Module) -> nn.Module:
    """The network in what ``deepspeed.initialize`` returned; and in what ``fabric.setup`` did, where FSDP1 or DeepSpeed wrapped it,
    for a backward through that is Fabric's to begin.

    Raises:
        TypeError: It is no module, such as a stage of a pipeline.
    """
    kind = type(model).__name__
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"a look takes a torch.nn.Module that maps images to outputs, got {kind}. A pipeline's stage is none by itself: "
            "cam-callbacks replay looks at checkpoints of the whole."
        )
    around: Any = model._forward_module if kind == "_FabricModule" else model
    network: Any = model.module if kind in ("_FabricModule", "DeepSpeedEngine") else model
    if network is model or not (units_of(around) or is_partitioned(around)):
        return model
    is_inside(network, around)
    return network


def replicated() -> Plan:
    """Each process has the whole model, and its own share of the images."""
    return Plan(tuple((rank,) for rank in range(processes.world_size())))


def plan_of(model: nn.Module) -> Plan:
    """How to look at a model; every process has to ask.

    Raises:
        ValueError: It is spread by an engine that is not looked at, on every process alike.
        LookError: It is a part of a sharded model that cannot be run by itself.
    """
    refuse_flattened(model)
    if not is_sharded(model):
        return replicated()

    def ranks() -> tuple[int, ...]:
        refuse_part(model)
        begin_units(model)
        return tuple(ranks_of_same_images(model))

    shares = processes.everywhere(ranks, own_connections())
    return Plan(tuple(sorted(set(shares))), Agreement(model))
