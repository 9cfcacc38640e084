"""How a model is called with some of the probe's images, and with what else belongs to them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cam_callbacks.inputs import Inputs, describe
from cam_callbacks.items import ANNOTATION_KEYS
from cam_callbacks.probe import ProbeSet
from cam_engine import _tree
from cam_engine.capture import Forward, rescore
from cam_engine.layers.naming import unwrapped

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Way = Callable[[Any], Arguments]  # from a batch to the arguments of the model's forward


class ForwardError(ValueError):
    """A model could not be called with the probe's images, or a ``forward=`` failed with them."""


_WHOLE = ("batch", "data", "sample", "samples", "batched_inputs", "example", "item", "pair")  # names of a whole batch


@dataclass(frozen=True, eq=False)
class Calling:
    """Calls a model with versions of the probe's images, as its training does.

    ``inputs``: what belongs to the images; ``dtype``: their type where it is a whole number; ``way``: how a batch becomes
    arguments; ``forward``: the user's own, in place of it, with the batch as its third argument if it takes three.
    """

    inputs: Inputs | None
    dtype: torch.dtype | None
    way: Way | None
    forward: Forward | None

    def of(self, rows: Sequence[int]) -> Forward | None:
        """``(model, images) -> outputs`` for images of those rows: one of each, K of each side by side, or the first few.

        None where the model is called with the images alone, as they are.
        """
        if self.inputs is None and self.dtype is None:
            return self.forward

        def forward(model: nn.Module, images: Tensor) -> Any:
            if self.dtype is not None:
                images = _as_whole_numbers(images, self.dtype)
            if self.inputs is None:
                return model(images) if self.forward is None else self.forward(model, images)
            batch = self.inputs.of(rows_of(rows, len(images)), images)
            if self.way is not None:
                args, kwargs = self.way(batch)
                return model(*args, **kwargs)
            assert self.forward is not None
            return self.forward(model, images, batch) if _takes_batch(self.forward) else self.forward(model, images)  # type: ignore[call-arg]

        return forward


def rows_of(rows: Sequence[int], count: int) -> list[int]:
    """Which of the probe's images ``count`` images are versions of, where one batch of them is ``rows``."""
    each, rest = divmod(count, len(rows))
    if rest:  # the first few, over again
        return [rows[place % len(rows)] for place in range(count)]
    return [row for row in rows for _ in range(each)]


def calling_of(model: nn.Module, probe: ProbeSet, forward: Forward | None) -> Calling:
    """How a model is called: as the user says, or by the names of its forward; of several ways the first that it takes.

    Args:
        model: The model; tried with one image where its forward leaves it open.
        probe: The images.
        forward: The user's; None leaves it to the model's signature.

    Raises:
        ForwardError: It fails with the images however it is called.
        ValueError: ``forward`` asks for a batch that the probe has not.
    """
    if forward is not None:
        if _takes_batch(forward) and probe.inputs is None:
            raise ValueError(
                "forward= takes (model, images, batch), but this probe holds images alone; ProbeSet(inputs=) holds the rest."
            )
        return Calling(probe.inputs, probe.dtype, None, forward)
    if probe.inputs is None:
        return Calling(None, probe.dtype, None, None)
    forms = [probe.inputs]
    if probe.inputs.form == "channels last":  # else the step that calls the model moves them
        forms.append(probe.inputs.in_form("tensor"))
    ways = [Calling(inputs, probe.dtype, way, None) for inputs in forms for way in _ways(model, inputs)]
    if len(ways) == 1:
        return ways[0]
    errors: list[Exception] = []
    for calling in ways:
        try:
            rescore(model, _one_image(model, probe), forward=calling.of([0]))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of any kind: it is the model's
            errors.append(error)
        else:
            return calling
    first = errors[0] if errors else TypeError(f"its forward takes {inspect.signature(model.forward)}")
    raise failed_call(model, probe, None, first) from first


def failed_call(model: nn.Module, probe: ProbeSet, forward: Forward | None, error: Exception) -> ForwardError:
    """What to say of a call that failed: what was called with what, and how to say what is to be called."""
    name, cause = type(model).__name__, f"{type(error).__name__}: {error}"
    held = describe(probe.images) if probe.inputs is None else str(probe.inputs)
    if forward is not None:
        return ForwardError(f"forward= failed: {cause}. What it was called with: {held}.")
    if probe.inputs is None:
        how = "images alone; if it takes more, pass forward=lambda model, images: …, or ProbeSet(inputs=…)"
    else:
        how = "batch; say how with forward=lambda model, images, batch: model(images, …)"
    return ForwardError(f"{name} could not be called with the probe's {how}. {cause}. The probe holds {held}.")


