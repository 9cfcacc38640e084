"""FSDP1 (``FullyShardedDataParallel``): what a look has to know of it, and to leave as it was.

Each unit holds its parameters as one flat parameter, of which every process has a piece. Its forward gathers the piece of all and
lets the modules inside have views of it; the outermost unit begins a forward and ends a backward for all. What is read here of
torch's own state has no public name; ``tests/callbacks/test_sharded.py`` runs against the torch that is installed.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

_outermost: weakref.WeakKeyDictionary[nn.Module, weakref.ref[nn.Module]] = weakref.WeakKeyDictionary()


def is_inside(part: nn.Module, whole: nn.Module) -> None:
    """Say what is wrapped as a whole, by FSDP1 or DeepSpeed, for a part of it that is explained: the part itself cannot tell."""
    if part is not whole:
        _outermost[part] = weakref.ref(whole)


def whole_of(model: nn.Module) -> nn.Module:
    """What :func:`is_inside` has said of a model; else itself."""
    known = _outermost.get(model)
    return (known and known()) or model


def units_of(model: nn.Module) -> list[Any]:
    """All units in a model, and around it where :func:`is_inside` has said so."""
    return list(_units_in(whole_of(model)))


def begin_units(model: nn.Module) -> None:
    """What the first forward does once: the outermost unit makes room for all. Before anything is noted that is put back."""
    for unit in units_of(model):
        unit.check_is_root()


def refuse_flattened_part(model: nn.Module) -> None:
    """Refuse a model whose parameters are pieces of flat ones, which no unit in it, nor any known around it, gathers.

    Raises:
        ValueError: It is one, or its units hold parts of tensor parallel layers.
    """
    units = units_of(model)
    flats = [handle.flat_param for unit in units for handle in _handles_of(unit)]
    if any(extension is not None for flat in flats for extension in flat._param_extensions):
        raise ValueError(
            f"FSDP1 flattens tensor parallel layers of {type(model).__name__}; under fully_shard (FSDP2) these are looked at."
        )
    known = {id(piece) for flat in flats for piece in (flat, *(flat._params or ()), *(flat._shared_params or ()))}
    for module in model.modules():
        tensors = [t for t in (*module._parameters.values(), *vars(module).values()) if isinstance(t, Tensor)]
        if any(_flat_part(tensor) is not None and id(_flat_part(tensor)) not in known for tensor in tensors):
            raise ValueError(
                f"FSDP1 flattened the parameters of {type(model).__name__} together with those of the module around it: hand over "
                "what FullyShardedDataParallel returned, with layers= for the layer, or wrap this module by itself "
                "(auto_wrap_policy=)."
            )


def unflattened(model: nn.Module, layer: nn.Module) -> dict[str, Tensor]:
    """A layer's own parameters by name, gathered, if units of the model hold them; every process has to call it."""
    found: dict[str, Tensor] = {}
    for handle in {id(handle): handle for unit in units_of(model) for handle in _handles_of(unit)}.values():
        names = [
            (place, name) for place, (name, owner, _) in enumerate(handle.flat_param._param_infos) if owner is layer
        ]
        if names:
            there = _is_gathered(handle)
            _gather(handle)
            views = list(handle._get_unflat_views())
            found |= {name: views[place].detach().clone() for place, name in names}
            handle.reshard(handle.uses_sharded_strategy and not there)
            handle.post_reshard()
    return found


def through_unit(model: nn.Module, run: Callable[[Tensor], Any], images: Tensor) -> Any:
    """``run(images)``, which calls a model, where its parameters are there: in the forward of the unit that holds them."""
    whole = whole_of(model)
    around = [] if whole is model else [unit for unit in _units_in(whole) if model in set(unit.modules())]
    if not around or around[-1] is model:
        return run(images)
    inside = around[-1]._modules
    kept, inside["_fsdp_wrapped_module"] = inside["_fsdp_wrapped_module"], _Runs(run)
    try:
        return around[-1](images)
    finally:
        inside["_fsdp_wrapped_module"] = kept


