"""One of the values that a model predicts."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cam_engine.targets.scores import class_scores


class RegressionTarget:
    """One of the values that a model predicts, as it is: ``(outputs) -> Tensor (B,)``.

    Args:
        index: Which column of outputs (B, values); 0 for outputs (B,).

    What raises the value is shown. For what lowers it, pass ``lambda outputs: -RegressionTarget(index)(outputs)``.

    >>> from cam_engine.targets import RegressionTarget
    >>> RegressionTarget(1)(torch.tensor([[0.5, 20.0], [0.7, 30.0]]))
    tensor([20., 30.])
    """

    def __init__(self, index: int = 0) -> None:
        self.index = index

    def __call__(self, outputs: Any) -> Tensor:
        values = class_scores(outputs)
        if not -values.shape[1] <= self.index < values.shape[1]:
            raise ValueError(f"index={self.index} is not one of the {values.shape[1]} values that the model returned.")
        return values[:, self.index]