def _ways(model: nn.Module, inputs: Inputs) -> list[Way]:
    """Every way that the signature of the model's forward allows, the likeliest first."""
    try:
        parameters = list(inspect.signature(unwrapped(model).forward).parameters.values())
    except (TypeError, ValueError):  # a compiled one does not tell
        parameters = [inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL)]
    containers = [inputs.path[:depth] for depth in reversed(range(len(inputs.path)))]  # innermost first
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    required = [p for p in named if p.default is p.empty]
    ways = list(_by_name(named, required, inputs, containers))
    if len(parameters) == 1 and parameters[0].kind is inspect.Parameter.VAR_KEYWORD:
        return [*_spread(inputs, containers), *ways]
    ways += _in_order(named, required, inputs)
    if len(required) > 1:
        return ways
    alone, whole = _argument(inputs.path), [_argument(at) for at in containers]
    if named and _names_a_batch((required or named)[0]):
        return [*ways, *reversed(whole), alone]
    if len(containers) > 1:  # ((first, second), label)
        return [*ways, *whole, alone]
    mapping = not isinstance(inputs.batch, (tuple, list))
    return [*ways, alone, *(whole if mapping else []), *(_spread(inputs, containers) if not named else [])]


def _argument(path: _tree.Path) -> Way:
    """The part of the batch at a path, alone."""
    return lambda batch: ((_tree.get(batch, path),), {})


def _names_a_batch(parameter: inspect.Parameter) -> bool:
    told = str(parameter.annotation)
    if "Tensor" in told and not any(word in told for word in ("ict", "Mapping", "tuple", "list")):
        return False
    return parameter.name in _WHOLE or any(word in told for word in ("dict", "Dict", "Mapping"))


def _by_name(
    named: Sequence[inspect.Parameter],
    required: Sequence[inspect.Parameter],
    inputs: Inputs,
    containers: Sequence[_tree.Path],
) -> Iterator[Way]:
    """Parameters that are called as entries of the batch get those; a first one that is not gets the images."""
    for at in containers:
        container = _tree.get(inputs.batch, at)
        if isinstance(container, (tuple, list)):
            continue
        image_key = inputs.path[len(at)]
        entries = dict(_tree.children(container))
        names = [p.name for p in named if p.name in entries and (p in required or p.name not in ANNOTATION_KEYS)]
        missing = [p.name for p in required if p.name not in names]
        by_position = image_key not in names
        if by_position and not (missing and names):  # nothing but the images, perhaps
            continue
        if missing != ([missing[0]] if by_position else []):
            continue
        keyword = missing[0] if by_position else None

        def way(batch: Any, at: _tree.Path = at, names: list[str] = names, keyword: str | None = keyword) -> Arguments:
            entries = dict(_tree.children(_tree.get(batch, at)))
            images = {} if keyword is None else {keyword: _tree.get(batch, inputs.path)}
            return (), images | {name: entries[name] for name in names}

        yield way


def _in_order(named: Sequence[inspect.Parameter], required: Sequence[inspect.Parameter], inputs: Inputs) -> list[Way]:
    """The parts of a tuple one after the other: as many as the forward needs, and floats for what may be None."""
    at = inputs.path[:-1]
    container = _tree.get(inputs.batch, at)
    if not isinstance(container, (tuple, list)):
        return []
    count = len(required)
    if count <= len(container):
        for place in range(max(count, 1), min(len(named), len(container))):
            value, free = container[place], named[place].default is None
            if not free or (*at, place) in inputs.annotations or not _is_float(value):
                break
            count = place + 1
    if not 2 <= count <= len(container):
        return []
    return [lambda batch: (tuple(_tree.get(batch, at)[:count]), {})]


def _spread(inputs: Inputs, containers: Sequence[_tree.Path]) -> Iterator[Way]:
    """The entries of a mapping as keywords: first without what is to be predicted."""
    for at in containers:
        if isinstance(_tree.get(inputs.batch, at), Mapping):
            for left_out in (ANNOTATION_KEYS, ()):
                yield lambda batch, at=at, left_out=left_out: (  # type: ignore[misc]
                    (),
                    {key: value for key, value in _tree.get(batch, at).items() if key not in left_out},
                )


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _takes_batch(forward: Callable[..., Any]) -> bool:
    """Does the user's forward take (model, images, batch)?"""
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return len([p for p in parameters if p.kind in kinds and p.default is p.empty]) == 3


def _as_whole_numbers(images: Tensor, dtype: torch.dtype) -> Tensor:
    limits = torch.iinfo(dtype)
    return images.float().round().clamp(limits.min, limits.max).to(dtype)


def _one_image(model: nn.Module, probe: ProbeSet) -> Tensor:
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    return probe.images[:1] if parameter is None else probe.images[:1].to(parameter.device, parameter.dtype)
