"""Where in what a model returns its score lies. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from cam_callbacks.inputs import describe
from cam_callbacks.probe import ProbeSet
from cam_engine import _tree
from cam_engine.targets.scores import pick_scores

# What models call their scores, the likeliest first.
NAMES = ("logits", "out", "scores", "preds", "pred", "prediction", "predictions", "output", "outputs", "y_hat")
ANOMALY = ("pred_score", "anomaly_map")


@dataclass(frozen=True)
class Pick:
    """Takes one tensor out of what a model returned, as CAM's ``output=`` does.

    ``path``: where it lies. ``shape``: ``"columns"``: (B, K, 1, 1) as (B, K); ``"channel"``: (B, h, w) as (B, 1, h, w);
    ``"largest"``: (B, …) as (B,).
    """

    path: tuple[Any, ...] = ()
    shape: Literal["", "columns", "channel", "largest"] = ""

    def __call__(self, outputs: Any) -> Any:
        found = outputs
        for key in self.path:
            found = getattr(found, key) if isinstance(key, str) and not isinstance(found, Mapping) else found[key]
        if self.shape == "columns":
            return found.flatten(1)
        if self.shape == "largest":
            return found.flatten(1).amax(1)
        return found[:, None] if self.shape == "channel" else found


@dataclass(frozen=True, eq=False)
class Scores:
    """``tensor``: what ``output`` picks, or None where it picks none. ``returned``: in words, what the model returned."""

    tensor: Tensor | None
    output: Any
    returned: str
    anomaly: bool = False


def scores_of(outputs: Any, probe: ProbeSet, batch: int, output: Any = None) -> Scores:
    """The score in what a model returned for a batch of the probe's images.

    Args:
        outputs: What it returned.
        probe: What is known of its images tells which of several tensors is meant.
        batch: Number of images.
        output: The user's own choice; None leaves it to what the tensors look like.

    Raises:
        ValueError: That is not there.
    """
    returned = describe(outputs)
    if output is not None:
        chosen = pick_scores(outputs, output)
        return Scores(chosen if isinstance(chosen, Tensor) else None, output, returned)
    if names := _anomaly_fields(outputs):
        field: Pick = Pick((names[0],)) if names[0] == "pred_score" else Pick((names[0],), "largest")
        return Scores(field(outputs).reshape(batch, -1)[:, 0], field, returned, anomaly=True)
    found = [
        (_path(outputs, path), tensor)
        for path, tensor in _tree.tensors(outputs)
        if tensor.is_floating_point() and tensor.ndim and len(tensor) == batch
    ]
    if not found:
        return Scores(None, None, returned)
    path, tensor = min(found, key=lambda item: (-_fits(item[1], probe), _rank(item[0])))  # the first of equals
    path, tensor = next((item for item in found if _is_softmax_of(tensor, item[1])), (path, tensor))
    if tensor.ndim == 4 and tensor.shape[2:].numel() == 1:
        return Scores(tensor.flatten(1), Pick(path, "columns"), returned)
    if tensor.ndim == 3 and probe.class_maps is not None and _is_dense(tensor[:, None], probe):
        return Scores(tensor[:, None], Pick(path, "channel"), returned)
    return Scores(tensor, Pick(path) if path else None, returned)


def ends_in_sigmoid(scores: Tensor) -> bool:
    """Are these, from a recorded forward, probabilities that a sigmoid made of logits, whatever views were taken of them?"""
    node = scores.grad_fn
    for _ in range(8):
        if node is None:
            return False
        if "Sigmoid" in node.name() and "LogSigmoid" not in node.name():
            return True
        if not any(view in node.name() for view in _VIEWS):
            return False
        node = node.next_functions[0][0] if node.next_functions else None
    return False


_VIEWS = ("View", "Squeeze", "Reshape", "Select", "Slice", "Clone", "Alias", "ToCopy", "Permute", "Transpose")


def _anomaly_fields(outputs: Any) -> list[str]:
    """Fields of an anomaly detector's item that hold a tensor, the score of the image first."""
    if isinstance(outputs, Mapping):
        return [name for name in ANOMALY if isinstance(outputs.get(name), Tensor)]
    return [name for name in ANOMALY if isinstance(getattr(outputs, name, None), Tensor)]


def _path(outputs: Any, path: _tree.Path) -> tuple[Any, ...]:
    """A path in which a named tuple's entries go by name."""
    if path and isinstance(outputs, tuple) and hasattr(outputs, "_fields"):
        return (outputs._fields[path[0]], *path[1:])
    return path


def _rank(path: tuple[Any, ...]) -> tuple[int, int]:
    """Small for a name that scores have, and for what lies near the surface."""
    name = path[-1] if path else ""
    return (NAMES.index(name) if name in NAMES else len(NAMES), len(path))


def _fits(tensor: Tensor, probe: ProbeSet) -> int:
    """How well it fits what is known of the probe: 3 surely, 2 as its scores do, 1 as scores of something, else 0."""
    if tensor.ndim == 2 or tensor.ndim == 1:
        columns = tensor.shape[1] if tensor.ndim == 2 else 1
        if probe.label_sets is not None:
            return 2 if columns == probe.label_sets.shape[1] else 1
        if probe.values is not None:
            return 2 if columns == (1 if probe.values.ndim == 1 else probe.values.shape[1]) else 1
        if probe.labels is None or probe.class_maps is not None:
            return 1
        most = int(probe.labels.max())
        if most >= max(columns, 2):
            return 1
        return 3 if probe.class_names is not None and columns == len(probe.class_names) else 2
    if tensor.ndim in (3, 4) and probe.class_maps is not None:
        return 2 if _is_dense(tensor if tensor.ndim == 4 else tensor[:, None], probe) else 1
    return int(tensor.ndim == 4)


def _is_dense(tensor: Tensor, probe: ProbeSet) -> bool:
    """Has (B, K, h, w) the aspect of the images, and a channel for each class?"""
    assert probe.class_maps is not None
    height, width = probe.images.shape[-2:]
    most, channels = int(probe.class_maps.max()), tensor.shape[1]
    same_aspect = abs(tensor.shape[2] * width - tensor.shape[3] * height) <= max(height, width)
    return same_aspect and (most < channels or (channels == 1 and most <= 1))


def _is_softmax_of(tensor: Tensor, logits: Tensor) -> bool:
    """Is it nothing but the other's softmax? Then the other is what is explained."""
    if tensor is logits or tensor.shape != logits.shape or tensor.ndim < 2 or tensor.shape[1] < 2:
        return False
    return bool(torch.allclose(tensor.detach().float(), logits.detach().float().softmax(1), atol=1e-4))
