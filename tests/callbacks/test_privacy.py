"""``store_images=False``: no pixel of a probe image leaves the process."""

from __future__ import annotations

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cam_callbacks import CAMCallback, ProbeSet, RecordStore
from cam_callbacks.compare import compare_runs
from cam_callbacks.look.manifest import WITHHELD


@pytest.mark.parametrize("stored", [True, False])
def test_pixels_are_in_records_loggers_and_pages_or_nowhere(fit, pl, data, masks, tmp_path, stored):
    images, labels = data.tensors
    board = pl("pytorch_lightning").loggers.TensorBoardLogger(tmp_path, "board")
    probe = ProbeSet(images[:4], labels[:4], masks=masks[:4])
    callback = CAMCallback(probe, "gradcam", max_images=2, store_images=stored, on_error="raise")
    fit(callback, logger=board, epochs=2)
    store = RecordStore(callback.store.folder)
    assert (store.probe["pictures"] == WITHHELD).all() == (not stored)
    assert store.probe["labels"].tolist() == labels[:4].tolist() and store.probe["masks"].any()
    assert np.isfinite(store[-1].metrics["cam/on_target_enrichment/gradcam"])
    page = tmp_path / "page.html"
    compare_runs(str(store.folder)).write(page)
    assert ("pixels of the probe images are not stored" in page.read_text(encoding="utf-8")) == (not stored)
    events = EventAccumulator(board.log_dir, size_guidance={"images": 0})
    events.Reload()
    assert len(events.Images("cam/gradcam/sheet")) == 2
    for path in store.folder.glob("*.npz"):
        with np.load(path) as file:
            arrays = [file[name] for name in file.files]
        held = [a for a in arrays if a.ndim == 4 and a.shape[-1] == 3 and np.ptp(a)]
        assert bool(held) == (stored and path.name == "probe.npz")
