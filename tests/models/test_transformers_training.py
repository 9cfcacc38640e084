"""CAMTrainerCallback in a real transformers.Trainer."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb_files import OFFLINE, history

from cam_callbacks import ProbeSet, RecordStore

pytestmark = pytest.mark.models
pytest.importorskip("transformers")

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_example(tmp_path):
    command = [sys.executable, EXAMPLES / "transformers_training.py", "--folder", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    records = list(RecordStore(tmp_path / "out" / "cam"))
    assert [(r.epoch, r.step) for r in records] == [(1, 8), (2, 16), (3, 24)]
    assert "eval_loss" in records[-1].user_metrics and records[-1].predictions.shape == (8,)
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert [image.step for image in events.Images("cam/gradcam/sheet")] == [1, 2, 3]


def training(tmp_path):
    """``train(name, *callbacks)``, seeded, in a folder of that name; and a probe of its images."""
    from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments, set_seed

    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(12, 3, 32, 32, generator=generator), torch.arange(12) % 2
    items = [{"pixel_values": image, "labels": label} for image, label in zip(images, labels, strict=True)]
    masks = torch.zeros(4, 32, 32, dtype=torch.bool)
    masks[:, :16] = True
    probe = ProbeSet(images[:4], labels[:4], masks=masks)

    def train(name, *callbacks, report_to=(), **options):
        set_seed(0)
        model = ResNetForImageClassification(
            ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=2)
        )
        arguments = TrainingArguments(
            output_dir=str(tmp_path / name), num_train_epochs=2, per_device_train_batch_size=4, report_to=list(report_to),
            use_cpu=True, disable_tqdm=True, eval_strategy="epoch", save_strategy="epoch", dataloader_pin_memory=False, **options,
        )  # fmt: skip
        trainer = Trainer(
            model=model, args=arguments, train_dataset=items, eval_dataset=items, callbacks=list(callbacks)
        )
        trainer.train()
        return trainer

    return train, probe


def test_weights_are_as_without_and_the_best_checkpoint_can_be_chosen_by_focus(tmp_path):
    from cam_callbacks.transformers import CAMTrainerCallback

    train, probe = training(tmp_path)
    plain = train("plain")
    watch = CAMTrainerCallback(probe, methods="gradcam", on_error="raise")
    key = "eval_cam/on_target_enrichment/gradcam"
    watched = train("watched", watch, metric_for_best_model=key, greater_is_better=True)
    for ours, theirs in zip(watched.model.state_dict().values(), plain.model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    enrichment = [r.metrics[key.removeprefix("eval_")] for r in watch.store]
    assert watched.state.best_metric == pytest.approx(max(enrichment))
    assert watch.store.folder == tmp_path / "watched" / "cam" and watch.failed_looks == 0


def test_pictures_and_numbers_go_to_the_run_of_report_to(tmp_path, monkeypatch):
    import wandb

    from cam_callbacks.transformers import CAMTrainerCallback

    for name, value in (OFFLINE | {"WANDB_DIR": str(tmp_path), "WANDB_PROJECT": "mine"}).items():
        monkeypatch.setenv(name, value)
    train, probe = training(tmp_path)
    watch = CAMTrainerCallback(probe, methods="gradcam", on_error="raise", wandb=True)
    train("watched", watch, report_to=["wandb"])
    wandb.finish()
    rows = history(tmp_path)
    shown = [row for row in rows if "cam/gradcam/sheet" in row]
    assert [row["cam/epoch"] for row in shown] == [1, 2] and any("eval/loss" in row for row in rows)
    assert [row["cam/entropy/gradcam"] for row in shown] == pytest.approx(
        [record.metrics["cam/entropy/gradcam"] for record in watch.store], nan_ok=True
    )
