"""What a person sees while the demo trains: one bar over all trainings, or plain lines where there is no terminal."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from tqdm import tqdm

LINES_PER_RUN = 4

# What Lightning has to say to a user who is setting up a training, and not to one who watches a demo.
_ROUTINE = (
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*tensorboardX.*",
    ".*litlogger.*",
    ".*litmodels.*",
    ".*LeafSpec.*",
)


class Progress:
    """A bar over the epochs of several runs, on standard error; plain lines every few epochs where that is no terminal."""

    def __init__(self, runs: int, epochs: int) -> None:
        self.epochs = epochs
        self._terminal = _is_terminal()
        self._bar = tqdm(
            total=runs * epochs,
            disable=not self._terminal,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
            dynamic_ncols=True,
            desc="setting up",
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def watch(self, run: str) -> pl.Callback:
        """A callback that moves this bar along with one training."""
        self._bar.set_description_str(f"{run:<10} starting   ")
        return _Watch(self, run)

    def advance(self, epochs: float) -> None:
        self._bar.update(epochs)

    def say(self, run: str, epoch: int, metrics: dict[str, Any]) -> None:
        """Show how a run does after an epoch, counted from 0."""
        where = f"{run:<10} epoch {epoch + 1:>2}/{self.epochs}"
        how = " · ".join(
            f"{title} {float(metrics[key]):.2f}"
            for title, key in (
                ("val_acc", "val_acc"),
                ("on digit", "cam/on_target_enrichment/gradcam"),
                ("on tag", "cam/nuisance_enrichment/gradcam"),
            )
            if key in metrics
        )
        if self._terminal:
            self._bar.set_description_str(where)
            self._bar.set_postfix_str(how)
        elif epoch + 1 == self.epochs or (epoch + 1) % max(1, self.epochs // LINES_PER_RUN) == 0:
            sys.stderr.write(f"{where}  {how}\n")
            sys.stderr.flush()


def _is_terminal() -> bool:
    """Is standard error a terminal of a known size? In one of size 0, as some containers have, a bar would be invisible."""
    try:
        return sys.stderr.isatty() and 0 not in os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):
        return False


class _Watch(pl.Callback):
    def __init__(self, progress: Progress, run: str) -> None:
        self.progress, self.run = progress, run

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.progress.advance(1 / trainer.num_training_batches)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.progress.say(self.run, trainer.current_epoch, trainer.callback_metrics)


def _is_no_alert(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("cam-callbacks: alert:")


@contextmanager
def quiet() -> Iterator[None]:
    """Routine messages of Lightning and MLflow are silent inside; warnings about anything else are not."""
    disabled = logging.root.manager.disable
    creates_experiment = logging.getLogger("pytorch_lightning.loggers.mlflow")
    level = creates_experiment.level
    # Alerts are listed together at the end; here they would cut the bar in two.
    alerts = logging.getLogger("cam_callbacks.look.alerts")
    with warnings.catch_warnings():
        for message in _ROUTINE:
            warnings.filterwarnings("ignore", message=message)
        try:
            logging.disable(logging.INFO)  # for all: MLflow sets its own levels when it is first imported, in here
            creates_experiment.setLevel(logging.ERROR)  # "not found. Creating it." is a warning to it
            alerts.addFilter(_is_no_alert)
            yield
        finally:
            alerts.removeFilter(_is_no_alert)
            logging.disable(disabled)
            creates_experiment.setLevel(level)
