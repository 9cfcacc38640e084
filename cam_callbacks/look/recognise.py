"""Which task a model is trained for: from one forward of it, and what is known of the probe. Pure."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from cam_callbacks.look.hints import NO_HINTS, Hints
from cam_callbacks.look.probe_targets import LargestPredicted, NoScoreOf, TrueLabels, TrueRegions
from cam_callbacks.look.scores import Scores, ends_in_sigmoid
from cam_callbacks.look.target import Target, fixed_classes, is_listed
from cam_callbacks.look.task import (
    Anomaly,
    Classification,
    MultiLabel,
    NoScore,
    Regression,
    Segmentation,
    Task,
)
from cam_callbacks.probe import ProbeSet
from cam_engine.targets import RegressionTarget

# Parts of the names of losses that compare embeddings with each other, and of those that compare classes.
_OF_EMBEDDINGS = (
    "contrastive",
    "ntxent",
    "infonce",
    "barlow",
    "vicreg",
    "negativecosine",
    "dino",
    "swav",
    "triplet",
    "tico",
)
_OF_CLASSES = ("crossentropy", "bce", "nll", "focal", "softmargin", "labelsmoothing")


def recognise(scores: Scores, probe: ProbeSet, target: Target = "label", hints: Hints = NO_HINTS) -> Task:
    """The task, settled at the first look of a run.

    Args:
        scores: Of a batch of the probe's images, from a recorded forward.
        probe: What is known of them.
        target: What the user asked for; ``"label"`` where nothing was.
        hints: What else is known of the model.

    Raises:
        ValueError: It cannot be told; the sentence says what to pass.
    """
    if callable(target):
        try:
            task = recognise(scores, probe, "label", hints)
        except ValueError:
            task = Task("", probe, target, scores.output)
        if not task.has_score:  # then the user's is the one
            task = Task("", task.probe, target, scores.output)
        of = "a score of yours" if not task.words else f"a score of yours, {task.kind}"
        return replace(task, target=target, words=f"{of}: target= is explained")
    if scores.anomaly:
        return Anomaly("anomaly detection: the anomaly score is explained", probe, RegressionTarget(), scores.output)
    found = scores.tensor
    if found is None or found.ndim not in (1, 2, 3, 4):
        if found is not None and found.ndim == 5:
            raise ValueError(f"the model returned {scores.returned}: volumes (C, D, H, W) are not supported yet.")
        raise _cannot_tell(scores, probe)
    probabilities = ends_in_sigmoid(found)
    if found.ndim == 4:
        task = _dense(scores, probe, target)
    elif found.ndim == 3:
        task = _no_score(scores, probe)
    else:
        task = _columns(scores, probe, target, hints)
    if target == "all" and not isinstance(task, MultiLabel):
        raise ValueError(f'target="all" averages the true labels of a multi-label task, and this is {task.kind}.')
    return replace(task, probabilities=probabilities)


# -- a score for each place
# ----------------------------------------------------------------------------------------------------------------------


def _dense(scores: Scores, probe: ProbeSet, target: Target) -> Task:
    """Of outputs (B, K, h, w)."""
    assert scores.tensor is not None
    channels, maps = scores.tensor.shape[1], _class_maps(probe, scores.tensor.shape[1])
    if maps is not None:
        most = int(maps.max())
        if channels == 1 and most > 1:  # heights, depths: values of places, which are no classes
            return _no_score(scores, probe)
        if most >= max(channels, 2):
            raise ValueError(
                f"the probe's class maps hold class {most}, and the model returned {channels} channels ({scores.returned}); "
                "pass output= with the key of its class scores, or target=, a callable (outputs) -> Tensor (B,)."
            )
        if target != "predicted":
            return _true_regions(scores, probe, maps, target)
    classes = fixed_classes(target, probe) if target != "label" else None
    if classes is not None:
        words = f"semantic segmentation, {_classes(channels)}: {_named(target)} is explained where it is predicted"
        return Segmentation(words, _with(probe, None), classes.tolist(), scores.output)
    if target == "predicted":
        words = (
            f"semantic segmentation, {_classes(max(2, channels))}: each image's largest predicted class is explained"
        )
        return Segmentation(words, _with(probe, None), LargestPredicted(), scores.output)
    return _no_score(scores, probe)


def _class_maps(probe: ProbeSet, channels: int) -> Tensor | None:
    """(N, H, W) the class of each pixel; of at most two classes the probe's masks are these."""
    if probe.class_maps is not None or probe.masks is None or channels > 2:
        return probe.class_maps
    return torch.from_numpy(probe.masks).long()


