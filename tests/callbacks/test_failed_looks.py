"""What fails costs a look and never the training; what is plainly wrong is an error at once."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from cam_callbacks import CAMCallback, ProbeSet


def test_an_error_skips_the_look_and_training_goes_on(fit, pl):
    stop = pl("pytorch_lightning").callbacks.EarlyStopping("cam/drift_ref/gradcam", patience=50)
    callback = CAMCallback(layers="no.such.layer")
    with pytest.warns(UserWarning, match="training goes on.*no layer 'no.such.layer'"):
        trainer = fit(stop, callback, epochs=2)
    assert trainer.current_epoch == 2
    logged = {k: float(v) for k, v in trainer.callback_metrics.items()}
    assert logged["cam/failed_looks"] == 2
    assert (logged["cam/drift_ref/gradcam"], logged["cam/entropy/gradcam"], logged["cam/valid_frac/gradcam"]) == (
        0,
        1,
        0,
    )


def ours(caught) -> list[str]:
    return [str(w.message) for w in caught if "CAMCallback" in str(w.message)]


def test_one_cause_is_told_once_by_whatever_way_it_comes(fit, package):
    """At the set-up and at three looks, which are the last; and again in the next fit."""
    callback = CAMCallback(layers="nowhere")
    for _ in range(2):
        with pytest.warns(UserWarning, match="no layer 'nowhere'") as caught:
            trainer = fit(callback, epochs=5, package=package)
        (told,) = ours(caught)
        assert "After 3 failed looks in a row there are no more in this training." in told
        assert trainer.current_epoch == 5 and callback.failed_looks == 3


def test_every_other_cause_is_told_too(fit, monkeypatch):
    class Break(CAMCallback):
        def on_validation_batch_start(self, trainer, pl_module, *rest):
            def broken(x):
                raise (ZeroDivisionError if trainer.current_epoch == 0 else OverflowError)(f"at {id(x)}")

            with monkeypatch.context() as patch:
                patch.setattr(pl_module.net[0], "forward", broken)
                super().on_validation_batch_start(trainer, pl_module, *rest)

    with pytest.warns(UserWarning, match="look skipped") as caught:
        fit(Break(methods="gradcam"), epochs=3)
    first, second = ours(caught)
    assert "ZeroDivisionError: at" in first and "OverflowError: at" in second


@pytest.mark.parametrize("given", [True, False])
def test_a_model_that_takes_more_than_images_is_told_how_to_be_called(given, data, net, pl, package, tmp_path):
    """By a probe of images alone, and where its signature does not tell; with what a batch of the validation holds."""
    pl = pl(package)
    images, labels = data.tensors
    pairs = TensorDataset(images, images.flip(0), torch.zeros(len(images), 5), labels)

    class Pairs(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, *inputs, **options):
            return self.compare(*inputs, **options)

        def compare(self, first, second, *, weight):
            return self.net(first) - weight * self.net(second)

        def training_step(self, batch, index):
            return torch.nn.functional.cross_entropy(self(*batch[:2], weight=0.5), batch[3])

        validation_step = training_step

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_progress_bar=False,
                         callbacks=[CAMCallback(ProbeSet(images[:4], labels[:4]) if given else "val")],
                         enable_checkpointing=False)  # fmt: skip
    with pytest.warns(UserWarning, match="could not be called") as caught:
        trainer.fit(Pairs(), DataLoader(pairs, 16), DataLoader(pairs, 16))
    (told,) = ours(caught)
    assert "forward=lambda model, images" in told and "required" in told
    held = "Tensor (16, 3, 24, 24) float32, Tensor (16, 3, 24, 24) float32, Tensor (16, 5) float32, Tensor (16,) int64"
    assert held in told
    assert trainer.current_epoch == 2 and not any("no logger configured" in str(w.message) for w in caught)


def test_a_wrong_argument_is_an_error_at_once(data, tmp_path):
    """Also with ``probe="val"``, which is not known before the fit."""
    for wrong, message in (
        ({"methods": "gradcm"}, "gradcam"),
        ({"methods": []}, "methods= is empty"),
        ({"target": "lable"}, "target= takes"),
        ({"reference": "setled"}, "'setled' is none"),
        ({"batch_size": 0}, "batch_size=0"),
    ):
        with pytest.raises((ValueError, KeyError), match=message):
            CAMCallback(**wrong)
    with pytest.raises(ValueError, match="6 classes for the probe's 4 images"):
        CAMCallback(ProbeSet(data.tensors[0][:4]), target=[0, 1, 2, 3, 0, 1])


def test_a_validation_set_without_images_stops_no_monitor(make_module, pl, data, tmp_path):
    pl = pl("pytorch_lightning")
    volumes = TensorDataset(data.tensors[0][:16, None], data.tensors[1][:16])

    def validation_step(self, batch, index):
        self.net(batch[0][:, 0])

    stop = pl.callbacks.EarlyStopping("cam/on_target_enrichment/gradcam", patience=50, check_finite=True)
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", callbacks=[stop, CAMCallback()], logger=False,
                         default_root_dir=tmp_path, enable_checkpointing=False, enable_progress_bar=False)  # fmt: skip
    with pytest.warns(UserWarning, match="training goes on.*volumes, or series of images, are not supported"):
        trainer.fit(make_module(validation_step=validation_step), DataLoader(data, 16), DataLoader(volumes, 8))
    assert trainer.current_epoch == 2
    assert float(trainer.callback_metrics["cam/failed_looks"]) == 2
    assert float(trainer.callback_metrics["cam/on_target_enrichment/gradcam"]) == 1


def test_on_error_raise(fit):
    with pytest.raises(RuntimeError, match="no layer 'nowhere'"):
        fit(CAMCallback(layers="nowhere", on_error="raise"), epochs=1)


def test_a_failed_look_repeats_the_last_values(fit, monkeypatch):
    callback = CAMCallback(methods="gradcam")
    seen = []

    class Break(CAMCallback):
        def on_validation_batch_start(self, trainer, pl_module, *rest):
            if trainer.current_epoch == 1:
                monkeypatch.setattr(pl_module.net[0], "forward", lambda x: 1 / 0)
            super().on_validation_batch_start(trainer, pl_module, *rest)
            monkeypatch.undo()

        def on_validation_epoch_end(self, trainer, pl_module):
            super().on_validation_epoch_end(trainer, pl_module)
            if not trainer.sanity_checking:
                seen.append(float(trainer.callback_metrics["cam/entropy/gradcam"]))

    callback = Break(methods="gradcam")
    with pytest.warns(UserWarning, match="ZeroDivisionError"):
        fit(callback, epochs=3)
    assert [r.epoch for r in callback.store] == [0, 2]
    assert seen[1] == seen[0] != seen[2]
