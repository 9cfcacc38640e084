"""Looks in any logger that takes pictures by a method of its own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn, Self

from PIL import Image

from cam_callbacks.delivery.sink import Moved, SinkOptions
from cam_callbacks.drawing import Drawing, Picture
from cam_callbacks.records import Record, RecordStore


class LogImageSink:
    """Pictures for a logger with ``log_image(key, images, step)``, as Lightning's ``WandbLogger`` and SwanLab's logger have it.

    The same tags and steps as in TensorBoard. Such a logger cannot be opened again from disk: what it did not take is in the
    records alone.

    Args:
        logger: The trainer's.
        every_n_looks: Draw each n-th look only.
        name: Of its own for each of several loggers of one run; what was delivered is remembered under it.

    >>> from cam_callbacks.loggers import LogImageSink
    >>> class Printing:
    ...     def log_image(self, key, images, step):
    ...         print(key, step, images[0].size)
    >>> LogImageSink.serves(Printing())
    True
    """

    kind: ClassVar[str] = "log_image"
    logger_class: ClassVar[str] = ""  # of any name, see serves()
    address: dict[str, Any] | None = None

    def __init__(self, logger: Any, every_n_looks: int = 1, name: str = "log_image") -> None:
        self.logger, self.every_n_looks, self.name = logger, every_n_looks, name

    @staticmethod
    def serves(logger: Any) -> bool:
        """Does it take pictures that way?"""
        method = getattr(logger, "log_image", None)
        return callable(method) and {"key", "images", "step"} <= set(inspect.signature(method).parameters)

    @classmethod
    def from_logger(cls, logger: Any, options: SinkOptions) -> Self:
        """For any logger that :meth:`serves` finds."""
        name = f"{type(logger).__name__}:{logger.name}/{logger.version}"
        return cls(logger, options.every_n_looks, name if options.number == 1 else f"{name}-{options.number}")

    @classmethod
    def from_address(cls, address: Mapping[str, Any], moved: Moved) -> NoReturn:
        raise LookupError("such a logger is its trainer's, and cannot be opened again")

    def deliver(self, record: Record, drawing: Drawing) -> None:
        if record.look % self.every_n_looks:
            return
        for tag, picture in drawing.panels(record):
            self._log(tag, picture, drawing.step(record))
        for method, layer in drawing.series:
            self._log(f"{drawing.tag(method, layer)}/sheet", drawing.sheet(record, method, layer), drawing.step(record))

    def finish(self, store: RecordStore, drawing: Drawing) -> None:
        records = drawing.sampled()
        for method, layer in drawing.series if records else ():
            strip = drawing.strip(records, method, layer)
            self._log(f"{drawing.tag(method, layer)}/film_strip", strip, drawing.step(records[-1]))

    def _log(self, tag: str, picture: Picture, step: int) -> None:
        self.logger.log_image(key=tag, images=[Image.fromarray(picture)], step=step)


class CometSink(LogImageSink):
    """Pictures for Lightning's ``CometLogger``, online or offline: its experiment takes them."""

    kind: ClassVar[str] = "comet"
    logger_class: ClassVar[str] = "CometLogger"

    def _log(self, tag: str, picture: Picture, step: int) -> None:
        self.logger.experiment.log_image(picture, name=tag, step=step)
