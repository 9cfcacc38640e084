"""Where looks are delivered to, and what that is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

from cam_callbacks.drawing import Drawing
from cam_callbacks.records import Record, RecordStore


class Sink(Protocol):
    """Where a record's pictures and files go.

    ``name`` tells sinks of one run apart, also after a restart. ``address`` holds what :func:`cam_callbacks.delivery.sync.sync`
    needs to make the sink again, as plain values; None where that cannot be.
    """

    name: str
    address: dict[str, Any] | None

    def deliver(self, record: Record, drawing: Drawing) -> None:
        """Take one look's pictures and files; raise if that fails."""

    def finish(self, store: RecordStore, drawing: Drawing) -> None:
        """Take what sums up the whole run."""


@dataclass(frozen=True)
class SinkOptions:
    """``number``: 1 for a trainer's first logger of that class, 2 for the second. ``every_n_looks``: draw each n-th look only.

    ``report_every_n_looks``: sum the run up after every n-th look, beside the end; 0: at the end only.

    >>> from pytorch_lightning.loggers import TensorBoardLogger
    >>> from cam_callbacks.loggers import SinkOptions, TensorBoardSink
    >>> TensorBoardSink.from_logger(TensorBoardLogger("."), SinkOptions(number=2, every_n_looks=5)).name
    'tensorboard-2'
    """

    number: int = 1
    every_n_looks: int = 1
    report_every_n_looks: int = 0


@dataclass(frozen=True)
class Moved:
    """What is elsewhere since the training. ``tracking_uri``: MLflow's, where it has moved or needs a password.

    ``run_ids``: MLflow's ids of the runs that were still to be made, by the id that the training gave them.

    >>> from cam_callbacks.loggers import MLflowSink, Moved
    >>> address = {"kind": "mlflow", "name": "mlflow:0af3", "run_id": "0af3", "tracking_uri": "http://old:5000"}
    >>> MLflowSink.from_address(address, Moved("http://new:5000")).client.tracking_uri
    'http://new:5000'
    """

    tracking_uri: str | None = None
    run_ids: Mapping[str, str] = field(default_factory=dict)


class LoggerSink(Sink, Protocol):
    """A sink that is made from a trainer's logger, and again from its address (:mod:`cam_callbacks.loggers.registry`).

    ``kind`` stands in its address. ``logger_class``: name of the class of loggers that it serves, and of those made from it. A
    name, because Lightning exists as two packages whose classes are unrelated.

    >>> from cam_callbacks.loggers import LoggerSink, TensorBoardSink
    >>> sink: type[LoggerSink] = TensorBoardSink
    >>> sink.kind, sink.logger_class
    ('tensorboard', 'TensorBoardLogger')
    """

    kind: ClassVar[str]
    logger_class: ClassVar[str]

    @classmethod
    def from_logger(cls, logger: Any, options: SinkOptions) -> Self:
        """The sink of a trainer's logger; raise where that cannot be opened."""

    @classmethod
    def from_address(cls, address: Mapping[str, Any], moved: Moved) -> Self:
        """The sink that had this address, under its ``name``."""
