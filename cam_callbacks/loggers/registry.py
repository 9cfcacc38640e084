"""How a sink is chosen: for a trainer's logger by the name of its class, or how it takes pictures; for an address by its kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, TypeVar

from cam_callbacks.delivery.sink import LoggerSink, Moved, Sink, SinkOptions
from cam_callbacks.loggers.log_image import CometSink, LogImageSink
from cam_callbacks.loggers.mlflow import MLflowSink
from cam_callbacks.loggers.tensorboard import TensorBoardSink
from cam_callbacks.loggers.wandb import WandbSink

S = TypeVar("S", bound=type[LoggerSink])

_SINKS: dict[str, type[LoggerSink]] = {}


def register_sink(sink: S) -> S:
    """Serve another kind of logger, from here on; one of the same ``kind`` is replaced.

    >>> from cam_callbacks.loggers import LogImageSink, register_sink
    >>> @register_sink
    ... class MyLoggerSink(LogImageSink):
    ...     kind, logger_class = "mine", "MyLogger"
    ...     def _log(self, tag, picture, step):
    ...         self.logger.save_picture(tag, picture, step)
    """
    _SINKS[sink.kind] = sink
    return sink


register_sink(TensorBoardSink)
register_sink(MLflowSink)
register_sink(WandbSink)
register_sink(CometSink)


def sinks_of(
    loggers: Iterable[Any], options: SinkOptions, guarded: Callable[[str], AbstractContextManager[None]]
) -> list[Sink]:
    """A sink for each of a trainer's loggers that one is registered for.

    Args:
        loggers: Of the trainer, in order.
        options: For each of them; they are numbered here.
        guarded: What each is made in, such as :meth:`cam_callbacks.failures.Failures.guarded`: one that cannot be opened
            costs the others nothing.
    """
    sinks: list[Sink] = []
    numbers: Counter[type[LoggerSink]] = Counter()
    for logger in loggers:
        sink = _sink_class(logger)
        if sink is None:
            continue
        numbers[sink] += 1
        with guarded(f"no pictures for {type(logger).__name__}"):
            sinks.append(sink.from_logger(logger, replace(options, number=numbers[sink])))
    return sinks


def sink_from_address(address: Mapping[str, Any], moved: Moved) -> Sink:
    """The sink that had this address.

    Raises:
        LookupError: None of that kind is registered.
    """
    kind = address.get("kind")
    if kind not in _SINKS:
        raise LookupError(
            f"no logger of kind {kind!r} is registered, only {', '.join(_SINKS)}; import the module whose register_sink adds it"
        )
    return _SINKS[kind].from_address(address, moved)


def is_a(logger: Any, class_name: str) -> bool:
    """Is this logger of a class of that name? Lightning exists as two packages whose classes are unrelated."""
    return any(cls.__name__ == class_name for cls in type(logger).__mro__)


def _sink_class(logger: Any) -> type[LoggerSink] | None:
    """That of the logger's own class, else of the nearest class that it is made from, else by how it takes pictures."""
    served = {sink.logger_class: sink for sink in _SINKS.values()}
    own = next((served[cls.__name__] for cls in type(logger).__mro__ if cls.__name__ in served), None)
    return own or (LogImageSink if LogImageSink.serves(logger) else None)
