"""Looks in Weights & Biases."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from cam_callbacks.delivery.sink import Moved, SinkOptions
from cam_callbacks.drawing import Drawing, Picture
from cam_callbacks.keys import fired, plain_key
from cam_callbacks.loggers.safe_names import safe_key
from cam_callbacks.loggers.scalars import finite
from cam_callbacks.records import Record, RecordStore
from cam_engine.render import encode_jpeg


class WandbSink:
    """Pictures for one run of Weights & Biases, online or offline.

    One key for each probe image and method, ``cam/<method>/<image>``, a contact sheet of each look under
    ``cam/<method>/sheet``, the film strip at the end of the run. An alert is an alert of the run, which W&B sends on to who
    asked for that.

    A look is one row of the run's history. W&B steps rows by itself, and the pictures come when they are drawn: where they
    stand is ``cam/epoch`` (``cam/look`` where looks share epochs), in the same row, and defined as their axis. The trainer's own
    axes (``trainer/global_step``, ``epoch``) are left alone, because W&B fills their last value into rows without one.

    Args:
        run: What ``wandb.init()`` returned; None opens that of the address when the first look is delivered.
        every_n_looks: Draw each n-th look only.
        address: Of the sink that is made again; by default of this run.
        numbers: Log the record's numbers too, in the same row, where no trainer does.

    >>> import os, wandb
    >>> from cam_callbacks.loggers import WandbSink
    >>> with wandb.init(project="focus", mode="offline", dir=os.getcwd(), id="abc") as run:
    ...     sink = WandbSink(run, every_n_looks=5)
    >>> sink.address["name"], sink.address["offline"]
    ('wandb:abc', True)
    """

    kind: ClassVar[str] = "wandb"
    logger_class: ClassVar[str] = "WandbLogger"

    def __init__(
        self, run: Any, every_n_looks: int = 1, address: Mapping[str, Any] | None = None, numbers: bool = False
    ) -> None:
        self._run, self._is_own = run, run is None
        self.every_n_looks, self.numbers = every_n_looks, numbers
        self._where = dict(address) if address is not None else _address_of(run, every_n_looks, numbers)
        self.address: dict[str, Any] | None = self._where
        self.name: str = self._where["name"]
        self._defined: set[str] = set()
        self._fired: set[str] = set()  # keys of alerts

    @classmethod
    def from_logger(cls, logger: Any, options: SinkOptions) -> WandbSink:
        """For Lightning's ``WandbLogger``, of either package."""
        return cls(logger.experiment, options.every_n_looks)

    @classmethod
    def from_address(cls, address: Mapping[str, Any], moved: Moved) -> WandbSink:
        """For the run that an address names. One that was offline is written beside what the training left."""
        if missing := [key for key in ("run_id", "project", "dir", "offline") if key not in address]:
            raise KeyError(*missing)
        return cls(None, int(address.get("every_n_looks", 1)), address, bool(address.get("numbers", False)))

    def deliver(self, record: Record, drawing: Drawing) -> None:
        run = self._opened()
        for alert in record.alerts:
            if alert.new:
                key = plain_key(f"alert/{alert.name}", drawing.manifest.get("name"))
                run.alert(title=key[:63], text=str(alert), level="WARN")
        pictures: dict[str, Picture] = {}
        if record.look % self.every_n_looks == 0:
            sheets = {f"{drawing.tag(m, layer)}/sheet": drawing.sheet(record, m, layer) for m, layer in drawing.series}
            pictures = dict(drawing.panels(record)) | sheets
        numbers = finite(record.metrics) if self.numbers else {}
        self._log(pictures, record, drawing, fired(numbers, drawing.manifest.get("name"), self._fired))

    def finish(self, store: RecordStore, drawing: Drawing) -> None:
        records = drawing.sampled()
        if records:
            strips = {
                f"{drawing.tag(method, layer)}/film_strip": drawing.strip(records, method, layer)
                for method, layer in drawing.series
            }
            self._log(strips, records[-1], drawing)
        if self._is_own and self._run is not None:
            self._run.finish()
            self._run = None

    def _log(
        self,
        pictures: Mapping[str, Picture],
        record: Record,
        drawing: Drawing,
        numbers: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """One row of the history."""
        if not pictures and not numbers:
            return
        from wandb import Image as WandbImage

        run, manifest = self._opened(), drawing.manifest
        axis = plain_key(str(manifest.get("picture_step", "epoch")), manifest.get("name"))
        keys = {safe_key(tag): picture for tag, picture in pictures.items()}
        for key in (
            (keys.keys() | numbers.keys()) - self._defined - {axis}
        ):  # each by its name: of two patterns that fit, W&B takes either
            run.define_metric(key.replace(".", r"\."), step_metric=axis, step_sync=False)
        self._defined |= keys.keys() | numbers.keys()
        with (
            tempfile.TemporaryDirectory() as temporary
        ):  # W&B takes a copy; of arrays it would make PNGs, five times as large
            files = {key: Path(temporary) / f"{number}.jpg" for number, key in enumerate(keys)}
            for key, file in files.items():
                file.write_bytes(encode_jpeg(keys[key]))
            shown = {key: WandbImage(str(file)) for key, file in files.items()}
            run.log({**numbers, **shown, axis: drawing.step(record)})

    def _opened(self) -> Any:
        if self._run is None:
            import wandb

            where = self._where
            self._run = wandb.init(
                project=where["project"],
                entity=where.get("entity"),
                id=where["run_id"],
                dir=where["dir"],
                mode="offline" if where["offline"] else "online",
                resume=None if where["offline"] else "allow",
                reinit="create_new",
            )
        return self._run


def _address_of(run: Any, every_n_looks: int, numbers: bool) -> dict[str, Any]:
    return {
        "kind": WandbSink.kind,
        "name": f"wandb:{run.id}",
        "run_id": run.id,
        "project": run.project,
        "entity": run.entity or None,
        "dir": run.settings.root_dir,
        "offline": bool(run.offline),
        "every_n_looks": every_n_looks,
        "numbers": numbers,
    }
