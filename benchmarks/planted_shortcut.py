"""Is a planted shortcut seen, and is a healthy training left alone? Writes docs/evidence.md.

    make evidence                                              # in .venv; about twelve minutes on two cores
    make evidence EVIDENCE_ARGS="--seeds 0 1 2 3 4 5 --jobs 4"

Six kinds of training, with several seeds each, every one in a process of its own. A run that is finished is not repeated,
so the page can be written again in seconds. Exit status 1 if something that the page claims does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from measure import machine
from shortcut import page, plots
from shortcut.arms import ARMS, ONSET
from shortcut.claims import claims
from shortcut.figures import Run, summarise
from shortcut.train import Settings, is_finished

from cam_callbacks.demo.progress import Progress
from cam_callbacks.records.files import to_json

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "planted_shortcut.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"), help="where the runs are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    parser.add_argument("--train-images", type=int, default=Settings.train_images)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="trainings at once, one thread each")
    parser.add_argument(
        "--page", type=Path, default=HERE.parent / "docs" / "evidence.md", help="its plots go beside it"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="the figures as JSON")
    given = parser.parse_args()
    if given.epochs <= ONSET:
        parser.error(f"--epochs must be above {ONSET}, the epoch with which the cue comes")

    every = [Settings(seed, given.epochs, given.train_images) for seed in given.seeds]
    if not train_all(every, given.out, given.jobs):
        return 1
    started = time.perf_counter()
    runs = [Run.read(given.out / f"{arm}-{settings.seed}") for settings, arm in product(every, ARMS)]
    figures = to_json(summarise(runs) | {"machine": machine("cpu")[0].partition(", torch")[0]})
    summary = json.loads(figures, parse_float=lambda digits: float(f"{float(digits):.4g}"))
    given.results.parent.mkdir(parents=True, exist_ok=True)
    given.results.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    plots.write(runs, summary, given.page.parent)
    given.page.write_text(page.page(summary), encoding="utf-8")
    for claim in claims(summary):
        print(f"{'holds' if claim.holds else 'FAILS':<6} {claim.text}: {claim.measured}")
    print(f"\nPage     {given.page}\nFigures  {given.results}\nWritten in {time.perf_counter() - started:.0f} s.")
    return int(not all(claim.holds for claim in claims(summary)))


def train_all(every: list[Settings], folder: Path, jobs: int) -> bool:
    """Make the runs that are not there yet, ``jobs`` at once; did all of them end well?"""
    todo = [(arm, s) for s, arm in product(every, ARMS) if not is_finished(ARMS[arm], s, folder)]
    if not todo:
        return True
    with Progress(len(todo), todo[0][1].epochs) as progress, ThreadPoolExecutor(jobs) as pool:
        failed = [text for text in pool.map(lambda run: train_one(*run, folder, progress), todo) if text]
    for text in failed:
        print(text, file=sys.stderr)
    return not failed


def train_one(arm: str, settings: Settings, folder: Path, progress: Progress) -> str:
    """Train in a process of its own; returns what it said if it failed."""
    command = [sys.executable, "-m", "shortcut.train", arm, "--seed", settings.seed, "--out", folder.resolve()]
    command += ["--epochs", settings.epochs, "--train-images", settings.train_images]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{arm}-{settings.seed}.log"
    with (
        open(log, "w+", encoding="utf-8") as said,
        subprocess.Popen(
            list(map(str, command)), cwd=HERE, stdout=subprocess.PIPE, stderr=said, text=True, env=one_thread
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            metrics = json.loads(line)
            progress.advance(1)
            progress.say(f"{arm} {settings.seed}", metrics["epoch"], metrics)
    if process.returncode == 0:
        log.unlink()
        return ""
    return f"{arm}, seed {settings.seed}, failed:\n{log.read_text(encoding='utf-8')[-2000:]}"


if __name__ == "__main__":
    sys.exit(main())