def _true_regions(scores: Scores, probe: ProbeSet, maps: Tensor, target: Target) -> Task:
    """Of each image one class is explained where it truly is: its largest, or the one that was asked for."""
    assert scores.tensor is not None
    chosen = fixed_classes(target, probe) if target != "label" else None
    wanted = largest_classes(maps) if chosen is None else torch.from_numpy(chosen)
    regions = maps == wanted[:, None, None]
    regions &= wanted[:, None, None] >= 0
    classes = torch.where(regions.flatten(1).any(1), wanted, -1)
    what = "each image's largest true class" if chosen is None else _named(target)
    words = f"semantic segmentation, {_classes(max(2, scores.tensor.shape[1]))}: {what} is explained, inside its true region"
    return Segmentation(words, _with(probe, classes, regions), TrueRegions(classes, regions), scores.output)


def largest_classes(class_maps: Tensor) -> Tensor:
    """(N,) the class with most pixels of (N, H, W) maps: background, class 0, only where there is no other; −1 for none."""
    count = int(class_maps.max()) + 1
    if count < 1:
        return torch.full((len(class_maps),), -1)
    sizes = torch.stack([(class_maps == c).flatten(1).sum(1) for c in range(count)], 1)
    other = sizes[:, 1:].argmax(1) + 1 if count > 1 else torch.zeros(len(sizes), dtype=torch.int64)
    background = torch.where(sizes[:, 0] > 0, 0, -1)
    return torch.where(sizes[:, 1:].any(1), other, background)


# -- numbers of the whole image
# ----------------------------------------------------------------------------------------------------------------------


def _columns(scores: Scores, probe: ProbeSet, target: Target, hints: Hints) -> Task:
    """Of outputs (B, K) or (B,)."""
    assert scores.tensor is not None
    columns = scores.tensor.shape[1] if scores.tensor.ndim == 2 else 1
    if probe.label_sets is not None:
        if columns != probe.label_sets.shape[1]:
            raise _cannot_tell(scores, probe)
        return _multilabel(scores, probe, target)
    if probe.values is not None:
        return _of_values(scores, probe, target, columns)
    if target == "label":
        if hints.unlabelled or _is_embedding(scores.tensor, columns, hints):
            return _no_score(scores, probe)
        if _of_other_classes(probe, columns, hints):
            return _no_score(scores, probe, _classes_of(probe))
        target = "predicted" if probe.labels is None else "label"
    if target == "label":
        most = int(probe.labels.max())  # type: ignore[union-attr]
        if columns == 1 and most > 1:
            return _regression(scores, _with_values(probe, probe.labels.float()), target, columns)  # type: ignore[union-attr]
        if most >= max(columns, 2):
            raise _cannot_tell(scores, probe, f"the labels go to class {most}, ")
    return _classification(scores, probe, target, columns)


def _classification(scores: Scores, probe: ProbeSet, target: Target, columns: int) -> Task:
    named = {"label": "the label's score", "predicted": "the predicted class's score"}
    what = named.get(str(target)) or _named(target)
    if columns == 1:
        what = "the side of the label" if target == "label" else "the logit" if target == "predicted" else what
    classes = fixed_classes(target, probe)
    words = f"classification, {_classes(max(columns, 2))}: {what} is explained"
    return Classification(words, probe, target if classes is None else classes.tolist(), scores.output)


def _multilabel(scores: Scores, probe: ProbeSet, target: Target) -> Task:
    assert probe.label_sets is not None
    classes = fixed_classes(target, probe)
    chosen: Target = target if classes is None else classes.tolist()
    what = "each image's highest score" if target == "predicted" else _named(target)
    if target in ("label", "all"):
        chosen = TrueLabels(probe.label_sets, "max" if target == "label" else "mean")
        what = "each image's most certain true label" if target == "label" else "the mean of each image's true labels"
    words = f"multi-label classification, {_classes(probe.label_sets.shape[1])}: {what} is explained"
    return MultiLabel(words, probe, chosen, scores.output)


