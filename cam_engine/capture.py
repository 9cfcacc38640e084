"""One forward and one gradient call through an untouched model.

Nothing upstream of the first captured layer is recorded for gradients: the forward runs under ``no_grad`` until that
layer's hook makes its output a leaf and switches recording on. What goes on downstream is a clone, so that an in-place
layer behind it cannot corrupt what was captured. Gradients come from ``torch.autograd.grad`` with respect to
activations; parameters, their ``.grad`` and their hooks never notice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from cam_engine import _tree
from cam_engine.flattened import through_unit
from cam_engine.guard import untouched
from cam_engine.sharding import is_spread

Forward = Callable[[nn.Module, Tensor], Any]

Recording = Literal["nothing", "from_layer", "from_start", "from_images"]
"""Which part of a forward is recorded for gradients, see :func:`capture`."""


class NoGradientError(RuntimeError):
    """The explained score has no gradient with respect to any captured layer."""


class _AllCaptured(BaseException):
    """Ends a forward early; not an ``Exception``, so that a model's own ``except`` clauses let it pass."""


@dataclass(frozen=True)
class Tap:
    """Where a layer's output is captured: ``select`` picks one tensor's path out of what the module returned."""

    name: str
    module: nn.Module
    select: Callable[[Any], _tree.Path]


@dataclass(frozen=True)
class Captured:
    """What one forward left behind.

    ``activations`` maps a layer's name to the tensor it returned (any layout, dtype as computed); ``outputs`` is what
    the model returned, None if the forward was stopped; ``calls`` counts how often each layer ran; ``images`` is what
    the model was given; ``taps`` where each layer was captured, and ``paths`` where in what it returned its tensor
    lies; ``recording`` what was recorded in the end; ``forward`` how the model was called.
    """

    activations: dict[str, Tensor]
    outputs: Any
    calls: dict[str, int]
    images: Tensor
    taps: dict[str, Tap]
    paths: dict[str, _tree.Path]
    recording: Recording
    forward: Forward | None = None


def capture(
    model: nn.Module,
    images: Tensor,
    taps: Sequence[Tap],
    *,
    record: Recording,
    second_order: bool = False,
    forward: Forward | None = None,
    stop_after: Mapping[str, int] | None = None,
) -> Captured:
    """Run ``model`` in eval mode and capture the outputs of some layers.

    That is one forward. Where a ``no_grad`` block around a layer ends in it, which switches recording off, so that
    gradients would be missing or partial, it is run once more and recorded throughout; who captures often passes the
    ``recording`` of the one before, and the next takes one forward.

    Args:
        model: Any module; modes, buffers, hooks and random streams are as before on return, also after an exception.
        images: (B, C, H, W), on the model's device.
        taps: Layers to capture. A layer called more than once: its last call counts.
        record: What :func:`gradients` will need. ``"nothing"``; ``"from_layer"``: the graph from the first layer on,
            which becomes a leaf; ``"from_start"``: the same, but recording is on throughout; ``"from_images"``: the
            whole graph, the images being the leaf, with every call of a layer (the second is under ``"name#2"``), and
            without those that never ran.
        second_order: Gradients of gradients will be asked for: attention runs unfused, for fused has none.
        forward: ``(model, images) -> outputs`` for models that are not called with the images alone.
        stop_after: Number of calls of each layer after which the forward may end; only where nothing is recorded.

    Raises:
        RuntimeError: A layer never ran in this forward.
    """

    def once(record: Recording) -> tuple[Captured, bool]:
        return _forward(model, images, taps, record=record, forward=forward, stop_after=stop_after)

    with sdpa_kernel(SDPBackend.MATH) if second_order else nullcontext():
        captured, interrupted = once(record)
        return once("from_start")[0] if interrupted and record == "from_layer" else captured


def _forward(
    model: nn.Module,
    images: Tensor,
    taps: Sequence[Tap],
    *,
    record: Recording,
    forward: Forward | None,
    stop_after: Mapping[str, int] | None,
) -> tuple[Captured, bool]:
    """One forward, and whether a ``no_grad`` block around a layer ended in it."""
    kept: dict[str, Tensor] = {}
    paths: dict[str, _tree.Path] = {}
    calls: Counter[str] = Counter()
    interrupted = False

    def hook_for(tap: Tap) -> Callable[..., Any]:
        def hook(_module: nn.Module, inputs: Any, output: Any) -> Any:
            nonlocal interrupted
            path = paths[tap.name] = tap.select(output)
            activation = _tree.get(output, path)
            calls[tap.name] += 1
            if record == "nothing":
                finished = stop_after is not None and all(calls[t.name] >= stop_after[t.name] for t in taps)
                kept[tap.name] = activation.detach() if finished else activation.detach().clone()
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
            again = record == "from_images" and calls[tap.name] > 1
            kept[f"{tap.name}#{calls[tap.name]}" if again else tap.name] = activation
            return _tree.replace(output, path, activation.clone())

        return hook

    outputs = None
    with ExitStack() as stack:
        stack.enter_context(untouched(model))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(record in ("from_start", "from_images")))
        for tap in taps:
            stack.callback(tap.module.register_forward_hook(hook_for(tap)).remove)
        images = images.detach().clone().requires_grad_(record == "from_images")
        given = images.clone()  # a model may normalise in place
        with suppress(_AllCaptured):
            outputs = call(model, given, forward)
        interrupted |= record != "nothing" and bool(kept) and not torch.is_grad_enabled()
    missing = [t.name for t in taps if t.name not in kept]
    if missing and record != "from_images":
        raise RuntimeError(
            f"layer {missing[0]!r} did not run in this forward, so there is nothing to explain. "
            "Choose a layer that the model uses for these images: available_layers(model, images) lists them."
        )
    by_name = {tap.name: tap for tap in taps}
    activations = kept if record == "from_images" else {name: kept[name] for name in by_name}
    return Captured(activations, outputs, dict(calls), images, by_name, paths, record, forward), interrupted


def gradients(
    scores: Tensor, activations: Mapping[str, Tensor], *, retain_graph: bool = False, create_graph: bool = False
) -> dict[str, Tensor]:
    """Gradients of ``scores.sum()`` with respect to captured activations; zeros where one has no part in the scores.

    Raises:
        NoGradientError: None of them has a part in the scores.
    """
    names = list(activations)
    grads: Sequence[Tensor | None] = [None] * len(names)
    if scores.requires_grad:
        grads = torch.autograd.grad(
            scores.sum(),
            [activations[n] for n in names],
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
    return {n: torch.zeros_like(activations[n]) if g is None else g for n, g in pairs}


def replay(
    model: nn.Module,
    images: Tensor,
    layer: str,
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
        if count < captured.calls[layer]:
            return None
        return _tree.replace(output, captured.paths[layer], activation)

    handle = captured.taps[layer].module.register_forward_hook(hook)
    try:
        return rescore(model, images, forward=forward)
    finally:
        handle.remove()


def rescore(model: nn.Module, images: Tensor, *, forward: Forward | None = None) -> Any:
    """What the model returns for images, in eval mode and without recording anything."""
    with untouched(model), torch.inference_mode(False), torch.no_grad():
        return call(model, images, forward)


def call(model: nn.Module, images: Tensor, forward: Forward | None) -> Any:
    """What the model returns for images, called as it has to be, and with all of its parameters there."""
    return through_unit(model, model if forward is None else partial(forward, model), images)


def _shares_memory(a: Tensor, b: Tensor) -> bool:
    if is_spread(a) or is_spread(b):  # such a tensor has no memory of its own to compare
        return True
    return a.device == b.device and a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
