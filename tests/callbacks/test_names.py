"""Several callbacks on one trainer, told apart by their names."""

from __future__ import annotations

import pytest

from cam_callbacks import CAMCallback, CAMMonitor, ProbeSet


def test_two_callbacks_need_names(fit):
    with pytest.raises(ValueError, match="share name=None"):
        fit(CAMCallback(), CAMCallback(methods="layercam"))


def test_two_callbacks_need_folders_of_their_own(fit, tmp_path):
    with pytest.raises(ValueError, match="several CAMCallbacks on one trainer write to folder="):
        fit(*(CAMCallback(name=name, folder=tmp_path / "records") for name in ("early", "late")))


def test_two_named_callbacks_keep_apart(fit, tmp_path):
    early = CAMCallback(layers="net.2", name="early", methods="gradcam")
    late = CAMCallback(layers="net.8", name="late", methods="gradcam")
    trainer = fit(early, late, epochs=1)
    assert {"cam/early/entropy/gradcam", "cam/late/entropy/gradcam"} <= trainer.callback_metrics.keys()
    assert early.store[0].maps["gradcam", "net.2"].shape[1:] == (12, 12)
    assert late.store[0].maps["gradcam", "net.8"].shape[1:] == (6, 6)
    assert early.store.folder != late.store.folder
    assert not any(key.startswith("cam/") for key in early.store[0].user_metrics | late.store[0].user_metrics)


@pytest.mark.parametrize("name", ["..", ".", "", "   ", "a b", "a/b", "é", "-", "late-", "a..b", "x" * 101, "a+b"])
def test_a_name_that_some_logger_would_refuse(name, data):
    for make in (CAMCallback, lambda name: CAMMonitor(ProbeSet(data.tensors[0][:2]), name=name)):
        with pytest.raises(ValueError, match="becomes part of metric keys"):
            make(name=name)


@pytest.mark.parametrize("name", ["late", "2", "layer4.1", "a-b_c", "x" * 100])
def test_a_name_that_every_logger_takes(name, data, net):
    assert CAMCallback(name=name).name == name
    record = CAMMonitor(ProbeSet(data.tensors[0][:2]), "eigencam", name=name).look(net)
    assert f"cam/{name}/entropy/eigencam" in record.metrics
