"""Two short trainings that differ in one thing, the colour of a tag, logged and compared."""

from __future__ import annotations

import sys
import textwrap
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import MLFlowLogger, TensorBoardLogger
from torch.utils.data import DataLoader, TensorDataset

from cam_callbacks.callback import CAMCallback
from cam_callbacks.compare import compare_runs
from cam_callbacks.demo.data import Cue, Splits, add_cue, make_dataset, make_probe, make_scenes
from cam_callbacks.demo.model import SmallConvNet
from cam_callbacks.demo.progress import Progress, quiet
from cam_callbacks.demo.report import Outcome, alerts, commands, story, table
from cam_callbacks.drawing import Drawing
from cam_callbacks.probe import ProbeSet
from cam_engine.render import write_png

EXPERIMENT = "cam-callbacks demo"
RUNS: tuple[tuple[str, Cue], ...] = (("clean", "random"), ("shortcut", "class"))
METHODS = ("eigencam", "gradcam")
BATCH = 128
DRAWN = 8  # probe images drawn into the loggers, each of another class


def run(folder: Path, epochs: int = 16, seed: int = 0, quick: bool = False) -> int:
    """Train both runs into ``folder``, print what was found and where to look.

    Args:
        folder: For TensorBoard's and MLflow's data, film strips and the comparison page. What an earlier demo left there stays:
            its runs keep their names, and the new ones get a number.
        epochs: For each run.
        seed: Of scenes, weights and order.
        quick: Few scenes and pictures, to try out that everything works; the numbers mean nothing then.

    Returns:
        Exit status, 0.
    """
    started = time.perf_counter()
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    _out(
        "Two trainings on handwritten digits pasted onto photographs, each with a small coloured tag in a corner.\n"
        "clean: the tag's colour is random. shortcut: the tag's colour gives the class away.\n"
    )
    scenes = make_scenes(seed, n_train=200, n_val=50) if quick else make_scenes(seed)
    probe = make_probe(scenes.probe)
    number = _free_number(folder)
    with quiet(), Progress(len(RUNS), epochs) as progress:
        outcomes = [
            _train(
                name if number == 1 else f"{name}-{number}", cue, folder, scenes, probe, progress, epochs, seed, quick
            )
            for name, cue in RUNS
        ]
        comparison = compare_runs(*(outcome.store.folder for outcome in outcomes))
        comparison.log(_tracking_uri(folder), EXPERIMENT)
    page = comparison.write(folder / "compare.html")
    strips = [path for outcome in outcomes for path in _film_strips(outcome, folder)]

    _out(f"\n{table(outcomes)}\n")
    _out(textwrap.fill(story(*outcomes), 90))
    _out(f"\n{alerts(outcomes)}")
    _out("\nFilm strips:")
    for path in strips:
        _out(f"  {path}")
    titles = "TensorBoard, tab CAM", "MLflow, artifact cam_report.html of a run, and cam_compare.html of the comparison"
    for title, command in zip(titles, commands(folder / "tensorboard", _tracking_uri(folder)), strict=True):
        _out(f"\n{title}:\n  {command}")
    _out(
        f"\nTook {time.perf_counter() - started:.0f} s. Both runs side by side, on one page to open in a browser:\n  {page}"
    )
    return 0


def _train(
    name: str,
    cue: Cue,
    folder: Path,
    scenes: Splits,
    probe: ProbeSet,
    progress: Progress,
    epochs: int,
    seed: int,
    quick: bool,
) -> Outcome:
    watch = progress.watch(name)
    # Different seeds for the colours of training and validation, the same ones for both runs.
    train, val = make_dataset(scenes.train, cue, seed), make_dataset(scenes.val, cue, seed + 1)
    callback = CAMCallback(probe, methods=METHODS, max_images=2 if quick else DRAWN, on_error="raise")
    mlflow = MLFlowLogger(
        EXPERIMENT,
        run_name=name,
        tracking_uri=_tracking_uri(folder),
        # Settled when the experiment is made; by default it would be ./mlruns, wherever the user happens to be.
        artifact_location=(folder / "mlartifacts").as_uri(),
    )
    mlflow.log_hyperparams({"tag_colour": cue})
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[callback, watch],
        logger=[TensorBoardLogger(folder / "tensorboard", name=name, version=""), mlflow],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        log_every_n_steps=1 if quick else 10,
    )
    model = SmallConvNet(seed=seed)
    order = torch.Generator().manual_seed(seed)
    trainer.fit(model, DataLoader(train, BATCH, shuffle=True, generator=order), DataLoader(val, 2 * BATCH))
    assert callback.store is not None
    swapped, _ = add_cue(scenes.val, "swapped", seed + 2)
    return Outcome(
        name, callback.store, _accuracy(model, val), _accuracy(model, TensorDataset(swapped, scenes.val.labels))
    )


def _accuracy(model: pl.LightningModule, dataset: TensorDataset) -> float:
    images, labels = dataset.tensors
    model.eval()
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).float().mean())


def _film_strips(outcome: Outcome, folder: Path) -> list[Path]:
    drawing, records = Drawing(outcome.store, DRAWN), list(outcome.store)
    paths = []
    for method, layer in drawing.series:
        paths.append(folder / f"film_strip_{outcome.name}_{method}.png")
        write_png(paths[-1], drawing.strip(records, method, layer))
    return paths


def _free_number(folder: Path) -> int:
    """The first number under which no run of either name is there yet; run 1 goes without."""
    number = 1
    while any((folder / "tensorboard" / (name if number == 1 else f"{name}-{number}")).exists() for name, _ in RUNS):
        number += 1
    return number


def _tracking_uri(folder: Path) -> str:
    return f"sqlite:///{(folder / 'mlflow.db').as_posix()}"


def _out(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
