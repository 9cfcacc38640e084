"""Exchange tests in a training: in numbers, records and alerts, on any number of processes, and never in its way."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from watched import Notes

from cam_callbacks import CAMCallback, CAMMonitor, ProbeSet, RecordStore
from cam_callbacks.clock import Clock
from cam_callbacks.look.exchanging import FEW_MIXTURES, LAST_MIXTURES, MIXTURES, Exchange
from cam_engine.exchange import count_followed, follows, object_share

WHOLE = ("object", "background", "frame", "detail")


@pytest.fixture
def probe(data, masks):
    return ProbeSet(data.tensors[0][:16], data.tensors[1][:16], masks=masks[:16])


def quickly(module):
    """So that the network tells the classes apart within a few epochs."""
    return torch.optim.Adam(module.parameters(), 0.01)


def test_a_fit_logs_what_the_prediction_follows(fit, make_module, probe, tmp_path):
    callback = CAMCallback(probe, folder=tmp_path / "looks", on_error="raise")
    trainer = fit(callback, epochs=8, model=make_module(configure_optimizers=quickly))
    logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
    expected = {f"cam/follows_{part}" for part in WHOLE} | {"cam/object_share", "cam/exchange_seconds"}
    expected |= {f"cam/follows_{part}/{m}" for part in ("focus", "random") for m in ("eigencam", "gradcam")}
    assert all(math.isfinite(callback.store[-1].metrics[key]) for key in expected)
    assert expected <= logged.keys() and all(math.isfinite(logged[key]) for key in expected)
    records = list(RecordStore(tmp_path / "looks"))
    assert [len(r.exchange_pairs) for r in records] == [FEW_MIXTURES] + [MIXTURES] * 6 + [LAST_MIXTURES]
    first, last = ({tuple(p) for p in r.exchange_pairs.tolist()} for r in (records[0], records[-1]))
    assert first < last and all(donor != receiver for donor, receiver in last)
    # Everything that was logged is in the record as the outcome of each pair, to be counted again.
    last = records[-1]
    counted = {
        part: count_followed(part, last.exchange_pairs, last.predictions, last.exchanged[part]) for part in WHOLE
    }
    for part in WHOLE:
        assert last.metrics[f"cam/follows_{part}"] == counted[part].share == last.aggregates[f"follows_{part}"]["mean"]
    share = object_share(counted["object"], counted["background"])
    assert last.metrics["cam/object_share"] == share.share
    assert last.aggregates["object_share"] == {"mean": share.share, "low": share.low, "high": share.high, "n": share.n}


def test_the_numbers_are_those_of_the_engine(net, probe):
    record = CAMMonitor(probe, "gradcam", "8", seed=3).look(net)
    again = follows(
        net,
        probe.images,
        record.predictions,
        [*WHOLE, "focus"],
        masks=probe.region_masks,
        maps={"gradcam": record.maps["gradcam", "8"]},
        pairs=record.exchange_pairs,
        seed=3,
    )
    for key, of in again.items():
        np.testing.assert_array_equal(record.exchanged[key], of.predicted)


def test_the_probe_decides_what_can_be_tested(net, data, masks):
    images, labels = data.tensors[0][:8], data.tensors[1][:8]

    def parts(given=None, **arguments):
        return Exchange(ProbeSet(images, labels, **arguments), given or "auto").parts

    assert parts() == ("focus", "random", "frame", "detail")
    assert parts(masks=masks[:8]) == ("focus", "random", "object", "background", "frame", "detail")
    assert "nuisance" in parts(nuisance=masks[:8])
    assert parts(["spectrum", "colour"]) == ("spectrum", "colour")
    assert Exchange(ProbeSet(images[:1])).parts == ()
    for wrong, message in (
        (["object"], r"'object', which needs ProbeSet\(masks= or boxes="),
        (["edge"], "no exchange part"),
    ):
        with pytest.raises(ValueError, match=message):
            CAMMonitor(ProbeSet(images, labels), exchange=wrong)
        with pytest.raises(ValueError, match=message):
            CAMCallback(ProbeSet(images, labels), exchange=wrong)
    with pytest.raises(ValueError, match="exchange_pairs=0"):
        CAMCallback(exchange_pairs=0)
    off = CAMMonitor(ProbeSet(images, labels), "gradcam", "8", exchange=[]).look(net)
    assert off.exchange_pairs is None and off.exchanged == {}
    assert not any(key.startswith(("cam/follows", "cam/exchange", "cam/object")) for key in off.metrics)


def test_pairs_are_the_same_at_every_look_whatever_the_model(data):
    probe = ProbeSet(data.tensors[0], data.tensors[1])
    one, other = Exchange(probe), Exchange(probe)
    np.testing.assert_array_equal(one.pairs(), other.pairs())
    labels = probe.labels.numpy()
    assert (labels[one.pairs()[:, 0]] != labels[one.pairs()[:, 1]]).all()
    assert len(Exchange(probe, donors=2).pairs()) == 2 * len(probe)
    many = ProbeSet(torch.rand(500, 3, 4, 4), list(range(500)))
    assert len(Exchange(many).pairs()) == MIXTURES and len(Exchange(many).pairs(LAST_MIXTURES)) == LAST_MIXTURES
    few = {tuple(p) for p in Exchange(many).pairs().tolist()}
    assert few < {tuple(p) for p in Exchange(many).pairs(LAST_MIXTURES).tolist()}


def test_monitors_find_the_keys_even_where_nothing_can_be_told(fit, probe, tmp_path):
    """A network that says the same of every image leaves no pair; monitors see the level of no evidence."""

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(x).mean((2, 3)) * 0 + torch.tensor([1.0, 0.0, 0.0, 0.0])

    monitor = CAMMonitor(probe, "gradcam", "conv")
    assert monitor.neutral()["cam/object_share"] == 0.5
    record = monitor.look(Constant())
    assert math.isnan(record.metrics["cam/object_share"]) and math.isnan(record.metrics["cam/follows_object"])
    states = {j.rule: (j.state, j.words) for j in record.judged}
    assert states["background_decides"][0] == "cannot judge"

    from pytorch_lightning.callbacks import ModelCheckpoint

    best = ModelCheckpoint(tmp_path, monitor="cam/object_share", mode="max")
    fit(CAMCallback(probe, on_error="raise"), best, epochs=2, enable_checkpointing=True)
    assert best.best_model_score is not None


def test_models_that_are_no_classifiers_have_none_of_the_numbers(probe):
    class Map(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x):
            return self.conv(x)

    monitor = CAMMonitor(probe, "eigencam", "conv", target=lambda outputs: outputs.mean((1, 2, 3)))
    record = monitor.look(Map())
    assert record.exchange_pairs is None
    for keys in (record.metrics, monitor.neutral()):
        assert not any(key.startswith(("cam/follows", "cam/exchange", "cam/object")) for key in keys)


def test_under_max_overhead_they_are_left_out_before_looks_are():
    clock = Clock()
    assert clock.affords(0.5) and clock.affords(0.5, extras=False)
    clock.started -= 10
    clock.spend(2.0, extras=1.5)
    assert clock.affords(0.3, extras=False) and not clock.affords(0.3)
    clock.spend(0.5)  # a look without them: what they cost is remembered
    assert clock.affords(0.3, extras=False) and not clock.affords(0.3)


def test_by_themselves_they_keep_to_a_share_of_the_time(probe, monkeypatch):
    """On a clock where an epoch takes 5 s, by how long the tests of 64 mixtures a part take; with two methods, at one layer."""
    now = [0.0]
    monkeypatch.setattr("cam_callbacks.clock.EXTRAS_SECONDS", 2.0)
    monkeypatch.setattr("cam_callbacks.clock.time.perf_counter", lambda: now[0])

    def training(epochs, seconds, most=None, donors=None):
        exchange, clock, made = Exchange(probe, donors=donors), Clock(), []
        for epoch in range(epochs):
            now[0] += 5
            made.append(exchange.mixtures_at(clock, most, 2, epoch == 0, epoch == epochs - 1))
            forwards = exchange.forwards(made[-1], 2)
            took = seconds * forwards / exchange.forwards(MIXTURES, 2)
            now[0] += took
            clock.spend(took, took, forwards)
        return made, clock.spent_on_extras / clock.elapsed

    quick, _ = training(10, 0.1)
    assert quick == [FEW_MIXTURES, *[MIXTURES] * 8, LAST_MIXTURES]
    slow, _ = training(6, 2.0)
    assert slow == [
        *[FEW_MIXTURES] * 5,
        MIXTURES,
    ]  # each look is tested, and the last one, on which the verdict stands, well
    long, share = training(200, 2.0)
    assert set(long[:-1]) <= {FEW_MIXTURES, MIXTURES} and long[-1] == LAST_MIXTURES and share < 0.06
    for chosen in ({"most": 1.0}, {"donors": 3}):
        assert training(6, 2.0, **chosen)[0] == [*[MIXTURES] * 5, LAST_MIXTURES]


def test_what_they_cost_is_told_of_the_images_that_were_asked(net, probe, monkeypatch):
    """Pairs that are named alike are left out: a model that names nearly all alike would make the tests look cheap."""
    asked, spent = Notes(), []
    with torch.no_grad():  # untrained, it names one class; the middle of what it says is nobody's
        net[-1].bias -= net.eval()(probe.images).mean(0)
    monkeypatch.setattr(Clock, "spend", lambda _, *costs: spent.append(costs) or 0.0)
    net.register_forward_pre_hook(lambda _, inputs: asked.note(len(inputs[0])))
    counts = []
    for mixtures in (MIXTURES, 0):
        CAMMonitor(probe, "gradcam", "8").look(net, mixtures=mixtures, clock=Clock())
        counts.append(sum(asked.all()) - sum(counts))
    forwards = spent[0][2]
    assert forwards == counts[0] - counts[1]
    assert 0 < forwards < Exchange(probe).forwards(MIXTURES, 1)


def test_few_mixtures_are_among_the_many_and_ask_what_alerts_need(net, probe):
    monitor = CAMMonitor(probe, ["eigencam", "gradcam"], "8")
    few, usual = monitor.look(net, mixtures=FEW_MIXTURES), monitor.look(net)
    assert len(few.exchange_pairs) == FEW_MIXTURES and len(usual.exchange_pairs) == MIXTURES
    assert set(few.exchanged) == {"object", "background"} and set(usual.exchanged) > set(WHOLE)
    places = {tuple(pair): i for i, pair in enumerate(usual.exchange_pairs.tolist())}
    same = [places[tuple(pair)] for pair in few.exchange_pairs.tolist()]
    for part, predicted in few.exchanged.items():
        np.testing.assert_array_equal(predicted, usual.exchanged[part][same])
    bare = CAMMonitor(ProbeSet(probe.images, probe.labels), "gradcam", "8").look(net, mixtures=FEW_MIXTURES)
    assert set(bare.exchanged) == {"frame", "detail"}


def test_a_look_without_them_keeps_what_monitors_saw(net, probe):
    monitor = CAMMonitor(probe, "gradcam", "8")
    monitor.look(net)
    record = monitor.look(net, mixtures=0)
    assert record.exchange_pairs is None and "cam/object_share" not in record.metrics
    assert "cam/object_share" in monitor.neutral()
    (one,) = (j for j in record.judged if j.rule == "background_decides")
    assert one.state == "cannot judge"


def test_out_of_memory_halves_the_mixtures_too(net, probe):
    sizes = Notes()
    plain = net.forward

    def limited(x):
        sizes.note(len(x))
        if len(x) > 8:
            raise torch.OutOfMemoryError("out of memory")
        return plain(x)

    net.forward = limited
    expected = CAMMonitor(probe, "gradcam", "8", batch_size=8)
    monitor = CAMMonitor(probe, "gradcam", "8", batch_size=32)
    record = monitor.look(net)
    assert max(sizes.all()) > 8 and monitor.batches.size == 8
    for key, classes in expected.look(net).exchanged.items():
        np.testing.assert_array_equal(record.exchanged[key], classes)


def test_what_was_followed_at_the_reference_survives_a_resume(net, probe):
    def looks(monitor, n):
        return [monitor.look(net) for _ in range(n)]

    steady = CAMMonitor(probe, "gradcam", "8", reference="first")
    before = CAMMonitor(probe, "gradcam", "8", reference="first")
    looks(steady, 2), looks(before, 2)
    after = CAMMonitor(probe, "gradcam", "8", reference="first")
    after.load_state_dict(before.state_dict())
    nn.init.normal_(net[11].weight, std=0.5)
    one, other = looks(steady, 1)[0], looks(after, 1)[0]
    assert [(j.rule, j.state, j.words) for j in one.judged] == [(j.rule, j.state, j.words) for j in other.judged]


def test_pixels_stay_out_of_records_where_they_must(net, probe, tmp_path):
    monitor = CAMMonitor(probe, "gradcam", "8", folder=tmp_path / "looks", store_images=False)
    monitor.look(net)
    assert RecordStore(tmp_path / "looks")[0].exchanged.keys() >= set(WHOLE)
    assert len(np.unique(RecordStore(tmp_path / "looks").probe["pictures"])) == 1


SCRIPT = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import conftest
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader
from cam_callbacks import CAMCallback, ProbeSet

if __name__ == "__main__":
    folder, devices = sys.argv[1], int(sys.argv[2])
    data = conftest.blobs()
    probe = ProbeSet(data.tensors[0][:11], data.tensors[1][:11], masks=conftest.blob_masks(data)[:11])
    callback = CAMCallback(probe, "gradcam", folder=folder, on_error="raise", on="validate")
    trainer = Trainer(accelerator="cpu", devices=devices, strategy="ddp", callbacks=[callback], logger=False,
        enable_checkpointing=False, enable_progress_bar=False)
    trainer.validate(conftest.module(), DataLoader(data, 8), verbose=False)
"""


def test_processes_share_the_pairs_and_count_them_alike(tmp_path):
    (tmp_path / "exchange.py").write_text(SCRIPT)
    records = []
    for devices in (1, 2):
        done = subprocess.run(
            [sys.executable, tmp_path / "exchange.py", tmp_path / str(devices), str(devices)],
            capture_output=True, text=True, timeout=240, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        records.append(RecordStore(tmp_path / str(devices))[0])
    one, two = records
    np.testing.assert_array_equal(one.exchange_pairs, two.exchange_pairs)
    assert len(one.exchange_pairs) == 110  # of eleven images there are no more
    assert one.exchanged.keys() == two.exchanged.keys() >= set(WHOLE)
    for part, classes in one.exchanged.items():
        np.testing.assert_array_equal(classes, two.exchanged[part])


def test_training_is_bit_identical_with_them(fit, make_module, probe):
    weights = []
    for callbacks in ([], [CAMCallback(probe, on_error="raise", exchange_pairs=5)]):
        trainer = fit(*callbacks, model=make_module(), epochs=3)
        weights.append({k: v.clone() for k, v in trainer.lightning_module.state_dict().items()})
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
