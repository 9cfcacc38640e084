"""What one look measured, and how it becomes the bytes of a file."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cam_callbacks.records.checking import check_names, numbers, numbers_by_name, references, whole
from cam_callbacks.records.files import SCHEMA, check_schema, from_json, open_npz, to_json, to_npz
from cam_callbacks.text_table import printable

Maps = dict[tuple[str, str], NDArray[np.float32]]


@dataclass(frozen=True)
class Alert:
    """A rule that holds for one method on one layer at a look (:mod:`cam_callbacks.look.alerts`).

    ``method``, ``layer``: "" where the look as a whole is judged. ``look``, ``epoch``: of this record. ``since_look``,
    ``since_epoch``: where the rule began to hold. ``new``: raised at this very look. ``measured``: in words. ``images``: ids, the
    worst first. ``advice``: what to look at.

    >>> rule = {"name": "collapsed", "below": 2.0, "looks": 1}  # holds at every look
    >>> monitor = CAMMonitor(probe, methods="gradcam", alerts=[rule])
    >>> record = [monitor.look(model, epoch) for epoch in range(2)][-1]
    >>> [(alert.name, alert.since_epoch, alert.new) for alert in record.alerts]
    [('collapsed', 1, True)]
    """

    name: str
    method: str
    layer: str
    look: int
    epoch: int
    since_look: int
    since_epoch: int
    new: bool
    measured: str
    images: tuple[str, ...]
    advice: str

    def __str__(self) -> str:
        images = f" Images: {', '.join(self.images)}." if self.images else ""
        where = f"{self.method} at {self.layer}, " if self.method else ""
        return (
            f"{self.name} ({where}epoch {self.epoch}): {self.measured}; "
            f"since epoch {self.since_epoch}.{images} {self.advice}"
        )

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Alert:
        """From a record's header; what a later version wrote besides is left out."""
        look, epoch, since_look, since_epoch = (
            whole(values[k]) for k in ("look", "epoch", "since_look", "since_epoch")
        )
        name, method, layer, measured, advice = (
            printable(str(values[k])) for k in ("name", "method", "layer", "measured", "advice")
        )
        images = tuple(map(printable, check_names(values["images"], 1, "an alert")))
        return cls(
            name, method, layer, look, epoch, since_look, since_epoch, bool(values["new"]), measured, images, advice
        )


@dataclass(frozen=True)
class Judged:
    """What a rule found at a look, raised or not.

    ``method`` and ``layer`` are "" for a rule that judges the look as a whole. ``state``: ``"raised"``, ``"quiet"``,
    ``"cannot judge"``, or ``"remark"`` for what raises nothing. ``statistic``: large where something is wrong, against
    ``threshold``; NaN where the rule cannot judge. ``words``: what was measured, or why it cannot be judged.

    >>> states = {judged.rule: judged.state for judged in record.judged}
    >>> states["collapsed"], states["off_target"]  # without masks nobody knows the target
    ('quiet', 'cannot judge')
    """

    rule: str
    method: str
    layer: str
    state: str
    statistic: float
    threshold: float
    words: str

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Judged:
        """From a record's header, where NaN and infinity are null."""
        rule, method, layer, state, words = (
            printable(str(values[k])) for k in ("rule", "method", "layer", "state", "words")
        )
        statistic, threshold = (
            float("nan") if values[k] is None else float(values[k]) for k in ("statistic", "threshold")
        )
        return cls(rule, method, layer, state, statistic, threshold, words)


