"""What the tests of docs/works_with.md share: shapes to train on, a training compared with itself unwatched, the page's rows."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch
import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cam_callbacks import CAMCallback, RecordStore
from cam_callbacks.callback import Base
from cam_callbacks.drawing import Drawing

KINDS = ("square", "disc", "cross")
SIZE = 64
ROWS = "WORKS_WITH"  # environment variable: a folder for the rows of the page, whose trainings take longer
EPOCHS = 6 if ROWS in os.environ else 2


@dataclass(frozen=True)
class Scene:
    """``image`` (3, H, W) in [0, 1]; ``label`` the kind of its largest shape; ``labels`` (3,) float, 1 for each kind that is there;
    ``mask`` (H, W) int64, 0 background, 1 + kind; ``box`` xyxy of the largest; ``value`` its half side, in tenths of a pixel."""

    image: Tensor
    label: int
    labels: Tensor
    mask: Tensor
    box: Tensor
    value: float


def scene(seed: int, several: bool = False) -> Scene:
    """Shapes of any colour on dark noise: one, or one to three of different kinds."""
    rng = np.random.default_rng(seed)
    image = rng.random((3, SIZE, SIZE)).astype(np.float32) * 0.35
    mask = np.zeros((SIZE, SIZE), dtype=np.int64)
    first = seed % len(KINDS)
    kinds = [first, *rng.permutation([k for k in range(3) if k != first])[: rng.integers(0, 3) if several else 0]]
    halves = [int(rng.integers(9, 14) if not several else 8) for _ in kinds]
    cells = rng.permutation(4)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    boxes = []
    for kind, half, cell in zip(kinds, halves, cells, strict=False):
        y, x = (int(16 + 32 * c + rng.integers(-3, 4)) for c in divmod(int(cell), 2))
        dy, dx = abs(rows - y), abs(columns - x)
        inside = [np.maximum(dy, dx) <= half, dy**2 + dx**2 <= half**2,
                  (np.maximum(dy, dx) <= half) & (np.minimum(dy, dx) <= half // 3)][kind]  # fmt: skip
        image[:, inside] = (0.55 + 0.45 * rng.random(3, dtype=np.float32))[:, None]
        mask[inside] = 1 + kind
        boxes.append([max(0, x - half), max(0, y - half), min(SIZE, x + half + 1), min(SIZE, y + half + 1)])
    there = torch.zeros(3)
    there[[int(k) for k in kinds]] = 1
    tensors = torch.from_numpy(image), torch.from_numpy(mask), torch.tensor(boxes[0]).float()
    return Scene(tensors[0], int(first), there, tensors[1], tensors[2], halves[0] / 10)


def shapes(item: Any, several: bool = False, classes: tuple[str, ...] = KINDS) -> tuple[Shapes, Shapes]:
    """To train on and to validate with: what ``item`` makes of each scene."""
    return Shapes(64 if ROWS in os.environ else 16, item, 0, several, classes), Shapes(8, item, 1000, several, classes)


class Shapes(Dataset):
    """Scenes as items: what ``item`` makes of each. ``classes``: their names, as torchvision's data sets have them."""

    def __init__(self, n: int, item: Any, seed: int, several: bool, classes: tuple[str, ...]) -> None:
        self.classes = list(classes)
        self.items = [item(scene(seed + i, several)) for i in range(n)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Module(pl.LightningModule):
    """What people write: a network in an attribute, a loss, and nothing else."""

    def __init__(self, net: nn.Module, loss: Any, lr: float = 2e-3) -> None:
        super().__init__()
        self.net, self.loss, self.lr = net, loss, lr

    def forward(self, x: Any) -> Any:
        return self.net(x)

    def training_step(self, batch: Any, index: int) -> Tensor:
        return self.loss(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val_loss", self.loss(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), self.lr)


class Witness(Base):
    """Keeps what a module was given and returned at its first call in the first batch of each validation, after the look."""

    def __init__(self, name: str = "") -> None:
        self.name, self.given, self.returned, self._handle = name, None, None, None

    def on_validation_batch_start(self, trainer, module, batch, batch_idx, dataloader_idx=0):
        def keep(_module, inputs, outputs):
            if self.given is None:
                self.given, self.returned = inputs[0], outputs

        if batch_idx == 0 and not trainer.sanity_checking:
            self.given = None
            self._handle = module.get_submodule(self.name).register_forward_hook(keep)

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0):
        if self._handle is not None:
            self._handle.remove()


@dataclass(frozen=True)
class Watched:
    """A training that was watched: ``record`` its last look, ``rows`` where in the validation's batch the probe's images are,
    ``returned`` what the model returned for that batch."""

    callback: CAMCallback
    record: Any
    rows: list[int]
    returned: Any

    @property
    def store(self) -> RecordStore:
        return self.callback.store

    @property
    def probe(self) -> Any:
        return self.callback.watcher.monitor.probe

    @property
    def task(self) -> Any:
        return self.callback.watcher.monitor.task


def train(make: Any, data: tuple[Any, Any], folder: Path, *callbacks: Any, epochs: int = EPOCHS, **loading: Any) -> Any:
    """A short fit of ``make()``, which is seeded, on (train, val) data sets."""
    pl.seed_everything(0, verbose=False)
    module = make()
    package = pl if isinstance(module, pl.LightningModule) else lightning.pytorch
    trainer = package.Trainer(
        max_epochs=epochs, callbacks=list(callbacks), logger=False, accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, default_root_dir=folder, num_sanity_val_steps=1,
    )  # fmt: skip
    loaders = DataLoader(data[0], 8, shuffle=True, **loading), DataLoader(data[1], 16, **loading)
    trainer.fit(module, *loaders)
    return module


def watch(make: Any, data: tuple[Any, Any], folder: Path, name: str = "", **options: Any) -> Watched:
    """Train twice, with ``CAMCallback()`` and without: the weights are the same, nothing of ours warned or failed, and every
    image of the probe is one that the validation's step saw.

    ``name``: of the submodule that the step calls. ``options``: ``epochs``, arguments of the loaders, ``arguments`` of CAMCallback.
    """
    callback, witness = CAMCallback(on_error="raise", **options.pop("arguments", {})), Witness(name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        watched = train(make, data, folder / "watched", callback, witness, **options)
    ours = [str(w.message) for w in caught if "CAM" in str(w.message)]
    assert not ours
    if ROWS not in os.environ:  # the page is of a longer training, and the tests of two short ones
        plain = train(make, data, folder / "plain", **options)
        for (key, ours_), theirs in zip(watched.state_dict().items(), plain.state_dict().values(), strict=True):
            assert torch.equal(ours_, theirs), key
    assert callback.failed_looks == 0 and [r.epoch for r in callback.store] == list(
        range(options.get("epochs", EPOCHS))
    )
    given = witness.given
    given = torch.stack(list(given)) if isinstance(given, (list, tuple)) else given
    rows = []
    for image in callback.watcher.monitor.probe.images:
        same = [i for i, other in enumerate(given) if torch.allclose(image, other, atol=1e-6)]
        assert same, "the probe holds an image that the validation's step did not see"
        rows.append(same[0])
    record = callback.store[-1]
    return Watched(callback, record, rows, witness.returned)


def row(library: str, task: str, arguments: str, store: RecordStore, picture: str, method: str = "gradcam") -> None:
    """A row of docs/works_with.md, with a picture of the last look; where the environment asks for it."""
    if ROWS not in os.environ:
        return
    folder = Path(os.environ[ROWS])
    folder.mkdir(parents=True, exist_ok=True)
    drawing, record = Drawing(store, 4), store[-1]
    shown = next((series for series in drawing.series if series[0] == method), drawing.series[0])
    Image.fromarray(drawing.sheet(record, *shown)).convert("RGB").save(folder / f"{picture}.jpg", quality=85)
    words = store.manifest["task"]["words"]
    about = {"library": library, "task": task, "arguments": arguments, "picture": f"{picture}.jpg", "words": words}
    (folder / f"{picture}.json").write_text(json.dumps(about))