class _Runs(nn.Module):
    def __init__(self, run: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self._run = (run,)  # no module of this one, should it be one

    def forward(self, images: Tensor) -> Any:
        return self._run[0](images)


class Flattened:
    """Where FSDP1 stands with the units in a model and around it: what is gathered, and what the next backward will do.

    Until :meth:`put_back` there are no gradients, and no parameter takes one: a backward frees what it has gathered and reduces
    nothing, also in the middle of an accumulation (``no_sync``).
    """

    def __init__(self, model: nn.Module) -> None:
        units = self._units = units_of(model)
        orders = {id(unit._exec_order_data): unit._exec_order_data for unit in units}
        handles = [handle for unit in units for handle in _handles_of(unit)]
        self._handles = list({id(handle): handle for handle in handles}.values())
        flats = [handle.flat_param for handle in self._handles]
        self._gathered = [_is_gathered(handle) for handle in self._handles]
        self._attributes = [_Kept(vars(one)) for one in (*units, *orders.values(), *self._handles, *flats)]
        owners = {id(module): module for flat in flats for _, module, _ in flat._param_infos}
        self._attributes += [_Kept(module._parameters) for module in owners.values()]
        self._views = [(m, n, vars(m)[n]) for flat in flats for n, m, _ in flat._param_infos if n in vars(m)]
        self._registered = {id(hook) for flat in flats for hook in _post_backward_hooks(flat)}
        tensors = [t for flat in flats for t in (flat, *(flat._params or ()), *(flat._shared_params or ()))]
        self._gradients = [(tensor, tensor.grad, tensor.requires_grad) for tensor in tensors]
        for tensor in tensors:
            tensor.grad, tensor.requires_grad = None, False

    @torch.no_grad()
    def put_back(self, gather: bool = True) -> None:
        """As it was. ``gather``: also parameters that were gathered, which every process has to do together; else the next forward
        gathers them."""
        for unit in self._units:  # what was to be gathered ahead when a process failed
            unit._device_handle.current_stream().wait_stream(unit._unshard_stream)
        for handle in self._handles:
            for hook in _post_backward_hooks(handle.flat_param):
                if id(hook) not in self._registered:  # by a forward of the training, whose backward is still to come
                    hook.remove()
            handle._training_state = type(handle._training_state).IDLE
            handle.reshard(handle.uses_sharded_strategy)
            handle.post_reshard()
        for handle, gathered in zip(self._handles, self._gathered, strict=True):
            if gathered and gather:
                _gather(handle)
                handle.reshard(False)
                handle.post_reshard()
        for attributes in self._attributes:
            attributes.put_back()
        for module, name, view in self._views:
            vars(module)[name] = view
        for tensor, gradient, requires in self._gradients:
            tensor.requires_grad = requires
            _put_gradient(tensor, gradient)


class _Kept:
    """The entries of a dictionary, and of the lists in it, which others may share."""

    def __init__(self, of: dict[str, Any]) -> None:
        self._of, self._entries = of, dict(of)
        self._lists = [(value, list(value)) for value in of.values() if type(value) is list]

    def put_back(self) -> None:
        self._of.clear()
        self._of.update(self._entries)
        for of, values in self._lists:
            of[:] = values


def _put_gradient(tensor: Tensor, gradient: Tensor | None) -> None:
    fits = gradient is None or (gradient.shape, gradient.dtype, gradient.device) == (
        tensor.shape,
        tensor.dtype,
        tensor.device,
    )
    tensor.grad = gradient if fits else torch.empty_like(tensor)
    if not fits:  # one that waits, unsharded, for the end of an accumulation; this is how torch itself puts it there
        assert tensor.grad is not None and gradient is not None
        tensor.grad.data = gradient


def _units_in(model: nn.Module) -> Iterator[Any]:
    kind = getattr(sys.modules.get("torch.distributed.fsdp"), "FullyShardedDataParallel", None)
    return (module for module in model.modules() if kind is not None and isinstance(module, kind))


def _handles_of(unit: Any) -> list[Any]:
    """Of a unit, and of those around it that gather ahead with it, once they have met in a forward."""
    return [handle for handle in (unit._handle, *unit._exec_order_data.all_handles) if handle is not None]


def _post_backward_hooks(flat: Any) -> tuple[Any, ...]:
    return getattr(flat, "_post_backward_hook_state", ())[-1:]


def _is_gathered(handle: Any) -> bool:
    padded = getattr(handle.flat_param, "_full_param_padded", None)
    return padded is not None and bool(padded.untyped_storage().size())


def _gather(handle: Any) -> None:
    handle.pre_unshard()
    handle.unshard()
    handle.post_unshard()


def _flat_part(tensor: Tensor) -> Tensor | None:
    """The tensor itself or what it is a view of, if that is a flat parameter or a piece of one."""
    return next((t for t in (tensor, tensor._base) if getattr(t, "_fsdp_flattened", False)), None)
