"""Which score is explained: a class, or whatever a callable ``(outputs) -> Tensor (B,)`` computes."""

from cam_engine.targets.classes import ClassTarget
from cam_engine.targets.resolve import TargetSpec, resolve_target

__all__ = ["ClassTarget", "TargetSpec", "resolve_target"]
