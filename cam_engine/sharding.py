"""Models whose parameters are spread over processes: what of it a look has to know, and to leave as it was.

FSDP1 is in :mod:`cam_engine.flattened`, DeepSpeed's ZeRO-3 in :mod:`cam_engine.partitioned`. Here is what torch spreads as
DTensors: ``fully_shard`` (FSDP2) gathers a module's parameters before its forward and its backward and frees them after, and tensor
parallel layers hold a part of their weights and may return a part of their output. All of it goes on inside a look as in a
training. What is read here of torch's own state has no public name; ``tests/callbacks/test_sharded.py`` runs against the torch that
is installed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from cam_engine.flattened import Flattened, refuse_flattened_part, unflattened, units_of
from cam_engine.partitioned import Partitioned, departitioned, refuse_unknown


def whole(tensor: Tensor) -> Tensor:
    """A tensor that is spread over processes, put together on each of them; every process has to call it. Any other as it is."""
    spread: Any = tensor
    return spread.full_tensor() if is_spread(tensor) else tensor


def weight_and_bias(model: nn.Module, layer: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    """Of a layer, whole, however the model is spread; every process has to call it."""
    own = {name: getattr(layer, name, None) for name in ("weight", "bias")} | unflattened(model, layer)
    weight, bias = (None if part is None else whole(departitioned(part)) for part in (own["weight"], own["bias"]))
    return weight, bias


def is_spread(tensor: Any) -> bool:
    """Is it a ``DTensor``?"""
    return is_spread_type(type(tensor))


def is_spread_type(kind: type) -> bool:
    """Is it a type of ``DTensor``?"""
    loaded = sys.modules.get("torch.distributed.tensor")  # else there can be none, and importing it takes time
    return loaded is not None and issubclass(kind, loaded.DTensor)


def is_sharded(model: nn.Module) -> bool:
    """Does its forward take all processes: under ``fully_shard``, FSDP1 or ZeRO-3, or with tensor parallel layers?"""
    if not (dist.is_available() and dist.is_initialized()):
        return False
    return bool(_states(model) or units_of(model)) or any(
        is_spread(p) or hasattr(p, "ds_tensor") for p in model.parameters()
    )


def ranks_of_same_images(model: nn.Module) -> list[int]:
    """The processes that have to be given the same images as this one, for they hold parts of one layer; itself alone without
    tensor parallelism."""
    ranks = {dist.get_rank()}
    managed: set[int] = set()
    for group in _groups(model):
        for param in group.fsdp_params:
            managed |= {id(param.sharded_param), id(getattr(param, "_unsharded_param", None))}
            if param.is_dtensor:
                spec = getattr(param, "_unsharded_dtensor_spec", None) or param._tp_spec  # the second is its older name
                ranks |= set(spec.mesh.mesh.flatten().tolist())
    for spread in list[Any](model.parameters()):
        if is_spread(spread) and id(spread) not in managed:
            ranks |= set(spread.device_mesh.mesh.flatten().tolist())
    return sorted(ranks)


def refuse_flattened(model: nn.Module) -> None:
    """Refuse a model whose parameters other engines spread than those that are looked at.

    Raises:
        ValueError: It is a part of what FSDP1 flattened, or of an engine of DeepSpeed's that is not known.
    """
    refuse_flattened_part(model)
    refuse_unknown(model)


def refuse_part(model: nn.Module) -> None:
    """Refuse a model whose parameters are gathered by a module around it, which its own forward does not go through.

    Raises:
        ValueError: It is such a part.
    """
    inside = set(model.modules())
    for group in _groups(model):
        if not inside.issuperset(group.modules) and any(p._module_info.module in inside for p in group.fsdp_params):
            raise ValueError(
                f"the parameters of {type(model).__name__} are gathered by the forward of the module around it: call "
                "fully_shard on it too, or explain the module around it, with layers= for the layer."
            )


class Runtime:
    """Where sharding stands, by whichever engine: which parameters are gathered, and what the next backward will gather ahead.

    Made before something is done with the model; :meth:`put_back` then leaves the training to find it as it was.
    """

    def __init__(self, model: nn.Module) -> None:
        self._states, self._others = _states(model), (Flattened(model), Partitioned(model))
        groups = [group for state in self._states for group in _groups_of(state)]
        # Gradients that wait, unsharded, for the last part of an accumulation would be reduced by any backward.
        self._accumulating = [(group, group.reduce_grads) for group in groups if _holds_gradients(group)]
        for group, _ in self._accumulating:
            group.reduce_grads = False
        self._sharded = [(group, group._sharded_state, list(group._post_forward_indices)) for group in groups]
        self._orders = [(state, list(_order(state))) for state in self._states]

    def put_back(self, gather: bool = True) -> None:
        """As it was. ``gather``: also parameters that were gathered, which every process has to do together; else their memory
        is there, and their values are not."""
        for other in self._others:
            other.put_back(gather)
        for state in self._states:
            _make_idle(state)
        for group, was, indices in self._sharded:
            if not gather and was.name == "UNSHARDED" and group.is_sharded:
                for param in group.fsdp_params:  # whoever has kept their values can put them back
                    param.alloc_all_gather_outputs()
                group._to_unsharded()
            elif gather and was != group._sharded_state:
                group.reshard()
                if was.name != "SHARDED":
                    group.unshard()
                    group.wait_for_unshard()
                if was.name == "SHARDED_POST_FORWARD":
                    group._to_sharded_post_forward()
            group._post_forward_indices[:] = indices
        for state, order in self._orders:
            _order(state)[:] = order
        for group, reduces in self._accumulating:
            group.reduce_grads = reduces


def abandon(model: nn.Module) -> None:
    """After a forward or backward that an exception ended: free what it had gathered, so that the next one begins as ever."""
    for state in _states(model):
        _make_idle(state)
        for group in _groups_of(state):
            group.reshard()


def _make_idle(state: Any) -> None:
    for group in _groups_of(state):
        group.wait_for_unshard()  # what was gathered ahead
        group._training_state = type(group._training_state).IDLE
    state._training_state = type(state._training_state).IDLE
    state._comm_ctx.all_gather_state = None
    state._state_ctx.iter_forward_root = None
    state._state_ctx.post_backward_final_callback_queued = False
    getattr(state, "_modules_to_run_forward", set()).clear()


def _order(state: Any) -> list[Any]:
    """In which the last forwards used their parameters; the first forward makes the list."""
    order: list[Any] = getattr(state._comm_ctx, "post_forward_order", [])
    return order


def _holds_gradients(group: Any) -> bool:
    unsharded = [(p, getattr(p, "_unsharded_param", None)) for p in group.fsdp_params]
    return any(
        getattr(p, "unsharded_accumulated_grad", None) is not None or (u is not None and u.grad is not None)
        for p, u in unsharded
    )


def _states(model: nn.Module) -> list[Any]:
    """FSDP2's state of every module that it shards, in the model and around it."""
    loaded = sys.modules.get("torch.distributed.fsdp")
    shards = getattr(loaded, "FSDPModule", None)
    if shards is None:
        return []
    states: dict[int, Any] = {}
    for module in model.modules():
        if isinstance(module, shards):
            state = module._get_fsdp_state()
            states |= {id(one): one for one in (state, *state._state_ctx.all_states)}
    return list(states.values())


def _groups(model: nn.Module) -> Iterator[Any]:
    for state in _states(model):
        yield from _groups_of(state)


def _groups_of(state: Any) -> list[Any]:
    """The groups of parameters that a state gathers together; torch before 2.10 has one at most."""
    if hasattr(state, "_fsdp_param_groups"):
        return list(state._fsdp_param_groups)
    return [] if state._fsdp_param_group is None else [state._fsdp_param_group]
