"""Which score is explained: a class, or whatever a callable ``(outputs) -> Tensor (B,)`` computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cam_engine.targets.classes import ClassTarget
from cam_engine.targets.embedding import SimilarityTarget
from cam_engine.targets.mask import MaskTarget
from cam_engine.targets.multilabel import MultiLabelTarget
from cam_engine.targets.regression import RegressionTarget
from cam_engine.targets.resolve import TargetSpec, resolve_target

if TYPE_CHECKING:
    from cam_engine.detect.targets import BoxTarget

__all__ = [
    "BoxTarget",
    "ClassTarget",
    "MaskTarget",
    "MultiLabelTarget",
    "RegressionTarget",
    "SimilarityTarget",
    "TargetSpec",
    "resolve_target",
]


def __getattr__(name: str) -> Any:
    if name == "BoxTarget":  # its package needs CAM, which needs this one
        from cam_engine.detect.targets import BoxTarget

        return BoxTarget
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
