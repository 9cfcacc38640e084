"""DeepSpeed's ZeRO-3: what a look has to know of it, and to leave as it was.

Hooks on every module gather its parameters before its forward and its backward, and free them after. A coordinator learns the order
of modules in a training step to gather ahead; a look goes through them in another, and so gets one of its own. What is read here of
DeepSpeed's own state has no public name; ``tests/models/test_sharded_zero3.py`` runs against the DeepSpeed that is installed.
"""

from __future__ import annotations

import copy
import sys
from typing import Any, cast

from torch import Tensor, nn

from cam_engine.flattened import whole_of

# What is called and read here of DeepSpeed's gathering, as it stands in the version that this was written for.
_VERSION = "0.19"
_OF_COORDINATOR = (
    "_clean_inflight_param_registry",
    "_invalidate_trace",
    "is_invalid_trace",
    "release_backward_leftovers",
)
_HOOKS = "deepspeed.runtime.zero.parameter_offload"
_OF_BACKWARD = ("applied_pre_backward_ref_cnt", "ds_grads_remaining")  # what each module counts


def is_partitioned(model: nn.Module) -> bool:
    """Are parameters of it spread by ZeRO-3?"""
    return any(hasattr(parameter, "ds_tensor") for parameter in model.parameters())


def refuse_unknown(model: nn.Module) -> None:
    """Refuse a model whose parameters an engine spreads that is not known.

    Raises:
        ValueError: It is one, or DeepSpeed is of a version that works otherwise inside.
    """
    if not is_partitioned(model):
        return
    offload = _offload_of(model)
    if offload is None:
        raise ValueError(
            f"DeepSpeed's ZeRO-3 spreads the parameters of {type(model).__name__}: hand over the engine, what "
            "deepspeed.initialize returned, and not a module of its own."
        )
    needed = [(offload.param_coordinator, name) for name in _OF_COORDINATOR]
    needed += [(sys.modules[_HOOKS], "FWD_MODULE_STACK")]
    needed += [(module, "ds_recompute_parameters") for module in offload.module.modules()]
    if missing := next((name for of, name in needed if not hasattr(of, name)), None):
        raise ValueError(
            f"DeepSpeed {sys.modules['deepspeed'].__version__} has no {missing}, which a look at a model under ZeRO-3 needs: "
            f"install deepspeed {_VERSION}."
        )


def departitioned(parameter: Any) -> Tensor:
    """A parameter, gathered if it is spread; every process has to call it."""
    there = getattr(parameter, "ds_status", None)
    if there is None or there.name == "AVAILABLE":
        return cast(Tensor, parameter)
    parameter.all_gather()
    value = cast(Tensor, parameter.detach().clone())
    parameter.partition()
    return value


class Partitioned:
    """Where ZeRO-3 stands with a model: which parameters are gathered, and what is to be gathered next."""

    def __init__(self, model: nn.Module) -> None:
        self._offload = _offload_of(model)
        if self._offload is None:
            return
        self._coordinator = self._offload.param_coordinator
        self._coordinator._clean_inflight_param_registry()  # as the next forward begins
        self._parameters = [(p, p.ds_status, set(p.ds_active_sub_modules)) for p in self._offload.module.parameters()]
        self._counts = [
            (m, {n: vars(m)[n] for n in _OF_BACKWARD if n in vars(m)}) for m in self._offload.module.modules()
        ]
        self._running = list(_running())
        own = self._offload.param_coordinator = copy.copy(self._coordinator)
        if not own.is_invalid_trace():
            own._invalidate_trace()
        own.reset_step = lambda: None  # it learns no order, and gathers nothing ahead

    def put_back(self, gather: bool = True) -> None:
        """As it was. ``gather``: also parameters that were gathered, which every process has to do together; else the next forward
        gathers them."""
        if self._offload is None:
            return
        own, self._offload.param_coordinator = self._offload.param_coordinator, self._coordinator
        own._clean_inflight_param_registry()
        own.release_backward_leftovers()
        _running()[:] = self._running
        for module, counts in self._counts:
            for name in _OF_BACKWARD:
                vars(module).pop(name, None)
            vars(module).update(counts)
            module.ds_recompute_parameters.clear()
        for parameter, status, active in self._parameters:
            parameter.ds_active_sub_modules.clear()
            parameter.ds_active_sub_modules.update(active)
            if parameter.ds_status.name == "INFLIGHT":  # what was to be gathered when another process failed
                parameter.ds_status = type(status).NOT_AVAILABLE
            if parameter.ds_status != status and parameter.ds_status.name == "AVAILABLE":
                parameter.partition()
        freed = [p for p, status, _ in self._parameters if status.name == "AVAILABLE" and p.ds_status != status]
        if freed and gather:
            freed[0].all_gather(freed)


def _offload_of(model: nn.Module) -> Any:
    """What gathers the parameters of an engine's modules: a part of its optimizer, or in its place where nothing is trained."""
    optimizer = getattr(whole_of(model), "optimizer", None)
    return getattr(optimizer, "parameter_offload", optimizer if hasattr(optimizer, "param_coordinator") else None)


def _running() -> list[Any]:
    """The modules whose forward has begun and not ended, outermost first."""
    stack: list[Any] = sys.modules[_HOOKS].FWD_MODULE_STACK
    return stack
