"""What the pictures of a look cost its loggers: each is drawn once, small, and there once after an interrupted delivery."""

from __future__ import annotations

import io
import struct
from collections import Counter

import mlflow
import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.tensorboard import SummaryWriter

import cam_callbacks.drawing as drawing_module
import cam_callbacks.loggers.tensorboard as tensorboard_module
from cam_callbacks import CAMMonitor, ProbeSet, RecordStore
from cam_callbacks.delivery import Delivery
from cam_callbacks.delivery.sink import Moved
from cam_callbacks.drawing import Drawing
from cam_callbacks.loggers.durable import DurableClient
from cam_callbacks.loggers.mlflow import MLflowSink
from cam_callbacks.loggers.tensorboard import TensorBoardSink, pictures_in
from cam_engine.render import encode_webp

IMAGES, METHODS = 6, 2


@pytest.fixture(scope="module")
def store(tmp_path_factory, photos):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    images = torch.cat([photos, photos.flip(-1), photos.flip(-2)])[:IMAGES].clamp(0, 1)
    probe = ProbeSet(images, [0, 1, 2] * (IMAGES // 3))
    monitor = CAMMonitor(probe, ("eigencam", "gradcam"), folder=tmp_path_factory.mktemp("looks"))
    for epoch in range(2):
        monitor.look(net, epoch)
    return RecordStore(monitor.store.folder)


@pytest.fixture
def flow(tmp_path):
    """A client and a run, on a database of its own."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("pictures", artifact_location=str(tmp_path / "artifacts"))
    return client, client.create_run(experiment).info.run_id


def shown(folder):
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return {tag: events.Images(tag) for tag in events.Tags()["images"]}


def test_every_picture_is_drawn_once_for_all_loggers(store, tmp_path, flow, monkeypatch):
    drawn = Counter()

    def count(name):
        draw = getattr(drawing_module, name)

        def counted(*args, **options):
            drawn[name] += 1
            return draw(*args, **options)

        monkeypatch.setattr(drawing_module, name, counted)

    for name in ("panel", "contact_sheet", "focus_wall", "film_strip", "encode_webp"):
        count(name)
    sinks = [TensorBoardSink(SummaryWriter(str(tmp_path / n)), name=n) for n in ("a", "b")] + [MLflowSink(*flow)]
    delivery = Delivery(store, sinks, IMAGES)
    delivery.ledger.forget_from(0)
    delivery.offer()
    assert delivery.finish(60)
    panels, views = 2 * METHODS * IMAGES, 2 * METHODS  # of two looks
    assert drawn == {
        "panel": panels, "contact_sheet": views, "focus_wall": views, "film_strip": METHODS,
        "encode_webp": panels + 2 * views + METHODS,
    }  # fmt: skip
    assert delivery.seconds > 0
    assert shown(tmp_path / "a").keys() == shown(tmp_path / "b").keys()


def test_a_picture_in_tensorboard_is_small_and_as_it_was_drawn(store, tmp_path):
    drawing, record = Drawing(store, IMAGES), store[1]
    TensorBoardSink(SummaryWriter(str(tmp_path))).deliver(record, drawing)
    images = shown(tmp_path)
    assert len(images) == METHODS * (IMAGES + 2)  # and the sheet, and the crops under the focus
    for tag, picture in drawing.panels(record):
        (event,) = images[tag]
        decoded = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert("RGB")).astype(int)
        assert decoded.shape == picture.shape == (event.height, event.width, 3)
        assert np.abs(decoded - picture).mean() < 2
        assert len(event.encoded_image_string) < 20_000  # as a PNG of TensorBoard's own 60 to 90 kB


def test_a_panel_of_which_a_webp_would_blur_the_colours_is_a_jpeg(tmp_path):
    smooth = torch.linspace(0, 1, 48).expand(3, 48, 48)
    stripes = torch.zeros(3, 48, 48)
    stripes[0, :, ::2], stripes[2, :, 1::2] = 1, 1  # red beside blue
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    monitor = CAMMonitor(ProbeSet(torch.stack([smooth, stripes])), "eigencam", folder=tmp_path / "records")
    record = monitor.look(net)
    TensorBoardSink(SummaryWriter(str(tmp_path))).deliver(record, Drawing(monitor.store))
    images = {tag.split("/")[-1]: image.encoded_image_string for tag, (image,) in shown(tmp_path).items()}
    assert {name: Image.open(io.BytesIO(data)).format for name, data in images.items()} == {
        "0": "WEBP", "1": "JPEG", "sheet": "WEBP", "under_the_focus": "WEBP",
    }  # fmt: skip


def test_a_film_strip_too_long_for_a_webp_is_a_jpeg(store, tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard_module, "WEBP_LARGEST", 100)
    TensorBoardSink(SummaryWriter(str(tmp_path))).finish(store, Drawing(store, IMAGES))
    for (strip,) in shown(tmp_path).values():
        assert Image.open(io.BytesIO(strip.encoded_image_string)).format == "JPEG"
    with pytest.raises(ValueError, match="encoding error 5"):
        encode_webp(np.zeros((16384, 1, 3), np.uint8))


def test_a_delivery_that_is_repeated_shows_nothing_twice_in_tensorboard(store, tmp_path):
    drawing, record = Drawing(store, IMAGES), store[1]
    first = TensorBoardSink(SummaryWriter(str(tmp_path)))
    for each in store:  # of which none is noted
        first.deliver(each, drawing)
    (file,) = tmp_path.glob("*tfevents*")
    whole = file.read_bytes()
    again = TensorBoardSink(SummaryWriter(str(tmp_path), filename_suffix=".again"))
    for each in store:
        again.deliver(each, drawing)
    assert {len(images) for images in shown(tmp_path).values()} == {len(store)}
    # Killed in the midst of writing: the event is cut off, and none of its pictures is there.
    file.write_bytes(whole[:-100])
    assert {step for _, step in pictures_in(tmp_path)} == {drawing.step(store[0])}
    for other in tmp_path.glob("*.again"):
        other.unlink()
    TensorBoardSink(SummaryWriter(str(tmp_path), filename_suffix=".third")).deliver(record, drawing)
    assert pictures_in(tmp_path) >= {(tag, drawing.step(record)) for tag, _ in drawing.panels(record)}


def test_damaged_event_files_hold_up_nothing(tmp_path):
    (tmp_path / "a.tfevents.1").write_bytes(struct.pack("<Q", 1 << 50) + b"0000" + b"x" * 50)
    (tmp_path / "b.tfevents.2").write_bytes(struct.pack("<Q", 5) + b"0000" + b"\xff" * 5 + b"0000")
    assert pictures_in(tmp_path) == set()


def test_a_delivery_that_is_repeated_shows_nothing_twice_in_mlflow(store, flow):
    client, run = flow
    for _ in range(2):
        MLflowSink(client, run).deliver(store[0], Drawing(store, IMAGES))
    names = [file.path for file in client.list_artifacts(run, "images")]
    assert len(names) == 2 * METHODS * IMAGES
    assert {name.removesuffix("+compressed.webp") for name in names if name.endswith(".webp")} == {
        name.removesuffix(".png") for name in names if name.endswith(".png")
    }
    assert client.get_run(run).data.tags["mlflow.loggedImages"] == "True"


def test_a_look_that_was_queued_and_is_delivered_again_by_sync_is_shown_once(store, tmp_path, make_queue):
    """Killed before it was noted; the server has given the run another id since."""
    uri = f"sqlite:///{tmp_path}/m.db"
    queue = make_queue(tmp_path / "queue")
    sink = MLflowSink(DurableClient(queue), queue.run["id"])
    sink.deliver(store[0], Drawing(store, IMAGES))
    queue.deliver()
    moved = Moved(None, {queue.run["id"]: queue.run["run_id"]})
    MLflowSink.from_address(sink.address, moved).deliver(store[0], Drawing(store, IMAGES))
    assert len(MlflowClient(uri).list_artifacts(queue.run["run_id"], "images")) == 2 * METHODS * IMAGES


def test_the_client_names_stepped_images_as_we_do(store, flow):
    """MLflow's own call, so that a change of its naming is noticed."""
    client, run = flow
    client.log_image(run, np.zeros((8, 8, 3), np.uint8), key="cam/gradcam/0", step=7)
    theirs = sorted(file.path for file in client.list_artifacts(run, "images"))
    MLflowSink(client, run).deliver(store[1], Drawing(store, 1))
    ours = sorted(file.path for file in client.list_artifacts(run, "images") if file.path not in theirs)

    def shape(path):
        parts = path.partition(".")[0].split("+")
        return [*parts[:2], parts[3], len(parts), path.rpartition(".")[2]]

    assert [shape(path) for path in theirs] == [shape(path) for path in ours if "~gradcam~0" in path]
