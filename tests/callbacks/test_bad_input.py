"""Bad input, and the message that the user gets: docs/errors.md, line by line.

``python tests/callbacks/test_bad_input.py`` prints the table anew.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

LONGEST = 220  # what is listed after that changes with versions
PAGE = Path(__file__).parents[2] / "docs" / "errors.md"

X = torch.linspace(-1, 1, 4 * 3 * 16 * 16).reshape(4, 3, 16, 16)


def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


class Branch(nn.Module):
    """A layer that never runs in this forward."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.used(x).mean((2, 3)))


class Siamese(nn.Module):
    """Takes two images."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return self.net(first) - self.net(second)


class Named(nn.Module):
    """Class scores in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.net(x)}


class Dictionary(nn.Module):
    """Class scores that are no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        return {"names": ["cat"] * len(x), "scores": self.net(x).tolist()}


def probe(images: torch.Tensor = X, *arguments: Any, **known: Any) -> Any:
    from cam_callbacks import ProbeSet

    return ProbeSet(images, *arguments, **known)


def callback(**arguments: Any) -> Any:
    from cam_callbacks import CAMCallback

    return CAMCallback(**arguments)


def look(model: nn.Module | None = None, given: Any = None, **arguments: Any) -> Any:
    from cam_callbacks import CAMMonitor

    return CAMMonitor(given or probe(), **{"methods": "gradcam", **arguments}).look(model or net())


def record(folder: Path) -> Any:
    from cam_callbacks import RecordStore

    look(folder=folder / "r")
    return RecordStore(folder / "r")


def truncated(folder: Path) -> Any:
    store = record(folder)
    store.path(0).write_bytes(store.path(0).read_bytes()[:100])
    return store[0]


def flipped(folder: Path) -> Any:
    store = record(folder)
    data = bytearray(store.path(0).read_bytes())
    data[300] ^= 0xFF
    store.path(0).write_bytes(bytes(data))
    return store[0]


def newer(folder: Path) -> Any:
    store = record(folder)
    manifest = json.loads((store.folder / "manifest.json").read_text())
    (store.folder / "manifest.json").write_text(json.dumps(manifest | {"schema": 99}))
    return store.manifest


def half_manifest(folder: Path) -> Any:
    store = record(folder)
    (store.folder / "manifest.json").write_text('{"schema": 1, "probe"')
    return store.manifest


def half_probe(folder: Path) -> Any:
    store = record(folder)
    (store.folder / "probe.npz").write_bytes(b"PK")
    return store.probe


def other_baseline(folder: Path) -> Any:
    record(folder)
    return look(given=probe(X[:2]), reference=str(folder / "r"))


def replayed(content: Any, name: str = "w.pt") -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        from cam_callbacks import replay

        torch.save(content, folder / name)
        return replay(net(), folder / name, probe())

    return run


def replay_nothing(folder: Path) -> Any:
    from cam_callbacks import replay

    return replay(net(), folder, probe())


def explain(method: str = "gradcam", layers: Any = "0", images: torch.Tensor = X, targets: Any = None) -> Any:
    from cam_engine import CAM

    return CAM(net(), method, layers)(images, targets)


def from_folder(folder: Path) -> Any:
    from cam_callbacks import ProbeSet

    return ProbeSet.from_folder(folder)


def mixed_pictures(folder: Path) -> Any:
    from PIL import Image

    for side in (8, 9):
        Image.new("RGB", (side, side)).save(folder / f"{side}.png")
    return from_folder(folder)


def from_dataset(dataset: Any, **options: Any) -> Any:
    from cam_callbacks import ProbeSet

    return ProbeSet.from_dataset(dataset, **options)


def sync_nothing(folder: Path) -> Any:
    from cam_callbacks.delivery.sync import sync

    return sync(folder)


def unknown_run(folder: Path) -> Any:
    from mlflow.tracking import MlflowClient

    from cam_callbacks.compare import compare_runs

    MlflowClient(f"sqlite:///{folder}/m.db").search_experiments()
    return compare_runs("0123456789abcdef0123456789abcdef", tracking_uri=f"sqlite:///{folder}/m.db")


def unknown_database(folder: Path) -> Any:
    from cam_callbacks.compare import compare_runs

    return compare_runs("0123456789abcdef0123456789abcdef", tracking_uri=f"sqlite:///{folder}/none.db")


def command(*arguments: str) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        from cam_callbacks.cli import parser

        args = parser().parse_args([a.replace("FOLDER", str(folder)) for a in arguments])
        return args.command(args)

    return run


CASES: dict[str, Callable[[Path], Any]] = {
    "a probe of no image": lambda _: probe(X[:0]),
    "a probe of one image without its batch dimension": lambda _: probe(X[0]),
    "images as a list": lambda _: probe([1, 2]),
    "uint8 images": lambda _: probe((X * 100).byte()),
    "NaN pixels": lambda _: probe(torch.where(X > 0.9, torch.nan, X)),
    "images of mixed sizes": lambda _: from_dataset([(torch.zeros(3, 8, 8), 0), (torch.zeros(3, 9, 9), 1)]),
    "pictures of mixed sizes in a folder": mixed_pictures,
    "a folder without pictures": from_folder,
    "a folder that is not there": lambda folder: from_folder(folder / "nowhere"),
    "an empty dataset": lambda _: from_dataset(TensorDataset(X[:0], torch.zeros(0).long())),
    "a probe of n=0": lambda _: from_dataset(TensorDataset(X, torch.zeros(4).long()), n=0),
    "items that hold no image": lambda _: from_dataset([{"path": "a.png", "kind": 3, "spectrum": torch.zeros(8)}]),
    "items of words": lambda _: from_dataset([("a.png", 3)]),
    "a dataset that cannot be indexed": lambda _: from_dataset(iter([1, 2])),
    "fewer labels than images": lambda _: probe(X, [0, 1]),
    "labels that are no integers": lambda _: probe(X, torch.rand(4)),
    "a negative label": lambda _: probe(X, [0, 1, -1, 0]),
    "a label without a class name": lambda _: probe(X, [0, 1, 2, 0], class_names=["a", "b"]),
    "masks of another size": lambda _: probe(X, masks=torch.zeros(4, 8, 8, dtype=torch.bool)),
    "masks that are no masks": lambda _: probe(X, masks=torch.full((4, 16, 16), 0.5)),
    "fewer boxes than images": lambda _: probe(X, boxes=[[(0, 0, 4, 4)]]),
    "a box outside its image": lambda _: probe(X, boxes=[[(0, 0, 40, 4)], [], [], []]),
    "a box of no area": lambda _: probe(X, boxes=[[(4, 4, 4, 9)], [], [], []]),
    "ids that repeat": lambda _: probe(X, ids=["a", "a", "b", "c"]),
    "mean of another number of channels": lambda _: probe(X, mean=[0.5, 0.5]),
    "std of zero": lambda _: probe(X, std=[0.0, 1.0, 1.0]),
    "a method that does not exist": lambda _: callback(methods="gradcm"),
    "no method": lambda _: callback(methods=[]),
    "a layer that does not exist": lambda _: look(layers="layer4"),
    "a glob that fits no layer": lambda _: look(layers="block*"),
    "a layer that never runs in this forward": lambda _: look(Branch(), layers="unused", target="predicted"),
    "a layer without a grid": lambda _: look(layers="4"),
    "a model that takes more than images": lambda _: look(Siamese()),
    "a forward= that fails": lambda _: look(forward=lambda model, images: model.features(images)),
    "a target that is no target": lambda _: callback(target="lable"),
    "a class that the model does not have": lambda _: look(target=7),
    "a label that the model does not have": lambda _: look(given=probe(X, [0, 1, 5, 2])),
    "an output that is no tensor of class scores": lambda _: look(Dictionary()),
    "output= that is not in what the model returns": lambda _: look(Named(), output="scores"),
    'target="all" of images with one label': lambda _: look(target="all"),
    "a negative class": lambda _: explain(targets=-1),
    "classes for another number of images": lambda _: look(target=[0, 1]),
    "a target that returns the wrong shape": lambda _: look(target=lambda out: out.sum()),
    "a batch of another number of channels": lambda _: look(given=probe(X[:, :1])),
    "a reference that is neither a policy nor records": lambda _: callback(reference="setled"),
    "a baseline of another probe": other_baseline,
    "probe= a word": lambda _: callback(probe="test"),
    "probe= a tensor": lambda _: callback(probe=X),
    "every_n_epochs=0": lambda _: callback(every_n_epochs=0),
    "batch_size=0": lambda _: callback(batch_size=0),
    "max_overhead=5": lambda _: callback(max_overhead=5),
    "on_error= something else": lambda _: callback(on_error="ignore"),
    "a name with ../": lambda _: callback(name="../up"),
    "a name with a space": lambda _: callback(name="my run"),
    "a truncated record": truncated,
    "a record with a flipped byte": flipped,
    "records of a newer schema": newer,
    "a truncated manifest": half_manifest,
    "a truncated probe": half_probe,
    "a look that is not there": lambda folder: record(folder)[3],
    "a run id that does not exist": unknown_run,
    "a checkpoint that does not fit": replayed({"other.weight": torch.zeros(3)}),
    "a checkpoint without weights": replayed({"epoch": 3}),
    "a checkpoint that has to be unpickled": replayed({"state_dict": {"0.weight": Path("x")}}),
    "a folder without checkpoints": replay_nothing,
    "nothing to deliver": sync_nothing,
    "an MLflow database that is not there": unknown_database,
    "compare of an empty folder": command("compare", "FOLDER"),
    "a model that is no package.module:name": command("layers", "resnet18"),
    "a model from a module without it": command("layers", "torch.nn:Resnet"),
}


def message(name: str) -> str:
    """What the user reads, with the folder of the test taken out."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            CASES[name](Path(folder))
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
        else:
            raise AssertionError(f"no error for {name}")
        text = " ".join(text.replace(folder, "FOLDER").split())
    text = re.sub(r"\x1b\[\d*m", "", text)
    return text if len(text) <= LONGEST else text[:LONGEST].rsplit(" ", 1)[0] + " …"


def row(name: str) -> str:
    return f"| {name} | {message(name).replace('|', chr(92) + '|')} |"


@pytest.mark.parametrize("name", CASES)
def test_the_message_is_the_one_in_the_docs(name):
    assert row(name) in PAGE.read_text(encoding="utf-8").splitlines()


def test_the_docs_have_no_other_line():
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len(CASES) >= 40 and len(set(rows)) == len(rows)


def test_what_is_unusual_and_fine():
    """One image, grey, float64, an empty mask, classes in words: none of these is an error."""
    assert len(look(given=probe(X[:1])).maps) == 1
    assert look(given=probe(X.double())).maps["gradcam", "1"].dtype == np.float32
    grey = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    assert look(grey, probe(X[:, :1], masks=torch.zeros(4, 16, 16, dtype=torch.bool))).look == 0


def test_a_folder_that_cannot_be_written_costs_the_records_only(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    found = look(folder=tmp_path / "file" / "r")
    assert found.look == 0 and "could not be written" in caplog.text


if __name__ == "__main__":
    for case in CASES:
        sys.stdout.write(row(case) + "\n")