def _of_values(scores: Scores, probe: ProbeSet, target: Target, columns: int) -> Task:
    """Of a probe with numbers that are no classes: a regression, or a classification with soft labels."""
    values = probe.values
    assert values is not None
    given = values[:, None] if values.ndim == 1 else values
    if columns != given.shape[1]:
        raise _cannot_tell(scores, probe)
    if columns > 1 and bool((given >= 0).all()) and bool(((given.sum(1) - 1).abs() < 1e-4).all()):
        return _classification(scores, _with_values(probe, None, given.argmax(1)), target, columns)
    return _regression(scores, probe, target, columns)


def _regression(scores: Scores, probe: ProbeSet, target: Target, columns: int) -> Task:
    index = target if isinstance(target, int) else 0
    if is_listed(target) or not 0 <= index < columns:
        raise ValueError(f"target={target!r}: of a regression the index of one of {columns} values is explained.")
    value = "the predicted value" if columns == 1 else f"predicted value {index}"
    another = "" if columns == 1 else "; target=1 is another" if index == 0 else ""
    of = "one value" if columns == 1 else f"{columns} values"
    return Regression(f"regression, {of}: {value} is explained{another}", probe, RegressionTarget(index), scores.output)


# -- no score
# ----------------------------------------------------------------------------------------------------------------------


def _no_score(scores: Scores, probe: ProbeSet, why: str = "") -> Task:
    words = (
        f"no class score: the model returned {scores.returned}{why}, so methods without gradients show what the layer holds; for a "
        "score pass target=, a class of a segmenter or a callable (outputs) -> Tensor (B,)"
    )
    return NoScore(words, _with_values(probe, None), NoScoreOf(), scores.output)


def _is_embedding(scores: Tensor, columns: int, hints: Hints) -> bool:
    """Do outputs (B, K) stand for a place in a space rather than for classes?"""
    if columns < 2 or columns in hints.heads:
        return False
    if _holds(hints, _OF_EMBEDDINGS) and not _holds(hints, _OF_CLASSES):
        return True
    lengths = scores.detach().double().norm(dim=1)
    sums_to_one = bool(((scores.detach().double().sum(1) - 1).abs() < 1e-4).all())
    return bool(((lengths - 1).abs() < 1e-4).all()) and not sums_to_one


def _of_other_classes(probe: ProbeSet, columns: int, hints: Hints) -> bool:
    """Are the outputs (B, K) not those of the data's classes, as those of an encoder are, whose data have labels all the same?

    A head may well have more outputs than the data have classes, and the probe of a classifier need not hold the last one: only
    where the forward is not all that is trained, other numbers tell an encoder.
    """
    if columns < 2 or columns in hints.heads or _holds(hints, _OF_CLASSES):
        return False
    if probe.labels is None:
        return hints.partial
    seen = int(probe.labels.max()) + 1
    if probe.class_names is None:
        return hints.partial and columns >= 2 * seen
    return columns != len(probe.class_names) and (hints.partial or seen > columns)


def _classes_of(probe: ProbeSet) -> str:
    if probe.labels is None:
        return ""
    known = f"{len(probe.class_names)} classes" if probe.class_names else f"labels to class {int(probe.labels.max())}"
    return f", and the data have {known}"


def _holds(hints: Hints, parts: tuple[str, ...]) -> bool:
    return any(part in loss.lower() for loss in hints.losses for part in parts)


def _cannot_tell(scores: Scores, probe: ProbeSet, why: str = "") -> ValueError:
    return ValueError(
        f"which score to explain cannot be told: {why}the model returned {scores.returned}; pass target=, a callable "
        f"(outputs) -> Tensor (B,), or output= with the key or index of the class scores (the probe is {probe!r})."
    )


# -- the probe as a task has it
# ----------------------------------------------------------------------------------------------------------------------


def _with(probe: ProbeSet, classes: Tensor | None, regions: Tensor | None = None) -> ProbeSet:
    """The probe with one class an image, −1 for none, and its region."""
    seen = copy.copy(probe)
    seen.labels = classes
    if regions is not None:
        seen.masks = regions.numpy()
    return seen


def _with_values(probe: ProbeSet, values: Tensor | None, labels: Tensor | None = None) -> ProbeSet:
    """The probe with values, or classes, in place of those that it came with."""
    seen = copy.copy(probe)
    seen.values, seen.labels = values, labels
    return seen


def _classes(count: int) -> str:
    return f"{count} classes"


def _named(target: Target) -> str:
    return f"class {target}" if isinstance(target, int) else "the class that was asked for"