@dataclass(frozen=True, eq=False)
class Record:
    """One look at the probe set.

    ``look`` counts looks from 0 and is unique; ``epoch`` and ``step`` are the trainer's.
    ``metrics``: the logged keys, ``"cam/drift_ref/gradcam"``; NaN where a number is undefined at this look.
    ``maps[method, layer]``: (N, h, w) float32 on the layer's grid, after ReLU, not rescaled.
    ``per_image["entropy/gradcam"]``: (N,) float64; with ``/<layer>`` appended when several layers are tracked.
    ``aggregates["entropy/gradcam"]``: mean, median, worst_tenth, worst_class (the worst class's mean), low and high (95 %
    bootstrap interval of the mean), n (images counted), and ``group:<tag>``, the mean of each of the probe's groups.
    ``t_maps[method, layer]``: (h, w) float32, the paired t of each cell against the reference, positive where focus was
    gained (:func:`cam_engine.metrics.max_t`).
    ``alerts``: those that are raised at this look, old and new.
    ``judged``: what every rule found, raised or not.
    ``exchange_pairs``: (P, 2) donor and receiver of the exchange tests; ``exchanged["object"]``, ``["focus/gradcam"]``: (P,)
    the class that the model named for each mixture, −1 for a pair left out. None and {} where nothing was exchanged.
    ``predictions``, ``confidences``, ``scores``, ``targets``: (N,), predicted class, its probability, the explained
    score and class; None where the model is no classifier.
    ``reference``: for each ``method/layer``, what drift is measured against: ``look``, ``settled`` (has the focus been calm,
    whatever the reference?), ``reference_set`` (is it the one that was asked for, and no stand-in?), ``floor``,
    ``ceiling``, the ``grid`` [h, w], and ``t_critical``, the |t| above which a cell of ``t_maps`` has moved significantly.
    ``user_metrics``: what else the trainer had logged by the end of that validation, such as its accuracy.
    ``seconds``: what the look cost. ``time``: seconds since 1970.

    >>> from cam_callbacks import RecordStore
    >>> record = RecordStore("runs/one")[-1]
    >>> record.epoch, record.maps["eigencam", "3"].shape, sorted(record.aggregates)[:2]
    (1, (6, 16, 16), ['centroid_shift/eigencam', 'centroid_shift/gradcam'])
    """

    look: int
    epoch: int
    step: int
    metrics: dict[str, float]
    maps: Maps
    per_image: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    aggregates: dict[str, dict[str, float]] = field(default_factory=dict)
    predictions: NDArray[np.int64] | None = None
    confidences: NDArray[np.float64] | None = None
    scores: NDArray[np.float64] | None = None
    targets: NDArray[np.int64] | None = None
    reference: dict[str, dict[str, Any]] = field(default_factory=dict)
    user_metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    time: float = 0.0
    t_maps: Maps = field(default_factory=dict)
    alerts: tuple[Alert, ...] = ()
    judged: tuple[Judged, ...] = ()
    exchange_pairs: NDArray[np.int64] | None = None
    exchanged: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays in memory."""
        return sum(
            a.nbytes for arrays in (self.maps, self.per_image, self.t_maps, self.exchanged) for a in arrays.values()
        )

    def to_bytes(self) -> bytes:
        """The record as an npz file; arrays under numbered names, what they are in a JSON header."""
        header = {
            "schema": SCHEMA,
            "look": self.look,
            "epoch": self.epoch,
            "step": self.step,
            "metrics": self.metrics,
            "aggregates": self.aggregates,
            "reference": self.reference,
            "user_metrics": self.user_metrics,
            "seconds": self.seconds,
            "time": self.time,
            "maps": [list(key) for key in self.maps],
            "per_image": list(self.per_image),
            "t_maps": [list(key) for key in self.t_maps],
            "alerts": [asdict(alert) for alert in self.alerts],
            "judged": [asdict(judged) for judged in self.judged],
            "exchanged": list(self.exchanged),
        }
        arrays: dict[str, Any] = {f"map_{i}": m for i, m in enumerate(self.maps.values())}
        arrays |= {f"image_{i}": v for i, v in enumerate(self.per_image.values())}
        arrays |= {f"t_{i}": t for i, t in enumerate(self.t_maps.values())}
        of_a_classifier = {
            "predictions": self.predictions,
            "confidences": self.confidences,
            "scores": self.scores,
            "targets": self.targets,
            "exchange_pairs": self.exchange_pairs,
        }
        arrays |= {f"exchanged_{i}": classes for i, classes in enumerate(self.exchanged.values())}
        arrays |= {name: array for name, array in of_a_classifier.items() if array is not None}
        arrays["header"] = np.frombuffer(to_json(header).encode(), dtype=np.uint8)
        return to_npz(arrays)

    @classmethod
    def from_bytes(cls, data: bytes, source: str = "record") -> Record:
        """Read what :meth:`to_bytes` wrote.

        Raises:
            RecordError: Damaged, not a record, or written by a newer version.
        """
        with open_npz(data, source, damaged="is damaged or is no record") as file:
            header = from_json(_numbers(file, "header", 1).tobytes().decode())
            check_schema(header, source)
            record = cls(
                look=whole(header["look"], 0),
                epoch=whole(header["epoch"]),
                step=whole(header["step"]),
                metrics=numbers(header["metrics"]),
                aggregates=numbers_by_name(header["aggregates"]),
                reference=references(header["reference"]),
                user_metrics=numbers(header["user_metrics"]),
                seconds=float(header["seconds"]),
                time=float(header["time"]),
                maps={
                    (m, layer): _numbers(file, f"map_{i}", 3)
                    for i, (m, layer) in enumerate(check_names(header["maps"], 2, source))
                },
                per_image={
                    name: _numbers(file, f"image_{i}", 1)
                    for i, name in enumerate(check_names(header["per_image"], 1, source))
                },
                predictions=_numbers_or_none(file, "predictions"),
                confidences=_numbers_or_none(file, "confidences"),
                scores=_numbers_or_none(file, "scores"),
                targets=_numbers_or_none(file, "targets"),
                # Not in the first records of this schema:
                t_maps={
                    (m, layer): _numbers(file, f"t_{i}", 2)
                    for i, (m, layer) in enumerate(check_names(header.get("t_maps", []), 2, source))
                },
                alerts=tuple(map(Alert.from_plain, header.get("alerts", ()))),
                judged=tuple(map(Judged.from_plain, header.get("judged", ()))),
                exchange_pairs=_numbers(file, "exchange_pairs", 2) if "exchange_pairs" in file.files else None,
                exchanged={
                    part: _numbers(file, f"exchanged_{i}", 1)
                    for i, part in enumerate(check_names(header.get("exchanged", []), 1, source))
                },
            )
            record._check_lengths()
            return record

    def _check_lengths(self) -> None:
        """Raise ValueError where two arrays speak of different numbers of images or pairs."""
        of_images: list[NDArray[Any]] = [*self.maps.values(), *self.per_image.values()]
        of_images += [a for a in (self.predictions, self.confidences, self.scores, self.targets) if a is not None]
        pairs = [] if self.exchange_pairs is None else [self.exchange_pairs]
        lengths = ({len(array) for array in of_images}, {len(array) for array in [*pairs, *self.exchanged.values()]})
        for each in lengths:
            if len(each) > 1:
                raise ValueError("its arrays are of different numbers of images")


def _numbers(file: Any, name: str, dimensions: int | None = None) -> Any:
    """An array of numbers. A record has dozens of the same few layouts, which numpy would parse anew for each."""
    data = file.zip.read(f"{name}.npy")
    start = 10 + int.from_bytes(data[8:10], "little")
    if not data.startswith(b"\x93NUMPY\x01\x00"):
        raise ValueError(f"{name} is no array as it should be")
    shape, fortran, dtype = _layout(data[8:start])
    if fortran or dtype.kind not in "fiub" or len(shape) != (dimensions or len(shape)):
        raise ValueError(f"{name} is no array of numbers as it should be")
    return np.frombuffer(data, dtype, offset=start).reshape(shape).copy()


@lru_cache(maxsize=256)
def _layout(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and type of an array, from the header that numpy's format 1.0 puts before it."""
    return np.lib.format.read_array_header_1_0(io.BytesIO(header))


def _numbers_or_none(file: Any, name: str) -> Any:
    return _numbers(file, name, 1) if name in file.files else None
