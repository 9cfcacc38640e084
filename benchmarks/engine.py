"""How fast and how lean the engine is, beside the libraries it would replace.

    make bench                                     # in .venv-peers
    make bench BENCH_ARGS="--quick --rows memory"  # some rows, fewer rounds

Both sides of a row run in one process in turn, the order changing from round to round; a row shows the median of the
rounds' ratios and, in brackets, their range. Where a bar is set, the row says whether it is met.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import torch
from measure import CLOCKS, aligned, machine, markdown
from rows import ROWS, Line, Settings

HEADER = ["row", "ours", "the other", "ratio", "bar", ""]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=True
    )
    parser.add_argument("--quick", action="store_true", help="one round where a full run takes several")
    parser.add_argument("--rows", default="", metavar="PATTERN", help=f"regular expression; of {', '.join(ROWS)}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda adds rows with absolute times")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2, help="torch threads; the bars are for two")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor time, for a busy machine")
    parser.add_argument("--out", type=Path, help="write the table as markdown to this file too; with --quick not")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bar is missed")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("--device cuda: no GPU here, so its rows are left out.\n")
        given.device = "cpu"
    torch.set_num_threads(given.threads)
    settings = Settings(given.quick, given.batch, given.device, given.threads, given.clock)
    described = [f"ResNet-50 without weights, 224×224, batch {given.batch}, layer4, unless a row says otherwise"]
    described += machine(given.device)
    if given.clock == "cpu":
        described.append("processor time of all threads, not wall-clock time")

    lines: list[Line] = []
    for name, row in ROWS.items():
        if re.search(given.rows, name):
            print(f"measuring {name} …", file=sys.stderr, flush=True)
            for line in row(settings):
                lines.append(line)
                print("   ", *line.cells(), sep="  ", file=sys.stderr, flush=True)
    cells = [line.cells() for line in lines]
    print("\n".join(described), aligned(HEADER, cells), sep="\n\n")
    if given.out is not None and not given.quick:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        notes = "\n".join(f"- {text}" for text in described)
        given.out.write_text(f"{markdown(HEADER, cells)}\n\n{notes}\n", encoding="utf-8")
    missed = [line.what.strip() for line in lines if line.passed is False]
    print(f"\n{len(missed)} of {sum(line.passed is not None for line in lines)} bars missed", *missed, sep="\n  ")
    return int(given.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())
