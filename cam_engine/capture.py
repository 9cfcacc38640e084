"""One forward and one gradient call through an untouched model.

Nothing upstream of the first target layer is recorded for gradients: the forward runs under ``no_grad`` until that
layer's hook makes its output a leaf and switches recording on. What goes on downstream is a clone, so that an in-place
layer behind the target cannot corrupt what was captured. Gradients come from ``torch.autograd.grad`` with respect to
activations; parameters, their ``.grad`` and their hooks never notice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cam_engine import _tree
from cam_engine.guard import untouched

Forward = Callable[[nn.Module, Tensor], Any]

Record = Literal["nothing", "from_layer", "from_start", "from_images"]


class NoGradientError(RuntimeError):
    """The explained score has no gradient with respect to any captured layer."""


class _AllCaptured(BaseException):
    """Ends a forward early; not an ``Exception``, so that a model's own ``except`` clauses let it pass."""


@dataclass(frozen=True)
class Target:
    """A layer to capture: ``select`` picks one tensor's path out of what the module returned."""

    name: str
    module: nn.Module
    select: Callable[[Any], _tree.Path]


@dataclass(frozen=True)
class Captured:
    """What one forward left behind.

    ``activations`` maps a layer's name to the tensor it returned (any layout, dtype as computed); ``outputs`` is what
    the model returned, None if the forward was stopped; ``calls`` counts how often each layer ran; ``images`` is what
    the model was given; ``paths`` where in what a layer returned its tensor lies. ``interrupted``: a ``no_grad`` block
    around a layer ended in this forward and switched recording off, so that gradients would be missing or partial.
    """

    activations: dict[str, Tensor]
    outputs: Any
    calls: dict[str, int]
    images: Tensor
    paths: dict[str, _tree.Path]
    interrupted: bool = False


def capture(
    model: nn.Module,
    images: Tensor,
    targets: Sequence[Target],
    *,
    record: Record,
    forward: Forward | None = None,
    stop_after: Mapping[str, int] | None = None,
) -> Captured:
    """Run ``model`` once in eval mode and capture the outputs of the target layers.

    Args:
        model: Any module; modes, buffers, hooks and random streams are as before on return, also after an exception.
        images: (B, C, H, W), on the model's device.
        targets: Layers to capture. A layer called more than once: its last call counts.
        record: What :func:`gradients` will need. ``"nothing"``; ``"from_layer"``: the graph from the first target layer
            on, which becomes a leaf; ``"from_start"``: the same, but recording is on throughout, for a forward with a
            ``no_grad`` block around a target layer; ``"from_images"``: the whole graph, the images being the leaf, with
            every call of a layer (the second is under ``"name#2"``), and without those that never ran.
        forward: ``(model, images) -> outputs`` for models that are not called with the images alone.
        stop_after: Number of calls of each layer after which the forward may end; only where nothing is recorded.

    Raises:
        RuntimeError: A target layer never ran in this forward.
    """
    kept: dict[str, Tensor] = {}
    paths: dict[str, _tree.Path] = {}
    calls: Counter[str] = Counter()
    interrupted = False

    def hook_for(target: Target) -> Callable[..., Any]:
        def hook(_module: nn.Module, inputs: Any, output: Any) -> Any:
            nonlocal interrupted
            path = paths[target.name] = target.select(output)
            activation = _tree.get(output, path)
            calls[target.name] += 1
            if record == "nothing":
                finished = stop_after is not None and all(calls[t.name] >= stop_after[t.name] for t in targets)
                kept[target.name] = activation.detach() if finished else activation.detach().clone()
                if finished:
                    raise _AllCaptured
                return None
            interrupted |= bool(kept) and not torch.is_grad_enabled()
            torch.set_grad_enabled(True)
            if any(_shares_memory(activation, t) for _, t in _tree.tensors(inputs)):
                activation = activation.clone()  # an identity or in-place layer: others hold its input
            first = not kept and record != "from_images"
            if first or not activation.requires_grad:
                activation = activation.detach().requires_grad_()
            again = record == "from_images" and calls[target.name] > 1
            kept[f"{target.name}#{calls[target.name]}" if again else target.name] = activation
            return _tree.replace(output, path, activation.clone())

        return hook

    outputs = None
    with ExitStack() as stack:
        stack.enter_context(untouched(model))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(record in ("from_start", "from_images")))
        for target in targets:
            stack.callback(target.module.register_forward_hook(hook_for(target)).remove)
        images = images.detach().clone().requires_grad_(record == "from_images")
        given = images.clone()  # a model may normalise in place
        with suppress(_AllCaptured):
            outputs = model(given) if forward is None else forward(model, given)
        interrupted |= record != "nothing" and bool(kept) and not torch.is_grad_enabled()
    if record == "from_images":
        return Captured(kept, outputs, dict(calls), images, paths, interrupted)
    missing = [t.name for t in targets if t.name not in kept]
    if missing:
        raise RuntimeError(
            f"layer {missing[0]!r} did not run in this forward, so there is nothing to explain. "
            "Choose a layer that the model uses for these images: available_layers(model, images) lists them."
        )
    return Captured({t.name: kept[t.name] for t in targets}, outputs, dict(calls), images, paths, interrupted)


def gradients(
    scores: Tensor, captured: Captured, *, retain_graph: bool = False, create_graph: bool = False
) -> dict[str, Tensor]:
    """Gradients of ``scores.sum()`` with respect to every captured activation; zeros where a layer has no part in it.

    Raises:
        NoGradientError: No captured layer has a part in the scores.
    """
    names = list(captured.activations)
    grads: Sequence[Tensor | None] = [None] * len(names)
    if scores.requires_grad:
        inputs = [captured.activations[n] for n in names]
        grads = torch.autograd.grad(
            scores.sum(),
            inputs,
            allow_unused=True,
            retain_graph=retain_graph or create_graph,
            create_graph=create_graph,
        )
    if all(g is None for g in grads):
        raise NoGradientError(
            f"the explained score has no gradient with respect to {', '.join(map(repr, names))}. The layer has no part in "
            "this score, or what lies between them is not differentiable (detached, converted to numpy, thresholded, "
            "inside inference_mode). Choose a layer that the score is computed from, a score that gradients pass through, or a "
            "method without gradients, such as eigencam."
        )
    pairs = zip(names, grads, strict=True)
    return {n: torch.zeros_like(captured.activations[n]) if g is None else g for n, g in pairs}


def replay(
    model: nn.Module,
    images: Tensor,
    target: Target,
    captured: Captured,
    activation: Tensor,
    *,
    forward: Forward | None = None,
) -> Any:
    """What the model returns when a layer's output is replaced, at its last call, by ``activation``; nothing is
    recorded.

    ``captured`` is an earlier forward of these images. ``activation`` may hold another number of images than
    ``images``, as long as nothing downstream reads both.
    """
    count = 0

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        nonlocal count
        count += 1
        if count < captured.calls[target.name]:
            return None
        return _tree.replace(output, captured.paths[target.name], activation)

    handle = target.module.register_forward_hook(hook)
    try:
        return rescore(model, images, forward=forward)
    finally:
        handle.remove()


def rescore(model: nn.Module, images: Tensor, *, forward: Forward | None = None) -> Any:
    """What the model returns for images, in eval mode and without recording anything."""
    with untouched(model), torch.inference_mode(False), torch.no_grad():
        return model(images) if forward is None else forward(model, images)


def _shares_memory(a: Tensor, b: Tensor) -> bool:
    return a.device == b.device and a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
