"""When to look, in a training with ``transformers.Trainer``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cam_callbacks.loggers.scalars import finite
from cam_callbacks.loop import CAMLoop
from cam_callbacks.probe import ProbeSet


class CAMTrainerCallback(TrainerCallback):
    """Looks after every evaluation: ``Trainer(..., callbacks=[CAMTrainerCallback(probe)])``.

    The numbers stand beside the evaluation's own as ``eval_cam/…``, so that ``metric_for_best_model`` finds them.

    Args:
        probe: The images, as the model's ``pixel_values``.
        folder: Where the records go; by default ``<output_dir>/cam``.
        **options: As for :class:`cam_callbacks.loop.CAMLoop`: ``methods``, ``tensorboard``, ``mlflow``, ``wandb`` (True for the
            run of ``report_to="wandb"``), …. ``forward`` is by default ``model(pixel_values=images)``, and ``output`` is
            ``"logits"``.

    ``store`` holds the records, once a training has begun; ``failed_looks`` counts the looks that failed and were skipped.

    >>> from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments
    >>> from cam_callbacks.transformers import CAMTrainerCallback
    >>> net = ResNetForImageClassification(ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], num_labels=3))
    >>> items = [{"pixel_values": image, "labels": label} for image, label in zip(images, labels)]
    >>> watch = CAMTrainerCallback(probe, methods="gradcam")
    >>> arguments = TrainingArguments("out", max_steps=2, eval_strategy="steps", eval_steps=1, disable_tqdm=True, report_to=[])
    >>> trainer = Trainer(net, arguments, train_dataset=items, eval_dataset=items, callbacks=[watch])
    >>> output = trainer.train()  # doctest: +ELLIPSIS
    {'eval_loss': ...}
    >>> [record.epoch for record in watch.store]
    [1, 2]
    """

    def __init__(self, probe: ProbeSet, folder: str | os.PathLike[str] | None = None, **options: Any) -> None:
        self.probe, self.folder = probe, folder
        self.options: dict[str, Any] = {"forward": _pixel_values, "output": "logits"} | options
        self._loop: CAMLoop | None = None

    @property
    def store(self) -> Any:
        """The records of the training that runs or ran last; None before."""
        return None if self._loop is None else self._loop.store

    @property
    def failed_looks(self) -> int:
        """How many looks of that training failed and were skipped."""
        return 0 if self._loop is None else self._loop.failed_looks

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._loop = CAMLoop(self.probe, self.folder or Path(args.output_dir) / "cam", **self.options)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if self._loop is None:  # an evaluation without a training
            return
        record = self._loop.look(model, round(state.epoch or 0), state.global_step, metrics)
        if record is not None and metrics is not None:
            metrics |= {f"eval_{key}": value for key, value in finite(record.metrics).items()}

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._loop is not None:
            self._loop.close()


def _pixel_values(model: nn.Module, images: Tensor) -> Any:
    return model(pixel_values=images)
