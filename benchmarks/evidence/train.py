"""One training in plain torch, and what it leaves in its folder.

| file | holds |
|---|---|
| `training.json` | the plan's entry, the curves, the swap gap, accuracies of the groups, versions, seconds |
| `weights.pt` | what the weights were after each epoch: a list of dictionaries for :func:`evidence.networks.load` |
| `probe.npz` | the fields of :class:`evidence.data.Probe` |
| `predictions.npz` | classes predicted on the validation images after each epoch, (epochs, N) for each version of the cue |

The folder appears as a whole when the training has ended.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cam_callbacks.records.files import to_json
from evidence.data import Data
from evidence.groups import accuracies
from evidence.mobilenet import MobileNetV2
from evidence.networks import NETWORKS, build, changing, prepare
from evidence.plans import Training
from evidence.variations import augmented, augments, freeze, optimizer_of, pace

# Raise it for the scenes, network, variation or cue with which trainings come out otherwise than before; they are made again.
REVISED = {"blobs": 2, "large-rate": 2}
BATCH = 64


def folder_of(training: Training, out: Path) -> Path:
    return out / training.id


def described(training: Training) -> dict[str, Any]:
    """What a finished training is known by."""
    return {"version": version_of(training), "training": json.loads(json.dumps(asdict(training)))}


def version_of(training: Training) -> int:
    kinds = (training.scenes, training.network, training.variation, training.cue)
    return max(REVISED.get(str(kind), 1) for kind in kinds)


def is_finished(training: Training, out: Path) -> bool:
    """Is this training there, as the plan has it now?"""
    path = folder_of(training, out) / "training.json"
    return path.is_file() and described(training).items() <= json.loads(path.read_text(encoding="utf-8")).items()


def run(training: Training, out: Path) -> dict[str, Any]:
    """Train, unless it is done, and return what ``training.json`` holds."""
    folder = folder_of(training, out)
    if is_finished(training, out):
        return json.loads((folder / "training.json").read_text(encoding="utf-8"))
    torch.set_num_threads(1)  # the matrix runs trainings side by side, and small tensors gain nothing from threads
    started, data = time.perf_counter(), Data(training)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)  # of dropout; what a process trained before must not matter
        curves, weights, predictions = fit(training, data)
    done = described(training) | {
        "id": training.id,
        "curves": curves,
        **accuracies(predictions, data.val.labels),
        "torch": torch.__version__,
        "seconds": round(time.perf_counter() - started, 1),
    }
    probe = {key: value for key, value in asdict(data.probe()).items() if value is not None}
    unfinished = out / f".{training.id}.{os.getpid()}"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        torch.save(weights, unfinished / "weights.pt")
        np.savez_compressed(unfinished / "probe.npz", **probe)
        np.savez_compressed(unfinished / "predictions.npz", labels=data.val.labels, agrees=data.agrees, **predictions)
        (unfinished / "training.json").write_text(to_json(done, indent=1), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # of another version
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return done


def fit(
    training: Training, data: Data
) -> tuple[dict[str, list[float]], list[dict[str, Tensor]], dict[str, NDArray[Any]]]:
    """Train; returns curves, the weights after each epoch, and predictions (epochs, N) for each version of the cue."""
    network, variation = NETWORKS[training.network], training.variation
    model = build(training.network, len(data.classes), training.seed)
    stem, body = (model.stem, model.tail) if isinstance(model, MobileNetV2) else (nn.Identity(), model)
    optimizer = optimizer_of(variation, training.network, model)
    epochs, order = training.epochs or network.epochs, torch.Generator().manual_seed(training.seed)
    noise = np.random.default_rng([training.seed, 11])
    model.eval()
    validation = {v: through(stem, prepare(training.network, data.validation(v))) for v in data.versions}
    curves: dict[str, list[float]] = {"loss": [], "rate": []}
    predictions: dict[str, list[NDArray[Any]]] = {version: [] for version in data.versions}
    weights, inputs, shown = [], torch.empty(0), None
    for epoch in range(epochs):
        freeze(variation, training.network, model, epoch / epochs)
        pictures = data.pictures(epoch)
        if augments(variation, epoch / epochs):
            pictures = augmented(pictures, noise)
        if pictures is not shown:
            inputs, shown = through(stem, prepare(training.network, pictures)), pictures
            labels = torch.from_numpy(data.labels(epoch))
        model.train()
        batches = torch.randperm(len(inputs), generator=order).split(BATCH)
        losses = []
        for step, rows in enumerate(batches):
            rate = optimizer.defaults["lr"] * pace(variation, (epoch + step / len(batches)) / epochs)
            losses.append(learn(body, inputs[rows], labels[rows], optimizer, rate))
        curves["loss"].append(float(np.mean(losses)))
        curves["rate"].append(rate)
        weights.append(changing(model))
        model.eval()
        for version, images in validation.items():
            predictions[version].append(through(body, images).argmax(1).numpy().astype(np.int8))
    stacked = {version: np.stack(each) for version, each in predictions.items()}
    if "natural" not in stacked:
        stacked["natural"] = np.where(data.agrees, stacked["agree"], stacked["swapped"])
    return curves, weights, stacked


def learn(
    body: Callable[[Tensor], Tensor], inputs: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer, rate: float
) -> float:
    """One step; returns the loss."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss = F.cross_entropy(body(inputs), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@torch.no_grad()
def through(module: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The outputs for many images, without gradients."""
    return torch.cat([module(batch) for batch in images.split(2 * BATCH)])
