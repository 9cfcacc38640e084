"""What is said of a probe image: what is true of it, and what the model says; by its task, as the manifest has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cam_callbacks.records import Record

MOST_LABELS = 3  # of several true ones that are named

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Caption:
    """What the model says of the images at one look.

    ``manifest``, ``probe``: of the run (:class:`cam_callbacks.RecordStore`).
    """

    manifest: Mapping[str, Any]
    probe: Arrays
    record: Record

    def lines(self, index: int, short: bool = False) -> list[str]:
        """``["predicted dog · 87%"]``, ``["predicted 3.2"]``; [] where the model says nothing that can be named.

        ``short``: a class goes without the word before it, where there is no room for both and the true one is named above:
        ``["dog · 87%"]``.
        """
        record, kind = self.record, kind_of(self.manifest)
        if record.predictions is not None and record.predictions[index] >= 0:
            named = class_name(self.manifest, int(record.predictions[index]))
            return [f"{'' if short and 'labels' in self.probe else 'predicted '}{named}{self._sure(index)}"]
        if kind in ("regression", "anomaly") and record.scores is not None:
            return [f"{'predicted' if kind == 'regression' else 'anomaly score'} {record.scores[index]:.4g}"]
        if kind == "multilabel" and record.targets is not None and record.targets[index] >= 0:
            return [f"{class_name(self.manifest, int(record.targets[index]))}{self._sure(index)}"]
        if record.targets is not None and record.targets[index] < 0:
            return ["without that class" if kind == "segmentation" else "nothing to explain"]
        return []

    def wrong(self, index: int) -> bool:
        """Is another class predicted than is true?"""
        labels, predictions = self.probe.get("labels"), self.record.predictions
        if labels is None or predictions is None or labels[index] < 0:
            return False
        return bool(predictions[index] != labels[index])

    def _sure(self, index: int) -> str:
        confidences = self.record.confidences
        return "" if confidences is None or not np.isfinite(confidences[index]) else f" · {confidences[index]:.0%}"


def true_words(manifest: Mapping[str, Any], probe: Arrays, index: int) -> list[str]:
    """What is known of an image: its class, its classes or its value; [] where nothing is."""
    if "labels" in probe:
        label = int(probe["labels"][index])
        return [class_name(manifest, label)] if label >= 0 else []
    if "label_sets" in probe:
        names = [class_name(manifest, int(c)) for c in np.flatnonzero(probe["label_sets"][index])]
        more = [f"{len(names) - MOST_LABELS} more"] if len(names) > MOST_LABELS else []
        return [", ".join([*names[:MOST_LABELS], *more]) or "no label"]
    if "values" in probe:
        values = np.atleast_1d(probe["values"][index])
        return [
            ", ".join(f"{value:.4g}" for value in values[:MOST_LABELS]) + (", …" if len(values) > MOST_LABELS else "")
        ]
    return []


def kind_of(manifest: Mapping[str, Any]) -> str:
    """The task of a run; of records that do not say it, "classification"."""
    return str((manifest.get("task") or {}).get("kind", "classification"))


def class_name(manifest: Mapping[str, Any], index: int) -> str:
    """Name of a class, or ``class 3`` where it has none."""
    names = manifest["probe"]["class_names"]
    return str(names[index]) if names is not None and 0 <= index < len(names) else f"class {index}"
