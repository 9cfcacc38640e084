"""Looking at a finished training: what ``CAMMonitor`` says of its weights after each epoch, through the public interface.

Records are in the training's folder, under ``records``, beside ``looks.json`` with the stamp of the code that looked.
Other probes of the same training need no training: :func:`look_at` takes the number of images, and leaves out the cue or
the masks.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from cam_callbacks import CAMMonitor, ProbeSet
from cam_callbacks.records.files import to_json, write_atomically
from evidence import scenes
from evidence.data import Data
from evidence.networks import NETWORKS, build, load, prepare
from evidence.plans import Training
from evidence.train import folder_of, version_of

METHODS = ("eigencam", "gradcam")


def run(training: Training, out: Path, stamp: str = "") -> dict[str, Any]:
    """Look at every epoch with the probe that the plan names, unless it was done by this code on this training."""
    folder = folder_of(training, out)
    if is_done(training, out, stamp):
        return json.loads((folder / "looks.json").read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    (folder / "looks.json").unlink(missing_ok=True)
    shutil.rmtree(folder / "records", ignore_errors=True)
    started = time.perf_counter()
    monitor = look_at(training, out, folder / "records")
    done = {
        "stamp": stamp,
        "trained": version_of(training),
        "looks": monitor.looks,
        "seconds": round(time.perf_counter() - started, 1),
    }
    write_atomically(folder / "looks.json", to_json(done, indent=1).encode())
    return done


def is_done(training: Training, out: Path, stamp: str = "") -> bool:
    """Are the records there, of this training by code with this stamp?"""
    path = folder_of(training, out) / "looks.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return (known.get("stamp"), known.get("trained")) == (stamp, version_of(training))


def is_there(training: Training, out: Path) -> bool:
    """Is this training looked at, by whatever code?"""
    return (folder_of(training, out) / "looks.json").is_file()


def look_at(
    training: Training,
    out: Path,
    records: Path | None,
    *,
    n: int | None = None,
    with_cue: bool = True,
    with_masks: bool = True,
    **options: Any,
) -> CAMMonitor:
    """Look at the weights of every epoch, and return the monitor.

    Args:
        training: A finished one.
        out: Where trainings are kept.
        records: A folder for the records; None keeps none.
        n: Images of the probe; by default as the plan says.
        with_cue: Show the probe's images with the cue as training had it at its end.
        with_masks: Tell the monitor where objects and cues are.
        options: Of :class:`cam_callbacks.CAMMonitor`.
    """
    probe = probe_of(training, n, with_cue=with_cue, with_masks=with_masks)
    monitor = CAMMonitor(probe, **({"methods": METHODS, "folder": records, "run": training.id} | options))
    for epoch, model in models(training, out):
        monitor.look(model, epoch=epoch)
    return monitor


def probe_of(training: Training, n: int | None = None, *, with_cue: bool = True, with_masks: bool = True) -> ProbeSet:
    """The probe of a training as its network gets it."""
    network, chosen = NETWORKS[training.network], Data(training).probe(n or training.probe)
    scale = network.size // scenes.SIZE

    def enlarged(masks: Any) -> Any:
        return None if masks is None or not with_masks else masks.repeat(scale, axis=1).repeat(scale, axis=2)

    return ProbeSet(
        prepare(training.network, chosen.images if with_cue else chosen.without),
        chosen.labels,
        masks=enlarged(chosen.masks),
        nuisance=enlarged(chosen.nuisance) if with_cue else None,
        ids=[str(row) for row in chosen.rows],
        class_names=scenes.FAMILIES[training.scenes].classes,
        mean=network.mean,
        std=network.std,
    )


def models(training: Training, out: Path) -> Iterator[tuple[int, torch.nn.Module]]:
    """Each epoch and the network as it was after it, in evaluation mode; one module, whose weights change."""
    model = build(training.network, len(scenes.FAMILIES[training.scenes].classes), training.seed).eval()
    weights = torch.load(folder_of(training, out) / "weights.pt", weights_only=True)
    for epoch, changed in enumerate(weights):
        load(model, changed)
        yield epoch, model
