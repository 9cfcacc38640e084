"""Looks in TensorBoard."""

from __future__ import annotations

import struct
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

from cam_callbacks.delivery.sink import Moved, SinkOptions
from cam_callbacks.drawing import Drawing, Picture
from cam_callbacks.keys import plain_key
from cam_callbacks.records import Record, RecordStore
from cam_engine.render import WEBP_LARGEST, encode_jpeg, mean_difference

# WebP halves the resolution of colours, which shows where they change sharply: a panel that is so many levels of 255 off then, on
# average, is a JPEG that does not. Views of many images together are WebPs.
MOST_OFF = 2.0

# The tab "Custom Scalars" shows the numbers that say most first; "Scalars" goes by the alphabet.
CHARTS = {
    "what the prediction follows": "object_share|follows_(object|background|nuisance|frame|detail)",
    "focus on the object, 1 is chance": "on_target_enrichment/.*",
    "focus on the suspected region, 1 is chance": "nuisance_enrichment/.*",
    "drift of the focus": "focus_drift/.*",
    "how alike the maps are": "consensus/.*",
    "alerts": "alert/.*",
}


class TensorBoardSink:
    """Pictures for TensorBoard's images tab.

    One tag for each probe image and method, ``cam/<method>/<image>``, so that the tab's slider walks through the
    epochs; a contact sheet of each look under ``cam/<method>/sheet``, and what lies under the focus as
    ``cam/<method>/under_the_focus``; the film strip at the end of the run. An alert is
    a text under the tag of its scalar, ``cam/alert/<name>``, at the step where it was raised. The tab Custom Scalars has the
    numbers that say most first, unless the run has a layout of its own by then.

    Args:
        writer: A ``SummaryWriter``.
        every_n_looks: Draw each n-th look only.
        name: Of its own for each of several writers of one run; what was delivered is remembered under it.

    >>> from torch.utils.tensorboard import SummaryWriter
    >>> from cam_callbacks.loggers import TensorBoardSink
    >>> sink = TensorBoardSink(SummaryWriter("board"), every_n_looks=5)
    >>> sink.name, sink.address["kind"]
    ('tensorboard', 'tensorboard')
    """

    kind: ClassVar[str] = "tensorboard"
    logger_class: ClassVar[str] = "TensorBoardLogger"

    def __init__(self, writer: Any, every_n_looks: int = 1, name: str = "tensorboard") -> None:
        self.writer = writer
        self.every_n_looks = every_n_looks
        self.name = name
        self._there: set[tuple[str, int]] | None = None  # what earlier processes left
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
        if record.look == 0:
            prefix = plain_key("", drawing.manifest.get("name"))
            charts = {title: ["Multiline", [f"^{prefix}({tags})$"]] for title, tags in CHARTS.items()}
            self.writer.add_custom_scalars({prefix.strip("/"): charts})
        for alert in record.alerts:
            if alert.new:
                key = plain_key(f"alert/{alert.name}", drawing.manifest.get("name"))
                self.writer.add_text(key, str(alert), drawing.step(record))
        if record.look % self.every_n_looks:
            return
        pictures = dict(drawing.panels(record))
        panels = set(pictures)  # so far
        for method, layer in drawing.series:
            pictures[f"{drawing.tag(method, layer)}/sheet"] = drawing.sheet(record, method, layer)
            wall = drawing.wall(record, method, layer)
            if wall is not None:
                pictures[f"{drawing.tag(method, layer)}/under_the_focus"] = wall

        self._add(pictures, record, drawing, panels)

    def finish(self, store: RecordStore, drawing: Drawing) -> None:
        records = drawing.sampled()
        if not records:
            return
        strips = {
            f"{drawing.tag(method, layer)}/film_strip": drawing.strip(records, method, layer)
            for method, layer in drawing.series
        }
        self._add(strips, records[-1], drawing)

    def _add(
        self, pictures: Mapping[str, Picture], record: Record, drawing: Drawing, panels: Container[str] = ()
    ) -> None:
        """All in one event, in the file as a whole or not at all; what an interrupted process left there is not repeated."""
        step = drawing.step(record)
        if self._there is None:
            self._there = pictures_in(Path(self.writer.log_dir))
        images = [
            Summary.Value(
                tag=tag,
                image=Summary.Image(
                    height=picture.shape[0],
                    width=picture.shape[1],
                    colorspace=3,
                    encoded_image_string=_encoded(picture, record, drawing, tag in panels),
                ),
            )
            for tag, picture in pictures.items()
            if (tag, step) not in self._there
        ]
        if images:
            # add_image would make PNGs, ten times as large, whose checksum TensorBoard computes in Python.
            self.writer._get_file_writer().add_summary(Summary(value=images), step)
            self.writer.flush()


def _encoded(picture: Picture, record: Record, drawing: Drawing, is_panel: bool) -> bytes:
    """As a WebP, or as a JPEG where that is too large for one, or a panel that would suffer."""
    if max(picture.shape) > WEBP_LARGEST:
        return encode_jpeg(picture)
    data = drawing.webp(record, picture)
    return encode_jpeg(picture) if is_panel and mean_difference(data, picture) >= MOST_OFF else data


def pictures_in(folder: Path) -> set[tuple[str, int]]:
    """Tags and steps of the pictures that the event files in a folder hold."""
    found = set()
    for file in filter(Path.is_file, folder.glob("*tfevents*")):  # opening a FIFO would wait for a writer
        with suppress(Exception):  # protobuf has its own: a process that was killed may have left anything
            found |= {
                (value.tag, event.step)
                for event in map(Event.FromString, _events(file))
                for value in event.summary.value
                if value.HasField("image")
            }
    return found


def _events(file: Path) -> Iterator[bytes]:
    """The events of a file, each as length (8 bytes), its checksum (4), data, its checksum (4)."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        while len(head := stream.read(12)) == 12:
            (length,) = struct.unpack("<Q", head[:8])
            if stream.tell() + length + 4 > size:
                return
            yield stream.read(length)
            stream.read(4)
