"""The matrix of evidence, step by step: each step does what is not done yet, and can be broken off at any time.

cd benchmarks
python -m evidence plan            # every training: its id, and which part it belongs to
python -m evidence train           # trains them, two at a time (--quick: a tenth of them)
python -m evidence looks           # looks at what they trained with CAMMonitor, epoch by epoch
python -m evidence judge           # what rules and rivals say of the looks
python -m evidence images          # what an image check says of the training images, without any training
python -m evidence page            # docs/evidence.md, its plots and benchmarks/results/evidence.json
python -m evidence all             # plan, train, looks, judge, images, page

python -m evidence gaps            # what the trainings learned: accuracies and swap gaps by family and network
python -m evidence thresholds      # what thresholds would cost and catch, on the part that they are set on
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cam_callbacks.records.files import to_json
from evidence import figures, image_check, judge, looks, page, plots, thresholds, train
from evidence.plans import Training, plan
from evidence.summary import finished, summary
from evidence.workers import side_by_side

ROOT = Path(__file__).parents[2]
OUT = ROOT / "build" / "evidence"
RESULTS = ROOT / "benchmarks" / "results"
STOPPED = 130


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=(*STEPS, "all", "gaps", "thresholds"))
    parser.add_argument("--quick", action="store_true", help="a tenth of the matrix")
    parser.add_argument("--out", type=Path, default=OUT, help="where the trainings are kept (build/evidence)")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once, one thread each")
    parser.add_argument("--only", default="", help="only trainings whose id contains this")
    parser.add_argument(
        "--stamp", default="", help="looks: the version of the code that looks; another one looks again"
    )
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "evidence.md", help="page: its plots go beside it")
    parser.add_argument("--results", type=Path, default=RESULTS, help="page, thresholds: where figures are kept")
    given = parser.parse_args()
    chosen = [training for training in plan(given.quick) if given.only in training.id]
    for folder in (given.out, given.results):
        folder.mkdir(parents=True, exist_ok=True)
    if given.step == "gaps":
        print(summary(chosen, given.out))
        return 0
    if given.step == "thresholds":
        return set_thresholds(chosen, given)
    worst = 0
    for name in STEPS if given.step == "all" else (given.step,):
        status = STEPS[name](chosen, given)
        if status == STOPPED:
            return STOPPED
        worst = max(worst, status)  # what failed is missing on the page, which says so
    return worst


def show(chosen: Sequence[Training], given: argparse.Namespace) -> int:
    for training in sorted(chosen, key=lambda t: t.id):
        print(training.id)
    kinds = Counter((t.part, "healthy" if t.healthy else "onset" if t.onset else "cue") for t in chosen)
    print(len(chosen), "trainings:", ", ".join(f"{part} {kind} {n}" for (part, kind), n in sorted(kinds.items())))
    return 0


def do_train(chosen: Sequence[Training], given: argparse.Namespace) -> int:
    todo = [training for training in chosen if not train.is_finished(training, given.out)]
    return side_by_side(partial(train.run, out=given.out), todo, len(chosen), given.jobs)


def do_looks(chosen: Sequence[Training], given: argparse.Namespace) -> int:
    there = [training for training in chosen if train.is_finished(training, given.out)]
    todo = [training for training in there if not looks.is_done(training, given.out, given.stamp)]
    return side_by_side(partial(looks.run, out=given.out, stamp=given.stamp), todo, len(there), given.jobs)


def do_judge(chosen: Sequence[Training], given: argparse.Namespace) -> int:
    there = [training for training in chosen if looks.is_there(training, given.out)]
    todo = [training for training in there if not judge.is_done(training, given.out)]
    return side_by_side(partial(judge.run, out=given.out), todo, len(there), given.jobs)


def do_images(chosen: Sequence[Training], given: argparse.Namespace) -> int:
    path = given.out / image_check.FILE
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    trained = [training for training in chosen if train.is_finished(training, given.out)]
    for each in image_check.check(trained, known):
        known |= each
        path.write_text(to_json(known, indent=1), encoding="utf-8")
    return 0


def do_page(chosen: Sequence[Training], given: argparse.Namespace) -> int:
    path, frozen = given.out / image_check.FILE, given.results / "evidence_thresholds.json"
    checked = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    eigengap = json.loads(frozen.read_text(encoding="utf-8"))["eigengap"] if frozen.is_file() else None
    found = json.loads(to_json(figures.summarise(judged_of(chosen, given.out), len(chosen), checked, eigengap)))
    (given.results / "evidence.json").write_text(to_json(found, indent=1) + "\n", encoding="utf-8")
    given.page.write_text(page.page(found), encoding="utf-8")
    plots.draw(found, given.page.parent)
    print(f"{given.page}: {found['looked']} of {found['planned']} trainings")
    return 0


def set_thresholds(chosen: Sequence[Training], given: argparse.Namespace) -> int:
    found = thresholds.table(judged_of(chosen, given.out))
    (given.results / "evidence_thresholds.json").write_text(to_json(found, indent=1) + "\n", encoding="utf-8")
    print(thresholds.as_text(found))
    return 0


def judged_of(chosen: Sequence[Training], out: Path) -> dict[Training, dict[str, Any]]:
    """What is known of every training that is judged: what ``training.json`` and ``judged.json`` hold, and its role."""
    done = finished([t for t in chosen if looks.is_there(t, out) and judge.is_done(t, out)], out)
    return {training: figures.known_of(training, each, out) for training, each in done.items()}


STEPS: dict[str, Callable[[Sequence[Training], argparse.Namespace], int]] = {
    "plan": show,
    "train": do_train,
    "looks": do_looks,
    "judge": do_judge,
    "images": do_images,
    "page": do_page,
}


if __name__ == "__main__":
    sys.exit(main())
