"""A trainer that the project has never heard of: one thin adapter, which says when to look and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from cam_callbacks import CAMMonitor, ProbeSet, RecordStore
from cam_callbacks.look.options import LookOptions
from cam_callbacks.watcher import Watcher, WatchOptions


class OddTrainer:
    """Somebody's own training loop, which calls back after every round."""

    def __init__(self, model, data, rounds):
        self.model, self.loader, self.rounds = model, DataLoader(data, 16), rounds
        self.after_round, self.at_end, self.steps = [], [], 0

    def run(self):
        optimizer = torch.optim.SGD(self.model.parameters(), 0.1)
        for number in range(self.rounds):
            for images, labels in self.loader:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(self.model(images), labels)
                loss.backward()
                optimizer.step()
                self.steps += 1
            for callback in self.after_round:
                callback(self, number, float(loss))
        for callback in self.at_end:
            callback(self)


class OddAdapter:
    """The adapter: all there is to write for another trainer."""

    def __init__(self, trainer, probe, folder, **options):
        self.watcher = Watcher("OddAdapter", WatchOptions(LookOptions(**options)), probe)
        self.watcher.begin("odd", folder)
        trainer.after_round.append(self.after_round)
        trainer.at_end.append(lambda trainer: self.watcher.close())

    def after_round(self, trainer, number, loss):
        if self.watcher.may_look():
            record = self.watcher.look(trainer.model, number, trainer.steps)
            if record is not None:
                self.watcher.annotate(record, {"loss": loss})


@pytest.fixture
def probe(data):
    return ProbeSet(data.tensors[0][:6], data.tensors[1][:6])


def weights(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def test_it_leaves_the_records_of_a_training_that_went_as_without(net, data, probe, tmp_path):
    import copy

    plain = copy.deepcopy(net)
    torch.manual_seed(0)
    OddTrainer(plain, data, 3).run()
    trainer = OddTrainer(net, data, 3)
    adapter = OddAdapter(trainer, probe, tmp_path / "looks", methods="gradcam", layers="8")
    torch.manual_seed(0)
    trainer.run()
    assert all(torch.equal(tensor, weights(plain)[name]) for name, tensor in weights(net).items())
    store = RecordStore(tmp_path / "looks")
    assert [(r.look, r.epoch, r.step) for r in store] == [(0, 0, 3), (1, 1, 6), (2, 2, 9)]
    assert store.manifest["run"] == "odd" and all(r.user_metrics["loss"] > 0 for r in store)
    assert all(0 < r.metrics["cam/overhead"] <= 1 and r.metrics["cam/seconds"] == r.seconds for r in store)
    again = CAMMonitor(probe, "gradcam", "8").look(net)
    np.testing.assert_array_equal(again.maps["gradcam", "8"], store[-1].maps["gradcam", "8"])
    values = adapter.watcher.values()
    assert values["cam/entropy/gradcam"] == store[-1].metrics["cam/entropy/gradcam"] and values["cam/failed_looks"] == 0


def test_an_error_of_ours_ends_no_training_and_monitors_see_neutral_values(net, data, probe, tmp_path):
    trainer = OddTrainer(net, data, 5)
    adapter = OddAdapter(trainer, probe, tmp_path / "looks", methods="gradcam", layers="nowhere")
    with pytest.warns(UserWarning, match="OddAdapter: look skipped; training goes on.*no layer 'nowhere'") as caught:
        trainer.run()
    assert trainer.steps == 15 and sum("look skipped" in str(w.message) for w in caught) == 1
    values = adapter.watcher.values()
    assert (values["cam/failed_looks"], values["cam/drift_ref/gradcam"], values["cam/valid_frac/gradcam"]) == (3, 0, 0)


def test_it_goes_on_where_it_stopped(net, data, probe, tmp_path):
    trainer = OddTrainer(net, data, 2)
    adapter = OddAdapter(trainer, probe, tmp_path / "looks", methods="gradcam", layers="8")
    trainer.run()
    torch.save(adapter.watcher.state_dict(), tmp_path / "state.pt")
    watcher = Watcher("OddAdapter", WatchOptions(LookOptions("gradcam", "8")), probe)
    watcher.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    watcher.begin("odd, resumed", tmp_path / "elsewhere")
    record = watcher.look(net, 2, 9)
    assert record.look == 2 and record.metrics["cam/drift_prev/gradcam"] == pytest.approx(0, abs=1e-9)
    assert [r.look for r in RecordStore(tmp_path / "elsewhere")] == [0, 1, 2]
    assert [r.look for r in RecordStore(tmp_path / "looks")] == [0, 1]
