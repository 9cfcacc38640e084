"""From what ``targets=`` takes to a callable ``(outputs) -> Tensor (B,)``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from cam_engine.targets.classes import ClassTarget

TargetSpec = int | Sequence[int] | Tensor | Callable[[Any], Tensor] | None


def resolve_target(targets: TargetSpec) -> Callable[[Any], Tensor]:
    """Turn ``targets=`` into a callable ``(outputs) -> Tensor (B,)``.

    Raises:
        TypeError: Neither None, an int, a sequence of ints nor a callable.

    >>> from cam_engine.targets import resolve_target
    >>> logits = torch.tensor([[1.0, 3.0], [2.0, 0.0]])
    >>> resolve_target(0)(logits), resolve_target(lambda outputs: outputs.sum(1))(logits)
    (tensor([1., 2.]), tensor([4., 2.]))
    """
    if callable(targets):
        return targets
    if isinstance(targets, (str, bytes, bool, float)):
        raise TypeError(
            f"targets= takes None (the predicted class), an int, a sequence of ints or a callable (outputs) -> Tensor (B,), "
            f"not {type(targets).__name__} ({targets!r})."
        )
    return ClassTarget(targets)


def fixed_target(target: Callable[[Any], Tensor], outputs: Any) -> Callable[[Any], Tensor]:
    """The target with what it takes from the model's own prediction settled by ``outputs``.

    Variants of the same images are then scored for the same classes and masks. A target takes part by a method
    ``fixed(outputs)`` that returns a target.
    """
    fixed = getattr(target, "fixed", None)
    return target if fixed is None else fixed(outputs)


def evidence_target(target: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    """What speaks for the target on a scale that does not depend on the logits' unit: the log-probability of a class; any
    other target as it is."""
    return target.measured_as("log_probability") if isinstance(target, ClassTarget) else target


def mirrored_target(target: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    """The same target for the images mirrored left to right; a target that has places takes part by ``mirrored()``."""
    mirrored = getattr(target, "mirrored", None)
    return target if mirrored is None else mirrored()


def check_scores(scores: Any, batch: int) -> Tensor:
    """Scores as (B,).

    Raises:
        TypeError: A target returned no tensor.
        ValueError: It returned another shape than (B,).
    """
    if not isinstance(scores, Tensor):
        raise TypeError(f"the target returned {type(scores).__name__}; it must return a Tensor of shape ({batch},).")
    if scores.shape != (batch,):
        raise ValueError(
            f"the target returned shape {tuple(scores.shape)} for {batch} images; it must return one score for each: ({batch},)."
        )
    return scores
