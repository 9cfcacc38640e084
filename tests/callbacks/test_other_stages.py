"""``trainer.validate()`` and ``trainer.test()`` look too, where asked to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from cam_callbacks import CAMCallback, CAMMonitor, ProbeSet


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_a_look_in_inference_mode(package, pl, make_module, data, tmp_path, stage):
    pl = pl(package)
    model = make_module(package)
    type(model).test_step = lambda self, batch, index: self.log("test_acc", torch.zeros(()))
    board = pl.loggers.TensorBoardLogger(tmp_path, "board")
    probe = ProbeSet(data.tensors[0][:4], data.tensors[1][:4])
    callback = CAMCallback(probe, on=("fit", stage), max_images=1, on_error="raise")
    trainer = pl.Trainer(accelerator="cpu", logger=board, callbacks=[callback], enable_progress_bar=False,
                         enable_checkpointing=False, default_root_dir=tmp_path)  # fmt: skip
    before = {k: v.clone() for k, v in model.state_dict().items()}
    getattr(trainer, stage)(model, DataLoader(data, 16), verbose=False)
    assert len(callback.store) == 1 and float(trainer.callback_metrics["cam/failed_looks"]) == 0
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    again = CAMMonitor(probe).look(model)
    np.testing.assert_array_equal(again.maps["gradcam", "net.8"], callback.store[0].maps["gradcam", "net.8"])
    events = EventAccumulator(board.log_dir, size_guidance={"images": 0})
    events.Reload()
    assert len(events.Images("cam/gradcam/sheet")) == 1


def test_without_being_asked_it_does_not_look_and_says_how_to_ask(pl, make_module, data, tmp_path, caplog):
    pl = pl("pytorch_lightning")
    callback = CAMCallback()
    trainer = pl.Trainer(accelerator="cpu", logger=False, callbacks=[callback], enable_progress_bar=False,
                         enable_checkpointing=False, default_root_dir=tmp_path)  # fmt: skip
    with caplog.at_level("INFO"):
        trainer.validate(make_module(), DataLoader(data, 16), verbose=False)
    assert caplog.text.count('for trainer.validate pass CAMCallback(on=("validate",))') == 1
    assert callback.store is None and not any(key.startswith("cam/") for key in trainer.callback_metrics)
    with pytest.raises(ValueError, match='on= takes "fit", "validate" and "test"'):
        CAMCallback(on="training")
