"""What watching costs a training, all in: the same training alone, with the callback, and with each logger.

    .venv-peers/bin/python benchmarks/watching.py                      # ResNet-18, 128 px, epochs of some seconds
    .venv-peers/bin/python benchmarks/watching.py --network resnet50   # 224 px
    .venv-peers/bin/python benchmarks/watching.py --images 2048 --epochs 3 --only loggers-alone both   # epochs of half a minute
    .venv-peers/bin/python benchmarks/watching.py --images 32 --epochs 30   # short ones, for the processor time of a look
    .venv-peers/bin/python benchmarks/watching.py --device cuda --network resnet50

Every training runs in a process of its own, and the rows take turns. Processor time is that of the whole process with its
children, from the start of fit to its end; wall-clock time leaves out the first epoch, whose look makes what later ones keep.
The median of the rounds is shown, and their range in brackets. ``benchmarks/report.py`` brings them into docs/speed.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from measure import aligned, machine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

PLAIN, PLAIN_CALLBACK = "both-without-exchange", "callback-without-exchange"
LOGGERS = "loggers-alone"
UNWATCHED = ("bare", LOGGERS)
ROWS = (*UNWATCHED, "callback", "tensorboard", "mlflow", "both", PLAIN_CALLBACK, PLAIN, "durable")
SIZES = {"resnet18": 128, "resnet50": 224}
CLASSES = 10
MANY = 20  # looks from which on the processor time of one is told
TOLD = 0.05  # share of the time that an outside clock can tell from what equal trainings differ by
RESULTS = Path(__file__).parent / "results" / "watching.json"
Figures = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=SIZES, default="resnet18")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=256, help="training images an epoch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=ROWS[1:], nargs="+", default=ROWS[1:], help="rows beside the bare training")
    parser.add_argument("--quick", action="store_true", help="one short round of each, and no results file")
    parser.add_argument("--row", choices=ROWS, help="one training in this process; its figures as JSON")
    given = parser.parse_args()
    if given.row is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(train(given, Path(folder))))
        return 0
    if given.quick:
        given.rounds, given.epochs, given.images = 1, 3, 64
    rounds: list[dict[str, Figures]] = []
    for number in range(given.rounds):
        order = ("bare", *given.only)[:: 1 if number % 2 == 0 else -1]
        rounds.append({row: in_a_process(row, given) for row in order})
    notes = [f"{given.network}, {given.images} images of {SIZES[given.network]} px an epoch, {given.epochs} epochs"]
    counted = f"{given.rounds} round{'s' * (given.rounds > 1)}"
    notes += [f"16 probe images × 2 methods, a look an epoch, {counted}", *machine(given.device)]
    print("\n".join(notes), aligned(*table(rounds)), aligned(*bars(rounds)), sep="\n\n")
    if not given.quick:
        known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
        known[f"{given.network} {given.device} {given.images}"] = {"notes": notes, "rounds": rounds}
        RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    return 0


def in_a_process(row: str, given: argparse.Namespace) -> Figures:
    print(f"training: {row} …", file=sys.stderr, flush=True)
    options = [f"--{name}={getattr(given, name)}" for name in ("network", "device", "epochs", "images", "threads")]
    command = [sys.executable, __file__, *options, "--row", row]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the training {row!r} failed:\n{done.stderr[-2000:]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    print("   ", figures, file=sys.stderr, flush=True)
    return figures


# One training
# ----------------------------------------------------------------------------------------------------------------------


def train(given: argparse.Namespace, folder: Path) -> Figures:
    """Figures of one training: seconds, and what it left."""
    import pytorch_lightning as pl

    warnings.filterwarnings("ignore")
    torch.set_num_threads(given.threads)
    pl.seed_everything(0, verbose=False)
    ends: list[float] = []
    callbacks: list[Any] = [pl.callbacks.LambdaCallback(on_train_epoch_end=lambda *_: ends.append(time.perf_counter()))]
    watching = None
    if given.row not in UNWATCHED:
        from cam_callbacks import CAMCallback

        exchange = [] if given.row.endswith("without-exchange") else "auto"
        watching = CAMCallback(on_error="raise", folder=folder / "records", wait=60, exchange=exchange)
        callbacks.append(watching)
    accelerator = "gpu" if given.device == "cuda" else "cpu"
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        max_epochs=given.epochs, callbacks=callbacks, logger=loggers(given.row, folder), accelerator=accelerator, devices=1,
        num_sanity_val_steps=0, **quiet,
    )  # fmt: skip
    module = classifier(given.network)
    train_set, val_set = (images(n, SIZES[given.network]) for n in (given.images, 64))
    before, started = processor_seconds(), time.perf_counter()
    trainer.fit(module, DataLoader(train_set, 32, shuffle=True), DataLoader(val_set, 32))
    ended = time.perf_counter()
    figures = {
        "wall": ended - started,
        "settled": ended - ends[0],  # without the first epoch
        "processor": processor_seconds() - before,
        "epochs": ends[-1] - ends[0],  # without what comes after the last one
        "end": ended - ends[-1],
    }
    if watching is not None and watching.store is not None:
        records = list(watching.store)
        figures["looks"] = len(records)
        figures["first"] = records[0].seconds
        figures["later"] = statistics.median(record.seconds for record in records[1:])
        figures["overhead"] = statistics.fmean(record.metrics["cam/overhead"] for record in records[1:])
        events = sum(file.stat().st_size for file in folder.rglob("*tfevents*"))
        figures["bytes"] = events / len(records)
    return figures


def loggers(row: str, folder: Path) -> Any:
    from pytorch_lightning.loggers import MLFlowLogger, TensorBoardLogger

    from cam_callbacks.loggers import DurableMLFlowLogger

    uri = f"sqlite:///{folder}/mlflow.db"
    made = {
        "tensorboard": lambda: [TensorBoardLogger(folder / "tb")],
        "mlflow": lambda: [MLFlowLogger(tracking_uri=uri, artifact_location=str(folder / "artifacts"))],
        "both": lambda: [
            TensorBoardLogger(folder / "tb"),
            MLFlowLogger(tracking_uri=uri, artifact_location=str(folder / "artifacts")),
        ],
        "durable": lambda: [
            DurableMLFlowLogger(tracking_uri=uri, artifact_location=str(folder / "artifacts"), queue=folder / "queue")
        ],
    }
    kind = "both" if row == LOGGERS else row.removesuffix("-without-exchange")
    return made[kind]() if kind in made else False


def classifier(network: str) -> Any:
    import pytorch_lightning as pl
    import torchvision

    class Classifier(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = getattr(torchvision.models, network)(num_classes=CLASSES)

        def forward(self, x: Any) -> Any:
            return self.net(x)

        def training_step(self, batch: Any, _: int) -> Any:
            loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def validation_step(self, batch: Any, _: int) -> None:
            self.log("val_acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    return Classifier()


def images(n: int, size: int) -> TensorDataset:
    """Coloured shapes on smooth grounds: pictures that compress as photographs do."""
    labels = torch.arange(n) % CLASSES
    ground = nn.functional.interpolate(torch.rand(n, 3, 9, 9), size=size, mode="bicubic").clamp(0, 1)
    detail = 0.01 * torch.randn(n, 3, size, size)
    for image, label in zip(ground, labels.tolist(), strict=True):
        side, place = size // 4, (label * size // 14, (label * 7 % CLASSES) * size // 14)
        image[:, place[0] : place[0] + side, place[1] : place[1] + side] = torch.rand(3, 1, 1)
    return TensorDataset((ground + detail).clamp(0, 1), labels)


def processor_seconds() -> float:
    """Of this process, with all threads, and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


