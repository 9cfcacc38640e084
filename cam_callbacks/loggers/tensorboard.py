from __future__ import annotations

from typing import Any

from cam_callbacks.drawing import Drawing
from cam_callbacks.keys import plain_key, series_name
from cam_callbacks.records import Record, RecordStore


class TensorBoardSink:
    """Pictures for TensorBoard's images tab.

    One tag for each probe image and method, ``cam/<method>/<image>``, so that the tab's slider walks through the
    epochs; a contact sheet of each look under ``cam/<method>/sheet``; the film strip at the end of the run.

    Args:
        writer: A ``SummaryWriter``.
        every_n_looks: Draw each n-th look only.
    """

    def __init__(self, writer: Any, every_n_looks: int = 1, name: str = "tensorboard") -> None:
        self.writer = writer
        self.every_n_looks = every_n_looks
        self.name = name

    def deliver(self, record: Record, drawing: Drawing) -> None:
        if record.look % self.every_n_looks:
            return
        step = picture_step(record, drawing)
        for method, layer in drawing.series:
            tag = picture_tag(drawing, method, layer)
            for index in drawing.shown:
                self._add(f"{tag}/{drawing.image_id(index)}", drawing.panel(record, method, layer, index), step)
            self._add(f"{tag}/sheet", drawing.sheet(record, method, layer), step)
        self.writer.flush()

    def finish(self, store: RecordStore, drawing: Drawing) -> None:
        records = list(store)
        if not records:
            return
        for method, layer in drawing.series:
            strip = drawing.strip(records, method, layer)
            self._add(f"{picture_tag(drawing, method, layer)}/film_strip", strip, picture_step(records[-1], drawing))
        self.writer.flush()

    def _add(self, tag: str, picture: Any, step: int) -> None:
        self.writer.add_image(tag, picture, global_step=step, dataformats="HWC")


def picture_tag(drawing: Drawing, method: str, layer: str) -> str:
    """``cam/gradcam``, with the callback's name and the layer where there are several."""
    return plain_key(series_name(method, layer, drawing.manifest["layers"]), drawing.manifest.get("name"))


def picture_step(record: Record, drawing: Drawing) -> int:
    """Epoch where there is one look an epoch, so that runs line up; otherwise the look."""
    return record.epoch if drawing.manifest.get("picture_step", "epoch") == "epoch" else record.look
