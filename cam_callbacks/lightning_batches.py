"""The probe out of a Trainer's own data, through the trainer's own pipeline; and whether the two agree."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cam_callbacks.batches import images_in, read_batch
from cam_callbacks.loaders import Drawn, draw, first_loader
from cam_callbacks.look.calling import ForwardError
from cam_callbacks.probe import ProbeSet
from cam_callbacks.unchanged import unchanged
from cam_engine.guard import untouched

log = logging.getLogger(__name__)

IMAGES = 16  # in a probe of the trainer's own data


def early_probe(trainer: Any, module: Any, split: str) -> ProbeSet | None:
    """The probe from the data of ``"val"`` or ``"train"``, before the loop has loaded them; None where that cannot be yet:
    :func:`loaded_probe` then is the one to tell why.

    Raises:
        ValueError, TypeError: The images cannot be read.
    """
    loop = trainer.fit_loop if split == "train" else trainer.fit_loop.epoch_loop.val_loop
    source = getattr(loop, "_data_source", None)
    if source is None or not source.is_defined():
        return None
    with unchanged(source.instance, trainer.datamodule, module):
        try:
            loader = first_loader(source.dataloader())
            drawn = _drawn(trainer, module, loader)
        except Exception:  # such as data, or what a hook needs, that are made in a hook that is still to come
            return None
        return _probe_of(drawn, loader, trainer.datamodule, module)


@contextmanager
def naming_a_batch(trainer: Any, module: Any, probe: Any) -> Iterator[None]:
    """Where a model cannot be called with a probe of images alone, say what a batch of the validation holds beside them.

    Raises:
        ForwardError: As inside.
    """
    try:
        yield
    except ForwardError as error:
        drawn = None
        if isinstance(probe, ProbeSet) and probe.inputs is None:
            with suppress(Exception):  # a help, and no more
                drawn = early_probe(trainer, module, "val")
        if drawn is None or drawn.inputs is None:
            raise
        raise ForwardError(f"{error} A batch of the validation holds {drawn.inputs}.") from error.__cause__


def loaded_probe(trainer: Any, module: Any, split: str, batch: Any) -> ProbeSet:
    """The probe from the data that are being validated or tested, or trained on.

    Args:
        trainer: In a validation.
        module: The LightningModule.
        split: ``"val"`` or ``"train"``.
        batch: The first one of this validation, as the model is about to get it. Its images are taken where the loader cannot be
            read beside the training: it would be advanced, or its dataset opens its files in the workers.

    Raises:
        ValueError, TypeError: There are no such data, or they cannot be read.
    """
    loaders = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
    if split == "train":
        loaders = trainer.train_dataloader
    if loaders is None:
        raise ValueError(
            f'probe="{split}" takes its images from the trainer, which has no such data here; pass a ProbeSet.'
        )
    try:
        loader = first_loader(loaders)
        drawn = _drawn(trainer, module, loader)
        return _probe_of(drawn, loader, trainer.datamodule, module)
    except Exception as error:
        if split == "train":
            raise
        log.info("cam-callbacks: the probe is the first validation batch, for its loader cannot be read: %s", error)
        try:
            return _probe_of(Drawn(batch), trainer.datamodule, module)
        except Exception:
            raise error from None


def transferred(trainer: Any, module: Any, batch: Any) -> Any:
    """A batch as it is after the collate function, brought to the model exactly as the validation loop does it."""
    batch = trainer.precision_plugin.convert_input(batch)
    batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
    return trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def _drawn(trainer: Any, module: Any, loader: Any) -> Drawn:
    """Images of a loader, as the model gets them; the same in every run, whatever transforms draw from the random streams."""
    roots = (loader, trainer.datamodule, module)
    with unchanged(*roots), untouched(module), _validating(trainer), torch.inference_mode(False), torch.no_grad():
        torch.default_generator.manual_seed(0)  # not torch.manual_seed: it would seed a device that is yet to be used
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)
        drawn = draw(loader, IMAGES, seed=0)
        return replace(drawn, batch=transferred(trainer, module, drawn.batch))


def _probe_of(drawn: Drawn, *roots: Any) -> ProbeSet:
    with torch.inference_mode(False):  # tensors made inside it could not be explained
        return ProbeSet(**read_batch(drawn, IMAGES, *roots))


@contextmanager
def _validating(trainer: Any) -> Iterator[None]:
    """As in a validation: hooks that augment in training alone ask the trainer whether this is one."""
    before = trainer.state.stage
    if not (trainer.validating or trainer.testing):
        trainer.validating = True
    try:
        yield
    finally:
        trainer.state.stage = before


def mismatch(probe: ProbeSet, batch: Any, given: bool) -> str | None:
    """How the probe's pixels differ from those of a batch that the model gets; None where they are of one kind.

    Of one kind are images whose means and standard deviations differ by no more than those of images do among themselves:
    another normalisation, or a scale of 0 to 255, is beyond that. ``given``: the probe is the user's, not the trainer's.
    """
    try:
        images = images_in(batch)[1].detach().float().cpu()
    except (ValueError, TypeError, IndexError, KeyError):
        return None
    if images.shape[1] != probe.images.shape[1] or not bool(images.isfinite().all()):
        return None
    ours, theirs = _statistics(probe.images), _statistics(images)
    (our_mean, our_std), (their_mean, their_std) = ours.mean(1).tolist(), theirs.mean(1).tolist()
    wide, narrow = max(our_std, their_std), min(our_std, their_std)
    far = wide > 1.5 * narrow or abs(our_mean - their_mean) > 0.5 * wide
    spread = torch.maximum(ours.std(1, unbiased=False), theirs.std(1, unbiased=False))  # among images
    error = spread * (1 / ours.shape[1] + 1 / theirs.shape[1]) ** 0.5
    beyond_chance = (ours.mean(1) - theirs.mean(1)).abs() > 4 * error
    if not far or not bool(beyond_chance.any()) or ours.shape[1] == theirs.shape[1] == 1:
        return None
    advice = (
        'Normalise the probe alike, or take probe="val".'
        if given
        else "Pass ProbeSet(images, labels) as the model gets them."
    )
    return (
        f"the probe's images have mean {our_mean:.3g} and standard deviation {our_std:.3g}, those of the first validation batch "
        f"{their_mean:.3g} and {their_std:.3g}. Where these should be alike, the maps are of pictures that the model never sees. "
        f"{advice}"
    )


def _statistics(images: Tensor) -> Tensor:
    """(2, n): mean and standard deviation of each image."""
    flat = images.flatten(1)
    return torch.stack([flat.mean(1), flat.std(1, unbiased=False)])
