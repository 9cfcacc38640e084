"""Real records, made quickly: the demo's small network trained for a few epochs while a monitor looks at its probe."""

from pathlib import Path

import torch
from torch.nn import functional as F

from cam_callbacks import CAMMonitor, ProbeSet
from cam_callbacks.demo.data import Cue, make_dataset, make_probe, make_scenes
from cam_callbacks.demo.model import SmallConvNet


def record(
    folder: Path,
    run: str,
    cue: Cue,
    epochs: int = 6,
    images: int = 20,
    methods=("eigencam", "gradcam"),
    layers="auto",
    seed: int = 0,
    n_train: int = 400,
) -> Path:
    """Train, look after every epoch, and return the folder of records."""
    torch.manual_seed(seed)
    scenes = make_scenes(0, n_train=n_train, n_val=100)
    probe = some_of(make_probe(scenes.probe), images)
    model = SmallConvNet(seed=seed)
    data, labels = make_dataset(scenes.train, cue, seed).tensors
    unseen, truth = make_dataset(scenes.val, cue, 1).tensors
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    monitor = CAMMonitor(probe, methods, layers, folder=folder, run=run)
    for epoch in range(epochs):
        model.train()
        for rows in torch.randperm(len(data)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(data[rows]), labels[rows]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            logits = model(unseen)
        look = monitor.look(model, epoch=epoch, step=(epoch + 1) * len(data))
        look.user_metrics["val_acc"] = float((logits.argmax(1) == truth).float().mean())
        look.user_metrics["val_loss"] = float(F.cross_entropy(logits, truth))
        monitor.store.write(look)
    return monitor.store.folder


def some_of(probe: ProbeSet, images: int) -> ProbeSet:
    """Images evenly spread over a probe, which is in the order of its classes; every second one in a group of its own."""
    rows = torch.linspace(0, len(probe) - 1, images).round().long().unique().tolist()
    return ProbeSet(
        probe.images[rows],
        labels=probe.labels[rows],
        masks=probe.masks[rows],
        nuisance=probe.nuisance[rows],
        ids=[probe.ids[row] for row in rows],
        groups=["left" if row % 2 else "right" for row in rows],
        class_names=probe.class_names,
        mean=probe.mean,
        std=probe.std,
    )
