"""Looks in MLflow."""

from __future__ import annotations

import logging
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from cam_callbacks.compare.verdict import verdict_of
from cam_callbacks.delivery.sink import Moved, SinkOptions
from cam_callbacks.drawing import Drawing
from cam_callbacks.loggers.safe_names import safe_key, safe_name
from cam_callbacks.mlflow_server import check_reachable, check_run, check_sent, without_password
from cam_callbacks.records import MANIFEST, PROBE, Record, RecordStore
from cam_engine.render import encode_png, shrunk, write_png

log = logging.getLogger(__name__)

NAMES = uuid.UUID("6f1f5a0e-6f0b-5d0c-9a86-4b6a6f0f6f55")  # of our images' names

THUMBNAIL = 256  # pixels of its longer side, as MLflow makes them
NOTE = "mlflow.note.content"  # what MLflow shows as a run's description


class MLflowSink:
    """Pictures and files for one MLflow run.

    Overlays as stepped images (MLflow's image grid, compared across runs), the records under ``cam/records``, film
    strips under ``cam/``; ``cam_report.html``, ``cam_latest.png`` and ``cam_filmstrip.png`` at the artifact root, the only
    level that MLflow's compare page shows. An alert is a tag, ``cam.alert.<name>``, and a text under ``cam/alerts``; the
    verdict is the tag ``cam.verdict``, and the run's description where nobody has written one. The client writes to this run
    alone; the user's active run is never touched.

    Args:
        client: An ``mlflow.MlflowClient``.
        run_id: The run.
        every_n_looks: Draw each n-th look only; records are logged at every look.
        report_every_n_looks: Write the report and the film strips after every n-th look (of a long run, every 10n-th), and at
            the end; 0: at the end.
        address: Of the sink that is made again; by default of this client and run.

    >>> from mlflow import MlflowClient
    >>> from cam_callbacks.loggers import MLflowSink
    >>> client = MlflowClient("sqlite:///sink.db")
    >>> sink = MLflowSink(client, client.create_run("0").info.run_id, every_n_looks=5)
    >>> sink.address["tracking_uri"], sink.address["every_n_looks"]
    ('sqlite:///sink.db', 5)
    """

    kind: ClassVar[str] = "mlflow"
    logger_class: ClassVar[str] = "MLFlowLogger"

    def __init__(
        self,
        client: Any,
        run_id: str,
        every_n_looks: int = 1,
        report_every_n_looks: int = 0,
        address: Mapping[str, Any] | None = None,
    ) -> None:
        self.client = client
        self.run_id = run_id
        self.every_n_looks = every_n_looks
        self.report_every_n_looks = report_every_n_looks
        self.address: dict[str, Any] | None = (
            dict(address)
            if address is not None
            else {
                "kind": self.kind,
                "name": f"mlflow:{run_id}",
                "tracking_uri": without_password(str(getattr(client, "tracking_uri", ""))),
                "run_id": run_id,
                "every_n_looks": every_n_looks,
                "queue": str(client.queue.folder) if hasattr(client, "queue") else None,
            }
        )
        self.name: str = self.address["name"]
        self._queued = hasattr(client, "queue")
        self._described = False
        self._has_images = False

    @classmethod
    def from_logger(cls, logger: Any, options: SinkOptions) -> MLflowSink:
        """For Lightning's ``MLFlowLogger``, of either package, and those made from it."""
        run_id = getattr(logger, "first_run_id", None) or logger.run_id  # one that changes would be another sink's
        return cls(logger.experiment, run_id, options.every_n_looks, options.report_every_n_looks)

    @classmethod
    def from_address(cls, address: Mapping[str, Any], moved: Moved) -> MLflowSink:
        """For the run that an address names, under the name that the training gave it."""
        from mlflow.tracking import MlflowClient

        client = MlflowClient(moved.tracking_uri or address["tracking_uri"])
        run_id = moved.run_ids.get(address["run_id"], address["run_id"])
        return cls(client, run_id, int(address.get("every_n_looks", 1)), address=address)

    def deliver(self, record: Record, drawing: Drawing) -> None:
        store = drawing.store
        with self._server():
            self._describe(drawing)
            for name in store.files(record.look):
                self._log_stored(store, name, f"{_folder(drawing)}/records")
            self._mark_alerts(record, drawing)
            if not record.look % self.every_n_looks:
                self._draw(record, drawing)
        if self._report_is_due(record.look + 1):
            try:
                self.finish(store, drawing)
            except Exception as error:  # the look itself is delivered, and must not be delivered again for this
                log.warning("cam-callbacks: no report after look %d (%s)", record.look, error)

    def _report_is_due(self, looks: int) -> bool:
        """At every n-th look; from the hundredth on at every 10n-th, from the thousandth at every 100n-th: each reads them all."""
        return bool(self.report_every_n_looks) and not looks % (
            self.report_every_n_looks * 10 ** max(0, len(str(looks)) - 2)
        )

    def finish(self, store: RecordStore, drawing: Drawing) -> None:
        """The run so far: film strips and report. Written again, they take the place of those before."""
        records = drawing.sampled()
        if not records:
            return
        with self._server():
            for method, layer in drawing.series:
                series = drawing.tag(method, layer).split("/")[1:]
                strip = drawing.strip(records, method, layer)
                name = "_".join(map(safe_name, series))
                self._log_picture(strip, f"film_strip_{name}.png", _folder(drawing))
                if (method, layer) == drawing.series[-1]:
                    self._log_picture(strip, f"{_root(drawing)}_filmstrip.png")
            run = self._run()
            if run is not None and run.data.params:
                store.write_params(run.data.params)
            self._log_report(store, drawing)
            self._note(run, verdict_of(store), f"{_prefix(drawing)}.verdict")

    @contextmanager
    def _server(self) -> Iterator[None]:
        """Is it the server that answers, before and after? Else all that was sent meanwhile is to be sent again."""
        if self._queued:
            yield
            return
        check_reachable(self.client.tracking_uri)
        check_run(self.client, self.run_id)
        try:
            yield
            check_sent(self.client, self.run_id)
        except Exception:
            self._described = self._has_images = False
            raise

    def _draw(self, record: Record, drawing: Drawing) -> None:
        if not drawing.series:
            return
        self._log_images(record, drawing)
        method, layer = drawing.series[-1]
        self._log_picture(drawing.latest(record, method, layer), f"{_root(drawing)}_latest.png")

    def _describe(self, drawing: Drawing) -> None:
        if self._described:
            return
        manifest, store, prefix = drawing.manifest, drawing.store, _prefix(drawing)
        tags = {
            "probe_fingerprint": manifest["probe"]["fingerprint"],
            "methods": ", ".join(manifest["methods"]),
            "layers": ", ".join(manifest["layers"]),
            "target": str(manifest["target"]),
            "records": f"{_folder(drawing)}/records",
        }
        for key, value in tags.items():
            self.client.set_tag(self.run_id, f"{prefix}.{key}", value)
        for name in (MANIFEST, PROBE):
            self._log_stored(store, name, f"{_folder(drawing)}/records")
        self._described = True

    def _mark_alerts(self, record: Record, drawing: Drawing) -> None:
        new = [alert for alert in record.alerts if alert.new]
        if not new:
            return
        file = f"{_folder(drawing)}/alerts/look-{record.look:06d}.txt"
        self.client.log_text(self.run_id, "\n\n".join(map(str, new)), file)
        for name in dict.fromkeys(alert.name for alert in new):  # of every method and layer that raised it at this look
            since = min(alert.since_epoch for alert in new if alert.name == name)
            # As short as MLflow shows a tag whole; what was measured, and what to look at, is in the file.
            self.client.set_tag(self.run_id, f"{_prefix(drawing)}.alert.{name}", f"epoch {since}")

    def _note(self, run: Any, sentence: str, tag: str) -> None:
        """The verdict as a tag, and as the run's description unless somebody else has written one, or that cannot be known."""
        if run is not None and run.data.tags.get(NOTE, "") in ("", run.data.tags.get(tag)):
            self.client.set_tag(self.run_id, NOTE, sentence)
        self.client.set_tag(self.run_id, tag, sentence)

    def _run(self) -> Any:
        """The run as the server has it; None where it cannot be asked, or has not been told of the run yet."""
        try:
            if not self._queued:
                return self.client.get_run(self.run_id)
            from mlflow.tracking import MlflowClient

            outbox = self.client.queue
            check_reachable(outbox.tracking_uri)
            return MlflowClient(outbox.tracking_uri).get_run(outbox.run["run_id"])
        except Exception as error:
            log.info("cam-callbacks: the run's description is left as it is (%s)", error)
            return None

    def _log_images(self, record: Record, drawing: Drawing) -> None:
        """Panels as stepped images, named and encoded as by ``client.log_image`` (a PNG, and a WebP as its thumbnail), in one call.

        That call would encode each by Pillow, at several times the cost, and set a tag for each. A name depends on the look, and on
        the id that the training had for the run: logged again by a delivery that was interrupted, a file takes the place of itself.
        """
        step, timestamp = drawing.step(record), int(record.time * 1000)
        run_id = self.address["run_id"] if self.address is not None else self.run_id
        with tempfile.TemporaryDirectory() as temporary:
            for tag, picture in drawing.panels(record):
                key = safe_key(tag).replace("/", "~")
                name = f"{key}+step+{step}+timestamp+{timestamp}+{uuid.uuid5(NAMES, f'{run_id} {tag} {step}')}"
                (Path(temporary) / f"{name}.png").write_bytes(encode_png(picture))
                thumbnail = drawing.webp(record, shrunk(picture, THUMBNAIL))
                (Path(temporary) / f"{name}+compressed.webp").write_bytes(thumbnail)
            self.client.log_artifacts(self.run_id, temporary, "images")
        if not self._has_images:
            self.client.set_tag(self.run_id, "mlflow.loggedImages", True)
            self._has_images = True

    def _log_report(self, store: RecordStore, drawing: Drawing) -> None:
        from cam_callbacks.compare import load_run, write_page

        with tempfile.TemporaryDirectory() as temporary:
            page = Path(temporary) / f"{_root(drawing)}_report.html"
            write_page([load_run(str(store.folder))], page)
            self._log_file(page, None)

    def _log_picture(self, picture: Any, name: str, folder: str | None = None) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / name
            write_png(path, picture)
            self._log_file(path, folder)

    def _log_stored(self, store: RecordStore, name: str, folder: str) -> None:
        with tempfile.TemporaryDirectory() as temporary:  # of its own: the file in the store may be replaced meanwhile
            path = Path(temporary) / name
            path.write_bytes(store.data(name))
            self._log_file(path, folder)

    def _log_file(self, path: Path, folder: str | None) -> None:
        self.client.log_artifact(self.run_id, str(path), folder)


def _prefix(drawing: Drawing) -> str:
    """Of the run's tags."""
    name = drawing.manifest.get("name")
    return f"cam.{name}" if name else "cam"


def _folder(drawing: Drawing) -> str:
    name = drawing.manifest.get("name")
    return f"cam/{safe_name(name)}" if name else "cam"


def _root(drawing: Drawing) -> str:
    name = drawing.manifest.get("name")
    return f"cam_{safe_name(name)}" if name else "cam"
