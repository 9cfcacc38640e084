"""Looks taken afterwards from checkpoints equal those taken live."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from cam_callbacks import CAMCallback, ProbeSet, RecordStore, replay
from cam_callbacks.cli import main
from cam_engine.loading import load_checkpoint


@pytest.fixture
def live(fit, pl, data, masks, tmp_path):
    """A callback after a fit that saved a checkpoint at each epoch under ``checkpoints``, and its module."""
    save = pl("pytorch_lightning").callbacks.ModelCheckpoint(tmp_path / "checkpoints", save_top_k=-1, save_last=True)
    probe = ProbeSet(data.tensors[0][:6], data.tensors[1][:6], masks=masks[:6])
    callback = CAMCallback(probe, folder=tmp_path / "live", on_error="raise")
    trainer = fit(callback, save, epochs=11, enable_checkpointing=True)
    return callback, trainer.lightning_module


def assert_same(replayed, live, layer="net.8"):
    assert len(replayed) == len(live)
    for a, b in zip(replayed, live, strict=True):
        assert a.look == b.look and a.reference.keys() == b.reference.keys()
        np.testing.assert_allclose(a.maps["gradcam", layer], b.maps["gradcam", "net.8"], atol=1e-6)
        shared = a.metrics.keys() & b.metrics.keys() - {"cam/seconds", "cam/exchange_seconds"}
        assert len(shared) > 15
        for key in shared:
            assert a.metrics[key] == pytest.approx(b.metrics[key], abs=1e-6, nan_ok=True), key


def test_lightning_checkpoints_of_a_folder(live, make_module, tmp_path):
    callback, _ = live
    module = make_module().train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    records = replay(module, tmp_path / "checkpoints", callback.probe, folder=tmp_path / "replayed")
    assert [(r.epoch, r.step) for r in records] == [(r.epoch, r.step) for r in callback.store]  # 9 before 10
    assert_same(records, list(callback.store))
    assert_same(list(RecordStore(tmp_path / "replayed")), list(callback.store))
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items()) and module.training


def test_state_dicts_and_safetensors_of_the_inner_network(live, make_module, net, tmp_path):
    from safetensors.torch import save_file

    callback, module = live
    torch.save(module.net.state_dict(), tmp_path / "a.pt")
    save_file(module.net.state_dict(), tmp_path / "b.safetensors")
    for name in ("a.pt", "b.safetensors"):
        records = replay(net, tmp_path / name, callback.probe)
        np.testing.assert_allclose(
            records[0].maps["gradcam", "8"], callback.store[-1].maps["gradcam", "net.8"], atol=1e-6
        )


def test_what_cannot_be_read_says_why(live, net, data, tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "owned"), "w")

    probe = ProbeSet(data.tensors[0][:2])
    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps({"state_dict": Evil()}))
    torch.save({"state_dict": net.state_dict(), "extra": Evil()}, tmp_path / "extra.ckpt")
    (tmp_path / "half.ckpt").write_bytes(next((tmp_path / "checkpoints").iterdir()).read_bytes()[:3000])
    (tmp_path / "half.safetensors").write_bytes(b"\xff" * 64)
    torch.save({"other.weight": torch.zeros(3)}, tmp_path / "other.pt")
    for name, why in (
        ("evil.ckpt", "holds more than weights|damaged"),
        ("extra.ckpt", r"holds more than weights.*torch\.save\(model\.state_dict\(\), path\)"),
        ("half.ckpt", "damaged or no checkpoint"),
        ("half.safetensors", "damaged or no safetensors file"),
        ("other.pt", "does not fit Sequential"),
    ):
        with pytest.raises(ValueError, match=why):
            replay(net, tmp_path / name, probe)
    assert not (tmp_path / "owned").exists()
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        replay(net, tmp_path / "nowhere", probe)


def test_the_command(replay_command, capsys):
    command = replay_command("small_net", (2, 10))
    assert main([*command, "-o", "looks"]) == 0
    assert "look 1, epoch 1" in capsys.readouterr().out and len(RecordStore("looks")) == 2
    assert main(["replay", "nowhere", *command[2:]]) == 2
    assert "no checkpoint 'nowhere'" in capsys.readouterr().err


def test_a_list_of_shards_that_would_run_code_is_refused(tmp_path, net):
    """It is a pickle; nothing is made of it but what such a list holds."""

    class Harmful:
        def __reduce__(self):
            return eval, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    saved = tmp_path / "epoch=0.ckpt"
    saved.mkdir()
    (saved / ".metadata").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(ValueError, match="loading it could run code"):
        load_checkpoint(net, saved)
    assert not (tmp_path / "ran").exists()