# Tables
# ----------------------------------------------------------------------------------------------------------------------

Table = tuple[list[str], list[list[str]]]


def over_bare(rounds: Sequence[dict[str, Figures]], row: str, what: str) -> list[float]:
    return [each[row][what] / each["bare"][what] for each in rounds]


def table(rounds: Sequence[dict[str, Figures]]) -> Table:
    """A row a training: seconds, and the ratios to the training alone."""
    cells = []
    for row in filter(rounds[0].__contains__, ROWS):
        figures = [each[row] for each in rounds]
        cells.append([
            row,
            f"{statistics.median(f['wall'] for f in figures):.1f} s",
            f"{statistics.median(f['processor'] for f in figures):.1f} s",
            "" if row == "bare" else spread(over_bare(rounds, row, "settled")),
            "" if row == "bare" else spread(over_bare(rounds, row, "processor")),
            "" if row in UNWATCHED else f"{statistics.median(f['overhead'] for f in figures):.3f}",
            f"{statistics.median(f['end'] for f in figures):.1f} s",
        ])  # fmt: skip
    head = [
        "training",
        "wall",
        "processor",
        "wall after the first look / bare",
        "processor / bare",
        "cam/overhead",
        "end of fit",
    ]
    return head, cells


def bars(rounds: Sequence[dict[str, Figures]]) -> Table:
    """What was to be reached, and whether it is."""

    def slower(row: str) -> Callable[[dict[str, Figures]], float]:
        return lambda each: float(each[row]["settled"] / each["bare"]["settled"])

    lines = [
        (what, [figure(each) for each in rounds], bar, unit)
        for what, rows, figure, bar, unit in (
            (
                "processor time a look adds in both loggers, exchange tests apart",
                (PLAIN, PLAIN_CALLBACK, LOGGERS),
                delivery,
                0.4,
                "s",
            ),
            ("wall time with both loggers over bare, after the first look", ("both",), slower("both"), 1.05, "×"),
            ("the same without exchange tests", ("both", PLAIN), slower(PLAIN), 1.05, "×"),
            ("cam/overhead against an outside clock", ("both", LOGGERS), told, 1.3, "×"),
            ("bytes a look in TensorBoard", ("tensorboard",), lambda r: r["tensorboard"]["bytes"] / 1e6, 0.3, "MB"),
            ("first look over a later one, exchange tests apart", ("both", PLAIN), first_look, 3, "×"),
            ("end of fit, both loggers", ("both",), lambda r: r["both"]["end"], 2, "s"),
        )
        if set(rows) <= rounds[0].keys()
        and (figure is not delivery or rounds[0][PLAIN]["looks"] >= MANY)
        and (figure is not told or all(each["both"]["overhead"] >= TOLD for each in rounds))
    ]
    cells = []
    for what, values, bar, unit in lines:
        middle = statistics.median(values)
        spans = f" ({min(values):.2f}–{max(values):.2f})" if len(values) > 1 else ""
        cells.append([what, f"{middle:.2f} {unit}{spans}", f"≤ {bar:g} {unit}", "PASS" if middle <= bar else "FAIL"])
    return ["what", "measured", "bar", ""], cells


