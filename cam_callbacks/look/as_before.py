"""A model is after a look as it was before it: in its weights, and in whatever else its forward may have changed."""

from __future__ import annotations

import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch.nn.modules.module as torch_module
from torch import nn

from cam_callbacks.look.options import LookOptions
from cam_callbacks.unchanged import unchanged
from cam_engine.guard import weights_kept

_OF_ALL_MODULES = ("_global_forward_hooks", "_global_forward_pre_hooks")
_OF_A_MODULE = ("_forward_hooks", "_forward_pre_hooks")


def entered(model: nn.Module, options: LookOptions) -> ExitStack:
    """A context, entered already, at whose end the model and what is called with it are as they are now.

    Parameters and buffers by value; what lies elsewhere as :func:`unchanged` does: attributes, generators, what hooks keep.
    Forward hooks run in a look as in the training, for a model may need them (weight normalisation, pruning, skip connections by
    hooks); with ``hooks="rest"`` those that are not torch's own are set aside.
    """
    of_all = [vars(torch_module)[name] for name in _OF_ALL_MODULES]
    called = (options.forward, options.output, options.reshape, options.target)
    with ExitStack() as stack:
        stack.enter_context(unchanged(model, *called, *of_all))
        stack.enter_context(weights_kept(model))
        if options.hooks == "rest":
            stack.enter_context(_resting(model))
        return stack.pop_all()


@contextmanager
def _resting(model: nn.Module) -> Iterator[None]:
    """Set the forward hooks of users and their libraries aside; those by which torch makes weights stay."""
    before = [(module, name, getattr(module, name)) for module in model.modules() for name in _OF_A_MODULE]
    try:
        for module, name, hooks in before:
            setattr(module, name, OrderedDict((key, hook) for key, hook in hooks.items() if _is_torchs(hook)))
        yield
    finally:
        for module, name, hooks in before:
            setattr(module, name, hooks)


def _is_torchs(hook: Callable[..., Any]) -> bool:
    """Is it a function of torch, or an object of ``torch.nn.utils`` or made from one, such as a pruning method?"""
    if isinstance(hook, types.FunctionType):
        return hook.__module__.partition(".")[0] == "torch"
    return any(base.__module__.startswith("torch.nn.utils") for base in type(hook).__mro__)
