"""Pictures of records: what loggers show and pages embed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cam_callbacks.captions import Caption, class_name, true_words
from cam_callbacks.keys import metric_key, per_image_key, plain_key, series_name
from cam_callbacks.picture_step import picture_step
from cam_callbacks.records import Record, RecordError, RecordStore
from cam_engine.metrics import jensen_shannon
from cam_engine.render import Tile, above, contact_sheet, encode_webp, film_strip, focus_wall, panel, under_focus

Picture = NDArray[np.uint8]

# Pixels of the longer side of an image on a sheet, on a film strip, and on a panel, where a larger image keeps its own size.
TILE, STRIP_TILE, PANEL = 104, 72, 144
STRIP_LOOKS = 36  # what a film strip has room for
KEPT = 2  # looks whose pictures are kept for the next logger
MOST_KEPT = 32 << 20  # bytes of one look's pictures
WALL_ROWS, WALL_COLUMNS = 12, 12  # of the crops under the focus
OWN_PICTURES = ("sheet", "film_strip", "under_the_focus")  # names beside those of the images


class Drawing:
    """Draws the records of one store, each picture once, for all loggers and their threads.

    Args:
        store: The run's records, with its probe.
        max_images: How many probe images are drawn at most.
    """

    def __init__(self, store: RecordStore, max_images: int = 16) -> None:
        self.store = store
        self.max_images = max_images
        self._lock = threading.RLock()
        self._drawn: dict[int, dict[Any, Picture]] = {}  # of the last looks, what is drawn of each
        self._webp: dict[int, dict[int, bytes]] = {}  # of these pictures, by their id

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return self.store.manifest

    @cached_property
    def probe(self) -> dict[str, NDArray[Any]]:
        return self.store.probe

    @property
    def series(self) -> list[tuple[str, str]]:
        """(method, layer) of everything that is drawn, in order; nothing with ``max_images=0``."""
        if not self.max_images:
            return []
        return [(method, layer) for method in self.manifest["methods"] for layer in self.manifest["layers"]]

    @cached_property
    def drawn_images(self) -> list[int]:
        """Indices of the probe images that are drawn at every look: evenly spread over the probe, always the same."""
        n = self.manifest["probe"]["n"]
        return sorted({round(i) for i in np.linspace(0, n - 1, min(n, self.max_images))})

    def image_id(self, index: int) -> str:
        return str(self.manifest["probe"]["ids"][index])

    def tag(self, method: str, layer: str) -> str:
        """``cam/gradcam``, with the callback's name and the layer where there are several."""
        return plain_key(series_name(method, layer, self.manifest["layers"]), self.manifest.get("name"))

    def step(self, record: Record) -> int:
        """Where a look's pictures stand on the slider."""
        return picture_step(record, self.manifest)

    def panels(self, record: Record) -> Iterator[tuple[str, Picture]]:
        """``cam/<method>/<image>`` and the picture, for every drawn probe image of one look."""
        for method, layer in self.series:
            for index in self.drawn_images:
                name = self.image_id(index)
                name = f"image {name}" if name in OWN_PICTURES else name
                yield f"{self.tag(method, layer)}/{name}", self.panel(record, method, layer, index)

    def panel(self, record: Record, method: str, layer: str, index: int) -> Picture:
        """One probe image at one look: overlay, label, prediction, confidence and epoch; the sheet has the legend."""
        series = method if len(self.manifest["layers"]) == 1 else self._series_title(method, layer)
        title = f"{series} · epoch {record.epoch}"  # short, as the picture is small
        return self._once(
            record.look,
            (method, layer, index),
            lambda: panel(self.tile(record, method, layer, index), title=title, size=PANEL, legend=False),
        )

    def sheet(self, record: Record, method: str, layer: str) -> Picture:
        """All drawn probe images at one look."""
        return self._once(record.look, (method, layer), lambda: self._sheet(record, method, layer))

    def webp(self, record: Record, picture: Picture) -> bytes:
        """A picture of one look as the bytes of a WebP file; one that is kept is encoded once for all loggers."""
        with self._lock:
            drawn = self._drawn.get(record.look, {})
            if any(picture is kept for kept in drawn.values()):  # one that is let go leaves its id to another
                encoded = self._webp.setdefault(record.look, {})
                if id(picture) not in encoded:
                    encoded[id(picture)] = encode_webp(picture)
                return encoded[id(picture)]
        return encode_webp(picture)

    def _once(self, look: int, key: Any, draw: Callable[[], Picture]) -> Picture:
        """What was drawn of a look, or is now; another thread that wants the same waits for it."""
        with self._lock:
            drawn = self._drawn.setdefault(look, {})
            for old in list(self._drawn)[:-KEPT]:
                del self._drawn[old]
                self._webp.pop(old, None)
            if key in drawn:
                return drawn[key]
            picture = draw()
            if sum(kept.nbytes for kept in drawn.values()) < MOST_KEPT:
                drawn[key] = picture
            return picture

    def _sheet(self, record: Record, method: str, layer: str) -> Picture:
        tiles = [self.tile(record, method, layer, index, short=True) for index in self.drawn_images]
        key = metric_key("drift_ref", method, layer, self.manifest["layers"], self.manifest.get("name"))
        drift = record.metrics.get(key, float("nan"))
        title = f"{self._series_title(method, layer)} · epoch {record.epoch} · drift {drift:.3f}"
        return contact_sheet(tiles, title=title, tile_size=TILE)

    def wall(self, record: Record, method: str, layer: str) -> Picture | None:
        """Under the focus: what lies where the maps are highest, cut out of the pictures, a row a class or group.

        Of the whole probe, in its order at every look; None where pixels are not stored.
        """
        if not self.manifest.get("store_images", True):
            return None
        return self._once(record.look, ("wall", method, layer), lambda: self._wall(record, method, layer))

    def _wall(self, record: Record, method: str, layer: str) -> Picture:
        rows = self.wall_rows
        shown, maps = self.probe["pictures"], record.maps[method, layer]
        crops = [[under_focus(shown[image], maps[image]) for image in images] for _, images in rows]
        total = self.manifest["probe"]["n"]
        drawn = sum(len(images) for _, images in rows)
        return focus_wall(
            crops,
            row_labels=[label for label, _ in rows],
            title=f"Under the focus · {self._series_title(method, layer)} · epoch {record.epoch}",
            note=f"the pictures where the map is highest{f' · {drawn} of {total} images' if drawn < total else ''}",
        )

    @cached_property
    def wall_rows(self) -> list[tuple[str, list[int]]]:
        """Label and images of each row of the wall; without classes or groups of several images rows of the whole probe."""
        n, groups = self.manifest["probe"]["n"], self.manifest["probe"].get("groups")
        if "labels" in self.probe:
            tags = ["" if label < 0 else class_name(self.manifest, int(label)) for label in self.probe["labels"]]
        else:
            tags = [str(group) for group in groups] if groups else [""] * n
        by_tag: dict[str, list[int]] = {}
        for image, tag in enumerate(tags):
            by_tag.setdefault(tag, []).append(image)
        if len(by_tag) < 2 or n < 2 * len(by_tag):
            starts = range(0, n, WALL_COLUMNS)[:WALL_ROWS]
            return [("", list(range(start, min(start + WALL_COLUMNS, n)))) for start in starts]
        return [(tag, images[:WALL_COLUMNS]) for tag, images in list(by_tag.items())[:WALL_ROWS]]

    def latest(self, record: Record, method: str, layer: str) -> Picture:
        """One look on one picture: what lies under the focus, and all drawn probe images."""
        wall, sheet = self.wall(record, method, layer), self.sheet(record, method, layer)
        return sheet if wall is None else above(wall, sheet)

    def sampled(self, most: int = STRIP_LOOKS) -> list[Record]:
        """At most ``most`` of the looks on disk, evenly spread, the first and the last among them; damaged ones left out."""
        looks = self.store.looks
        if not looks:
            return []
        records = []
        for place in np.linspace(0, len(looks) - 1, min(len(looks), most)):
            with suppress(RecordError):
                records.append(self.store.read(looks[round(place)]))
        return records

    def strip(self, records: Sequence[Record], method: str, layer: str) -> Picture:
        """Probe images down, epochs across, worst drift first."""
        key = ("strip", method, layer, *(record.look for record in records))
        return self._once(records[-1].look, key, lambda: self._strip(records, method, layer))

    def _strip(self, records: Sequence[Record], method: str, layer: str) -> Picture:
        rows = self.worst_drift(records, method, layer)
        total = len(records[-1].maps[method, layer])
        note = f"{f'{len(rows)} of ' if len(rows) < total else ''}{total} probe images, largest drift first"
        looks = len(self.store)
        note += f" · {len(records)} of {looks} looks" if len(records) < looks else ""
        note += "" if self.manifest.get("store_images", True) else " · pixels not stored"
        return film_strip(
            [[self._strip_tile(record, method, layer, index) for record in records] for index in rows],
            row_labels=[self.label(index) for index in rows],
            column_labels=[self._column(record, records) for record in records],
            title=f"{self._series_title(method, layer)} · {self.manifest['run']}",
            note=note,
            tile_size=STRIP_TILE,
        )

    def worst_drift(self, records: Sequence[Record], method: str, layer: str) -> list[int]:
        """Probe images by how far their map moved from the reference, or from the first look while there is no reference."""
        last = records[-1]
        key = per_image_key("drift_ref", method, layer, self.manifest["layers"])
        drift = last.per_image.get(key)
        if drift is None or not np.nansum(drift):
            drift = jensen_shannon(last.maps[method, layer], records[0].maps[method, layer])
        order = np.argsort(-np.nan_to_num(drift, nan=-1.0), kind="stable")
        return [int(i) for i in order[: self.max_images]]

    def tile(self, record: Record, method: str, layer: str, index: int, short: bool = False) -> Tile:
        """What :mod:`cam_engine.render` draws of one image at one look; with a short caption if there is little room."""
        masks, nuisance = self.probe.get("masks"), self.probe.get("nuisance")
        said = Caption(self.manifest, self.probe, record)
        return Tile(
            image=self.probe["pictures"][index],
            heatmap=record.maps[method, layer][index],
            caption=(self.label(index), *said.lines(index, short)),
            wrong=said.wrong(index),
            masks=None if masks is None else masks[index],
            nuisance=None if nuisance is None else nuisance[index],
        )

    def label(self, index: int) -> str:
        """What is true of a probe image, and its id."""
        name = self.image_id(index)
        name = f"#{name}" if name.isdigit() else name
        return " · ".join([*true_words(self.manifest, self.probe, index), name])

    def _strip_tile(self, record: Record, method: str, layer: str, index: int) -> Tile:
        tile = self.tile(record, method, layer, index)
        return Tile(tile.image, tile.heatmap, (), tile.wrong)

    def _column(self, record: Record, records: Sequence[Record]) -> str:
        several = len({r.epoch for r in records}) < len(records)
        return f"look {record.look}" if several else f"epoch {record.epoch}"

    def _series_title(self, method: str, layer: str) -> str:
        return f"{method} · {layer}"
