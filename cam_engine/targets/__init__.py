"""Which score is explained: a class, or whatever a callable ``(outputs) -> Tensor (B,)`` computes."""

from cam_engine.targets.classes import ClassTarget
from cam_engine.targets.embedding import SimilarityTarget
from cam_engine.targets.mask import MaskTarget
from cam_engine.targets.multilabel import MultiLabelTarget
from cam_engine.targets.regression import RegressionTarget
from cam_engine.targets.resolve import TargetSpec, resolve_target

__all__ = [
    "ClassTarget",
    "MaskTarget",
    "MultiLabelTarget",
    "RegressionTarget",
    "SimilarityTarget",
    "TargetSpec",
    "resolve_target",
]
