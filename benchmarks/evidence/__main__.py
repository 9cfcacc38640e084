"""The matrix of evidence, step by step: each step does what is not done yet, and can be broken off at any time.

cd benchmarks
python -m evidence plan            # every training: its id, and which part it belongs to
python -m evidence train           # trains them, two at a time (--quick: a tenth of them)
python -m evidence looks           # looks at what they trained with CAMMonitor, epoch by epoch
python -m evidence gaps            # what the trainings learned: accuracies and swap gaps by family and network
python -m evidence page            # writes docs/evidence.md from what is there
python -m evidence all             # train, looks, page
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from functools import partial
from pathlib import Path

from evidence import looks, page, train
from evidence.plans import Training, plan
from evidence.summary import summary
from evidence.workers import side_by_side

OUT = Path(__file__).parents[2] / "build" / "evidence"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("plan", "train", "looks", "gaps", "page", "all"))
    parser.add_argument("--quick", action="store_true", help="a tenth of the matrix")
    parser.add_argument("--out", type=Path, default=OUT, help="where the trainings are kept (build/evidence)")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once, one thread each")
    parser.add_argument("--only", default="", help="only trainings whose id contains this")
    parser.add_argument(
        "--stamp", default="", help="looks: the version of the code that looks; another one looks again"
    )
    given = parser.parse_args()
    chosen = [training for training in plan(given.quick) if given.only in training.id]
    if given.step == "plan":
        return show(chosen)
    if given.step == "gaps":
        print(summary(chosen, given.out))
        return 0
    given.out.mkdir(parents=True, exist_ok=True)
    if given.step in ("train", "all"):
        todo = [training for training in chosen if not train.is_finished(training, given.out)]
        if code := side_by_side(partial(train.run, out=given.out), todo, len(chosen), given.jobs):
            return code
    if given.step in ("looks", "all"):
        there = [training for training in chosen if train.is_finished(training, given.out)]
        todo = [training for training in there if not looks.is_done(training, given.out, given.stamp)]
        if code := side_by_side(partial(looks.run, out=given.out, stamp=given.stamp), todo, len(there), given.jobs):
            return code
    if given.step in ("page", "all"):
        print(page.write(given.out))
    return 0


def show(trainings: list[Training]) -> int:
    for training in sorted(trainings, key=lambda t: t.id):
        print(training.id)
    kinds = Counter((t.part, "healthy" if t.healthy else "onset" if t.onset else "cue") for t in trainings)
    print(len(trainings), "trainings:", ", ".join(f"{part} {kind} {n}" for (part, kind), n in sorted(kinds.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
