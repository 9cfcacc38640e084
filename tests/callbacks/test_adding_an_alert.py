"""An alert that the project has never heard of: one class, and one line in the list of those that are judged by default."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cam_callbacks import CAMCallback, CAMMonitor, ProbeSet, RecordStore
from cam_callbacks.compare import compare_runs
from cam_callbacks.look import alerts
from cam_callbacks.look.judgement import Judgement

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


@dataclass(frozen=True)
class Crowded:
    """The focus is on more than a share of the image."""

    above: float = 0.1
    clears: float = 0.1
    looks: int = 2
    spread: float = 1.0
    name: ClassVar[str] = "crowded"
    of: ClassVar[str] = "map"
    advice: ClassVar[str] = "Look at fewer things."

    def judge(self, measured):
        entropy = measured.numbers["entropy"]
        return Judgement(entropy, f"entropy is {entropy:.2f}", [2])


@pytest.fixture
def listed(monkeypatch):
    """The one line."""
    monkeypatch.setattr(alerts, "DEFAULT", (*alerts.DEFAULT, Crowded()))


@pytest.fixture
def probe(data):
    return ProbeSet(data.tensors[0][:6], data.tensors[1][:6])


def test_a_training_raises_it_wherever_an_alert_is_seen(listed, fit, pl, probe, tmp_path):
    board = pl("pytorch_lightning").loggers.TensorBoardLogger(tmp_path, "board")
    raised = []
    callback = CAMCallback(probe, "gradcam", max_images=1, on_alert=raised.append, on_error="raise")
    trainer = fit(callback, logger=board, epochs=3)
    store = RecordStore(callback.store.folder)
    assert [r.metrics["cam/alert/crowded"] for r in store] == [0, 1, 1]
    assert [[a.name for a in r.alerts if a.name == "crowded"] for r in store] == [[], ["crowded"], ["crowded"]]
    (alert,) = [a for a in raised if a.name == "crowded"]
    assert (alert.look, alert.since_look, alert.images, alert.new) == (1, 0, ("2",), True)
    assert str(alert).endswith("Images: 2. Look at fewer things.")
    assert float(trainer.callback_metrics["cam/alert/crowded"]) == 1
    events = EventAccumulator(board.log_dir).Reload()
    assert [e.value for e in events.Scalars("cam/alert/crowded")] == [1, 1]  # from the first time on
    assert "cam/alert/crowded/text_summary" in events.Tags()["tensors"]
    page = tmp_path / "page.html"
    compare_runs(str(store.folder)).write(page)
    assert "Look at fewer things." in page.read_text(encoding="utf-8")


def test_its_settings_are_plain_values_and_it_can_end_a_training(listed, fit, probe):
    settings = [{"name": "crowded", "above": 0.2, "looks": 1}]
    trainer = fit(CAMCallback(probe, "gradcam", alerts=settings, stop_on_alert=["crowded"]), epochs=3)
    assert trainer.current_epoch == 1
    quiet = CAMCallback(probe, "gradcam", alerts=[{"name": "crowded", "above": 2.0}])
    assert float(fit(quiet, epochs=2).callback_metrics["cam/alert/crowded"]) == 0
    with pytest.raises(ValueError, match="alert 'crowded' has no setting below; it takes above, clears, looks"):
        CAMCallback(alerts=[{"name": "crowded", "below": 1}])


def test_without_the_line_it_is_passed_as_an_object(net, probe):
    record = CAMMonitor(probe, "gradcam", "8", alerts=[Crowded(looks=1)]).look(net)
    assert [a.name for a in record.alerts] == ["crowded"] and record.metrics["cam/alert/crowded"] == 1
    assert "cam/alert/off_target" not in record.metrics


def test_monitors_find_its_key_before_the_first_look(listed, probe):
    assert CAMMonitor(probe, "gradcam").neutral()["cam/alert/crowded"] == 0


def missing_from_the_docs() -> set[str]:
    """Alerts that the table in docs/metrics.md does not have."""
    return {rule.name for rule in alerts.make_rules(None)} - set(
        re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.M)
    )


def test_the_docs_have_every_alert():
    assert not missing_from_the_docs()


def test_the_docs_check_finds_one_that_is_not_there(listed):
    assert missing_from_the_docs() == {"crowded"}