def delivery(of_round: dict[str, Figures]) -> float:
    """Seconds of processor time that a look takes in both loggers beyond itself.

    Of a training of many short epochs: beside longer ones it is less than equal trainings differ by. Without exchange tests, whose
    number depends on the clock; what the loggers take by themselves is no look's.
    """
    watched = of_round[PLAIN]["processor"] - of_round[LOGGERS]["processor"]
    alone = of_round[PLAIN_CALLBACK]["processor"] - of_round["bare"]["processor"]
    return float((watched - alone) / of_round[PLAIN]["looks"])


def first_look(of_round: dict[str, Figures]) -> float:
    """Over a later one: it measures the noise floor with all repeats, and makes what later ones keep."""
    figures = of_round[PLAIN]
    return float(figures["first"] / figures["later"])


def told(of_round: dict[str, Figures]) -> float:
    """By what factor ``cam/overhead`` is off: its share of the time against what the training took longer than with its loggers
    alone."""
    both, alone = of_round["both"], of_round[LOGGERS]
    outside = max(1e-3, 1 - alone["epochs"] / both["epochs"])
    ratio = both["overhead"] / outside
    return max(ratio, 1 / max(ratio, 1e-9))


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f}× ({min(values):.2f}–{max(values):.2f})"


if __name__ == "__main__":
    sys.exit(main())
