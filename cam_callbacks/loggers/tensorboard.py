"""Looks in TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from cam_callbacks.delivery.sink import Moved, SinkOptions
from cam_callbacks.drawing import Drawing
from cam_callbacks.keys import plain_key
from cam_callbacks.records import Record, RecordStore


class TensorBoardSink:
    """Pictures for TensorBoard's images tab.

    One tag for each probe image and method, ``cam/<method>/<image>``, so that the tab's slider walks through the
    epochs; a contact sheet of each look under ``cam/<method>/sheet``, and what lies under the focus as
    ``cam/<method>/under_the_focus``; the film strip at the end of the run. An alert is
    a text under the tag of its scalar, ``cam/alert/<name>``, at the step where it was raised.

    Args:
        writer: A ``SummaryWriter``.
        every_n_looks: Draw each n-th look only.
        name: Of its own for each of several writers of one run; what was delivered is remembered under it.
    """

    kind: ClassVar[str] = "tensorboard"
    logger_class: ClassVar[str] = "TensorBoardLogger"

    def __init__(self, writer: Any, every_n_looks: int = 1, name: str = "tensorboard") -> None:
        self.writer = writer
        self.every_n_looks = every_n_looks
        self.name = name
        folder = getattr(writer, "log_dir", None)
        self.address = (
            None if folder is None else {"kind": self.kind, "log_dir": str(folder), "every_n_looks": every_n_looks}
        )

    @classmethod
    def from_logger(cls, logger: Any, options: SinkOptions) -> TensorBoardSink:
        """For Lightning's ``TensorBoardLogger``, of either package."""
        name = "tensorboard" if options.number == 1 else f"tensorboard-{options.number}"
        return cls(logger.experiment, options.every_n_looks, name)

    @classmethod
    def from_address(cls, address: Mapping[str, Any], moved: Moved) -> TensorBoardSink:
        """For the folder that an address names."""
        from torch.utils.tensorboard import SummaryWriter

        return cls(SummaryWriter(address["log_dir"]), int(address.get("every_n_looks", 1)), address["name"])

    def deliver(self, record: Record, drawing: Drawing) -> None:
        for alert in record.alerts:
            if alert.new:
                key = plain_key(f"alert/{alert.name}", drawing.manifest.get("name"))
                self.writer.add_text(key, str(alert), drawing.step(record))
        if record.look % self.every_n_looks:
            return
        step = drawing.step(record)
        for tag, picture in drawing.panels(record):
            self._add(tag, picture, step)
        for method, layer in drawing.series:
            self._add(f"{drawing.tag(method, layer)}/sheet", drawing.sheet(record, method, layer), step)
            wall = drawing.wall(record, method, layer)
            if wall is not None:
                self._add(f"{drawing.tag(method, layer)}/under_the_focus", wall, step)
        self.writer.flush()

    def finish(self, store: RecordStore, drawing: Drawing) -> None:
        records = drawing.sampled()
        if not records:
            return
        for method, layer in drawing.series:
            strip = drawing.strip(records, method, layer)
            self._add(f"{drawing.tag(method, layer)}/film_strip", strip, drawing.step(records[-1]))
        self.writer.flush()

    def _add(self, tag: str, picture: Any, step: int) -> None:
        self.writer.add_image(tag, picture, global_step=step, dataformats="HWC")
