"""What tells a class score from an embedding where the shape of both is the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cam_callbacks.inputs import leaves
from cam_callbacks.look.calling import Calling
from cam_callbacks.probe import ProbeSet
from cam_engine import _tree
from cam_engine.sharding import is_sharded


@dataclass(frozen=True)
class Hints:
    """What a model and its data tell beside what it returns.

    ``losses``: names of the losses that the model holds. ``heads``: numbers of classes that its parts, metrics among them, say
    they have. ``unlabelled``: the probe is of the training's own data, and these hold nothing but images. ``partial``: the
    forward is not all that is trained: it leaves trained parts alone (a decoder, a projection head, that a training step
    calls), takes one of several views of an image, or returns an image too.
    """

    losses: tuple[str, ...] = ()
    heads: frozenset[int] = frozenset()
    unlabelled: bool = False
    partial: bool = False


NO_HINTS = Hints()


def hints_of(model: nn.Module, outputs: Any, probe: ProbeSet, calling: Calling) -> Hints:
    """The hints of a model.

    Args:
        model: The model.
        outputs: What it returned in a recorded forward.
        probe: Whose images it was called with.
        calling: How.
    """
    returned = [tensor for _, tensor in _tree.tensors(outputs)]
    pictures = probe.class_maps is None and any(t.shape[1:] == probe.images.shape[1:] for t in returned)
    return Hints(
        losses=tuple(_losses(model)),
        heads=frozenset(n for part in model.modules() if type(n := getattr(part, "num_classes", None)) is int),
        unlabelled=probe.inputs is not None and not any(leaf.ndim <= 2 for leaf in _others(probe)),
        partial=pictures or _leaves_parts_alone(model, returned) or _takes_one_view(probe, calling),
    )


def _losses(model: nn.Module) -> Iterator[str]:
    """Those that a model holds, without those that they are made of: one that compares embeddings may end in a cross-entropy."""
    found: list[str] = []
    for name, module in model.named_modules():
        if "loss" in type(module).__name__.lower() and not any(name.startswith(f"{outer}.") for outer in found):
            found.append(name)
            yield type(module).__name__


def _others(probe: ProbeSet) -> Iterator[Tensor]:
    """Everything in the probe's batch but the images."""
    assert probe.inputs is not None
    for path, leaf in leaves(probe.inputs.batch, probe.inputs.n):
        if path != probe.inputs.path and isinstance(leaf, Tensor):
            yield leaf


def _leaves_parts_alone(model: nn.Module, returned: list[Tensor]) -> bool:
    if is_sharded(model):  # what a forward uses is gathered for it, and none of the model's own parameters
        return False
    used = {id(parameter) for tensor in returned for parameter in _parameters_of(tensor)}
    return bool(used) and any(p.requires_grad and id(p) not in used for p in model.parameters())


def _parameters_of(tensor: Tensor) -> Iterator[Tensor]:
    """The leaves of the graph that made it."""
    seen, waiting = set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting += [function for function, _ in node.next_functions]


def _takes_one_view(probe: ProbeSet, calling: Calling) -> bool:
    """Is the model called with one image, where the batch holds several of the same shape?"""
    if probe.inputs is None or calling.way is None:
        return False
    shape = probe.images.shape
    if not any(leaf.shape == shape for leaf in _others(probe)):
        return False
    given = calling.way(probe.inputs.of([0], probe.images[:1]))
    return sum(tensor.shape[1:] == shape[1:] for _, tensor in _tree.tensors(given)) == 1
