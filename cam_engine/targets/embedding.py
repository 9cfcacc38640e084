"""How like an embedding the model's output is."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from cam_engine.targets.scores import class_scores


class SimilarityTarget:
    """Cosine similarity of the model's output with an embedding, in [−1, 1]: ``(outputs) -> Tensor (B,)``.

    What is shown makes the images alike: the embedding of another image, of a text, or the mean of a class.

    Args:
        embedding: (D,) for all images, or (B, D).

    >>> from cam_engine.targets import SimilarityTarget
    >>> SimilarityTarget(torch.tensor([1.0, 0.0]))(torch.tensor([[2.0, 0.0], [0.0, 5.0]]))
    tensor([1., 0.])
    """

    def __init__(self, embedding: Tensor) -> None:
        self.embedding = embedding

    def __call__(self, outputs: Any) -> Tensor:
        features = class_scores(outputs)
        if self.embedding.shape not in (features.shape, features.shape[1:]):
            raise ValueError(
                f"embedding= has shape {tuple(self.embedding.shape)}, and the model returned {tuple(features.shape)}; "
                f"pass ({features.shape[1]},) for all images or {tuple(features.shape)}."
            )
        wanted = self.embedding.detach().to(features)
        return F.cosine_similarity(features, wanted.expand_as(features), dim=1)
