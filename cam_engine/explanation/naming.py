"""Which class a classifier's score is about: by name, with its probability."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cam_engine.errors import UnknownNameError, nearest
from cam_engine.explanation.request import ClassNames
from cam_engine.targets.classes import ClassTarget
from cam_engine.targets.resolve import TargetSpec
from cam_engine.targets.scores import class_scores


@dataclass(frozen=True)
class ExplainedClass:
    """``index`` in the model's scores, ``name`` as far as it is known, ``probability`` by softmax (of one score: by sigmoid)."""

    index: int | None = None
    name: str | None = None
    probability: float | None = None

    def words(self) -> str:
        """``"Egyptian cat · 72 %"``; "" where no class is explained."""
        if self.index is None:
            return ""
        words = self.name or f"class {self.index}"
        return words if self.probability is None else f"{words} · {percent(self.probability)}"


def percent(probability: float) -> str:
    """``"72 %"``, with a decimal below ten and never 100 for less."""
    if probability < 0.001:
        return "under 0.1 %"
    if probability < 0.1 or 0.995 <= probability < 1:
        return f"{min(probability, 0.999):.1%}".replace("%", " %")
    return f"{probability:.0%}".replace("%", " %")


def names_by_index(given: ClassNames, known: Mapping[int, str] | None) -> Mapping[int, str]:
    """``class_names=`` where it is given, else what the model knows.

    Raises:
        TypeError: Neither a mapping from index to name nor a sequence of names.
    """
    if given is None:
        return known or {}
    if isinstance(given, str):
        raise TypeError(f"class_names= takes the names of all classes, or a mapping from index to name, not {given!r}.")
    pairs = given.items() if isinstance(given, Mapping) else enumerate(given)
    return {int(index): str(name) for index, name in pairs}


def target_index(target: TargetSpec | str, names: Mapping[int, str]) -> TargetSpec:
    """A class's name as its index; any other target as it is.

    Capitals do not matter, and of "tabby, tabby cat" one of the two is enough. A number as text that is no name is an index.

    Raises:
        UnknownNameError: (a KeyError) no such name, several classes of that name, or no names known.
    """
    if not isinstance(target, str):
        return target
    plain = target.strip().casefold()
    whole = [index for index, name in names.items() if name.casefold() == plain]
    part = [i for i, name in names.items() if plain in (each.strip().casefold() for each in name.split(","))]
    found = whole or part
    if len(found) == 1:
        return found[0]
    if found:
        raise UnknownNameError(
            f"{len(found)} classes are called {target!r}: {found}; pass target= one of these numbers."
        )
    if plain.isdecimal():
        return int(plain)
    if not names:
        raise UnknownNameError(
            f"target={target!r}: this model knows no class names; pass class_names=, or the class as a number."
        )
    raise UnknownNameError(f"no class {target!r}; nearest names: {nearest(target, names.values())}.")


def explained_class(scored: Any, target: TargetSpec, net: nn.Module, names: Mapping[int, str]) -> ExplainedClass:
    """The class that a target explains of one image; nothing where it is no class.

    Args:
        scored: The class scores that the model returned, (1, K); a segmenter's (1, K, h, w) have no probability.
        target: None, an index, or a callable.
        net: The model; whether its classes exclude each other.
        names: Class names by index.

    Raises:
        ValueError: As many names as no class scores.
    """
    if isinstance(scored, Tensor) and scored.ndim == 4 and scored.shape[2:].numel() > 1:
        index = target if isinstance(target, int) else None
        return ExplainedClass(index, None if index is None else names.get(index))
    if callable(target) and not isinstance(target, ClassTarget):
        return ExplainedClass()
    try:
        scores = class_scores(scored).detach().float()
    except (TypeError, ValueError):
        return ExplainedClass()
    of = target if isinstance(target, ClassTarget) else ClassTarget(target)
    if scores.shape[1] == 1:
        index = 0 if float(of.sign(scores)[0]) < 0 else 1
        return ExplainedClass(index, names.get(index), float(torch.sigmoid(scores * of.sign(scores))[0, 0]))
    index = int(of.indices(scores)[0])
    return ExplainedClass(index, names.get(index), float(_probabilities(scores, net)[0, index]))


def check_names(names: ClassNames, scored: Any) -> None:
    """Is there one of ``class_names=`` for each score (1, K)? Of a mapping this is not asked.

    Raises:
        ValueError: Another number.
    """
    if names is None or isinstance(names, Mapping) or not isinstance(scored, Tensor) or scored.ndim < 2:
        return
    count = max(2, scored.shape[1])
    if len(names) != count:
        raise ValueError(f"class_names= has {len(names)} names, and the model has {count} classes.")


def _probabilities(scores: Tensor, net: Any) -> Tensor:
    """Softmax of (1, K) logits; of what are probabilities already, themselves; sigmoid where several classes may be there."""
    if bool((scores >= 0).all()) and abs(float(scores.sum()) - 1) < 1e-3:
        return scores
    if getattr(getattr(net, "config", None), "problem_type", None) == "multi_label_classification":
        return scores.sigmoid()
    return scores.softmax(1)
