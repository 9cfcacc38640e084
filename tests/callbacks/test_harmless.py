"""A training with the callback ends bit for bit where it ends without: weights, optimizer, buffers, random streams."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning import callbacks
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset
from watched import Module, Watcher, convolutions, images, watching

from cam_callbacks import CAMCallback, ProbeSet


class Noisy(nn.Module):
    """Random numbers in the forward, also in eval mode, from all three streams."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0.01 * torch.randn_like(x) + 0.01 * random.random() + 0.01 * float(np.random.rand())


class Checkpointed(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.inner, x, use_reentrant=False)


class TwoOptimizers(Module):
    """Manual optimization, with gradients that pile up over two batches."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, index: int) -> None:
        self.manual_backward(self.loss(batch))
        if index % 2:
            for optimizer in self.optimizers():
                optimizer.step()
                optimizer.zero_grad()

    def configure_optimizers(self) -> Any:
        first, last = self.net[0].parameters(), self.net[-1].parameters()
        return [torch.optim.SGD(first, 0.1, momentum=0.9), torch.optim.Adam(last, 0.01)]


class ChannelsLast(Module):
    def __init__(self) -> None:
        super().__init__(convolutions().to(memory_format=torch.channels_last))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.to(memory_format=torch.channels_last))


def frozen() -> Module:
    module = Module()
    module.net[:3].requires_grad_(False)
    return module


def shared() -> Module:
    block = nn.Conv2d(6, 6, 3, 1, 1)
    return Module(convolutions(block, nn.ReLU(), block))


def compiled_in_place() -> Module:
    module = Module()
    module.net.compile(backend="eager")
    return module


MODELS: dict[str, Callable[[], pl.LightningModule]] = {
    "plain": Module,
    "dropout": lambda: Module(convolutions(nn.Dropout2d(0.3))),
    "random numbers in forward": lambda: Module(convolutions(Noisy())),
    "frozen parts": frozen,
    "shared modules": shared,
    "in-place activations": lambda: Module(convolutions(nn.Conv2d(6, 6, 1), nn.ReLU(inplace=True))),
    "weight norm": lambda: Module(convolutions(last=nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 8, 3)))),
    "spectral norm": lambda: Module(convolutions(last=nn.utils.parametrizations.spectral_norm(nn.Conv2d(6, 8, 3)))),
    "old spectral norm": lambda: Module(convolutions(last=nn.utils.spectral_norm(nn.Conv2d(6, 8, 3)))),
    "manual optimization with two optimizers": TwoOptimizers,
    "gradient checkpointing": lambda: Module(
        convolutions(Checkpointed(nn.Sequential(nn.Conv2d(6, 6, 3), nn.Dropout(0.2))))
    ),
    "lazy modules": lambda: Module(convolutions(last=nn.LazyConv2d(8, 3))),
    "compiled module": lambda: torch.compile(Module(), backend="eager"),
    "compiled inner net": lambda: Module(torch.compile(convolutions(), backend="eager")),
    "compiled in place": compiled_in_place,
    "channels last": ChannelsLast,
}

TRAINERS: dict[str, dict[str, Any]] = {
    "gradient clipping": {"gradient_clip_val": 0.1},
    "gradient accumulation over a validation": {"accumulate_grad_batches": 2, "val_check_interval": 1},
    "val_check_interval below 1": {"val_check_interval": 0.5},
    "limit_val_batches": {"limit_val_batches": 1},
    "fast_dev_run": {"fast_dev_run": True},
    "no inference mode": {"inference_mode": False},
    "bfloat16": {"precision": "bf16-true"},
    "bfloat16 mixed": {"precision": "bf16-mixed"},
    "float16 mixed": {"precision": "16-mixed"},  # which Lightning makes bfloat16 where there is no GPU
    "float64": {"precision": "64-true"},
}

AVERAGES = {
    "SWA": lambda: callbacks.StochasticWeightAveraging(0.01, swa_epoch_start=1, annealing_epochs=1),
}
if hasattr(callbacks, "EMAWeightAveraging"):  # Lightning 2.6
    AVERAGES["EMA"] = lambda: callbacks.EMAWeightAveraging(decay=0.5)


@pytest.mark.parametrize("name", MODELS)
def test_on_awkward_models(name, tmp_path):
    callback = watching(tmp_path)
    Watcher(MODELS[name], [callback]).assert_equals(Watcher(MODELS[name], []))
    assert len(callback.store) == 3


@pytest.mark.parametrize("name", TRAINERS)
def test_in_awkward_trainers(name, tmp_path):
    callback, options = watching(tmp_path), TRAINERS[name]
    Watcher(Module, [callback], **options).assert_equals(Watcher(Module, [], **options))
    assert callback.failed_looks == 0 and callback.store is not None and len(callback.store) >= 1


def test_with_several_validation_loaders(tmp_path):
    callback = watching(tmp_path)
    Watcher(Module, [callback], loaders=3).assert_equals(Watcher(Module, [], loaders=3))
    assert len(callback.store) == 3


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", AVERAGES)
def test_with_averaged_weights_in_either_order(name, first, tmp_path):
    """And where weights are averaged for the validation, the averaged ones are looked at."""
    average, callback = AVERAGES[name](), watching(tmp_path, methods="gradcam")
    validated, watched = [], {}

    class Outputs(pl.Callback):
        def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0):
            if module is watched["model"] and not trainer.sanity_checking and batch_idx == 0:
                with torch.no_grad():
                    validated.append(module(callback.probe.images).gather(1, callback.probe.labels[:, None])[:, 0])

    order = [callback, average] if first else [average, callback]
    Watcher(lambda: watched.setdefault("model", Module()), [*order, Outputs()]).assert_equals(
        Watcher(Module, [AVERAGES[name](), Outputs()])
    )
    for record, scores in zip(callback.store, validated, strict=True):
        np.testing.assert_allclose(record.scores, scores.numpy(), rtol=1e-5, atol=1e-6)


def test_after_an_exception_in_the_middle_of_a_look(tmp_path):
    """The layer behind the explained one raises in each look, and nowhere else."""

    class Bad(nn.Module):
        looking = False

        def forward(self, x):
            if Bad.looking:
                raise ZeroDivisionError("in the middle")
            return x

    class Looking(CAMCallback):
        def on_validation_batch_start(self, *arguments):
            Bad.looking = True
            super().on_validation_batch_start(*arguments)
            Bad.looking = False

    def make() -> Module:
        module = Module(convolutions(Noisy(), nn.Dropout(0.5)))
        module.net.append(Bad())
        return module

    data = images().tensors
    callback = Looking(ProbeSet(data[0][:4], data[1][:4]), layers="net.5", folder=tmp_path / "records")
    with pytest.warns(UserWarning, match="in the middle") as caught:
        watched = Watcher(make, [callback], max_epochs=5)
    watched.assert_equals(Watcher(make, [], max_epochs=5))
    ours = [str(w.message) for w in caught if "look skipped" in str(w.message)]
    assert len(ours) == 1 and "After 3 failed looks in a row there are no more" in ours[0]
    assert callback.failed_looks == 3


def test_training_is_bit_identical_with_and_without(fit):
    def weights(*callbacks):
        trainer = fit(*callbacks, epochs=2)
        state = trainer.lightning_module.state_dict()
        return state, torch.get_rng_state(), trainer.optimizers[0].state_dict()["state"]

    plain, plain_rng, plain_optimizer = weights()
    watched, watched_rng, watched_optimizer = weights(CAMCallback(on_error="raise"))
    assert all(torch.equal(plain[k], watched[k]) for k in plain)
    assert torch.equal(plain_rng, watched_rng)
    assert all(
        torch.equal(a["momentum_buffer"], watched_optimizer[k]["momentum_buffer"]) for k, a in plain_optimizer.items()
    )


def test_a_validation_split_drawn_in_val_dataloader_stays_as_it_was(make_module, pl, data, tmp_path):
    pl = pl("pytorch_lightning")

    class Data(pl.LightningDataModule):
        def train_dataloader(self):
            return DataLoader(data, 16, shuffle=True)

        def val_dataloader(self):
            self.chosen, _ = torch.utils.data.random_split(data, [24, 24])
            return DataLoader(self.chosen, 16)

    def run(*callbacks):
        torch.manual_seed(3)
        source, model = Data(), make_module()
        pl.Trainer(max_epochs=1, accelerator="cpu", callbacks=list(callbacks), logger=False, default_root_dir=tmp_path,
                   enable_checkpointing=False, enable_progress_bar=False).fit(model, datamodule=source)  # fmt: skip
        return source.chosen.indices, model.state_dict()

    (plain, plain_weights), (watched, watched_weights) = run(), run(CAMCallback(on_error="raise"))
    assert plain == watched
    assert all(torch.equal(plain_weights[k], watched_weights[k]) for k in plain_weights)


def test_dropout_in_a_dataset_draws_nothing_from_the_run(fit):
    """Reading the probe from a dataset whose transform draws random numbers leaves all random streams alone."""

    class Noisy(TensorDataset):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return image + torch.randn(()) + float(np.random.rand()), label

    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    ProbeSet.from_dataset(Noisy(torch.zeros(20, 3, 8, 8), torch.arange(20) % 5), n=5)
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()
