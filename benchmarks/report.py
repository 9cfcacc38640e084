"""Bring what the benchmarks measured into docs/speed.md and README.md: ``.venv-peers/bin/python benchmarks/report.py``.

Each block between ``<!-- name -->`` and ``<!-- end -->`` is written anew from ``benchmarks/results``; one without results stays.
``make bench`` measures, and ends with this.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import growth
import parts
import watching
from measure import markdown

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
LOOK_TIME = "![Where the time of a look goes](look_time.png)"
GROWTH = """![A look over images, size, classes, methods and layers](growth_look.png)

![Opening, the table, the page and the tab over looks, images and runs](growth_reading.png)"""


def main() -> int:
    blocks = dict(written())
    for file in (ROOT / "docs" / "speed.md", ROOT / "README.md"):
        text = file.read_text(encoding="utf-8")
        for name, block in blocks.items():
            text = re.sub(
                rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m, b=block: f"{m[1]}{b}\n{m[2]}", text, flags=re.S
            )
        file.write_text(text, encoding="utf-8")
    if "growth" in blocks:
        growth.draw(json.loads(growth.RESULTS.read_text(encoding="utf-8")))
    if "parts" in blocks:
        parts.draw(json.loads(parts.RESULTS.read_text(encoding="utf-8")))
    print(f"written anew: {', '.join(blocks) or 'nothing, for there are no results'}")
    return 0


def written() -> Iterator[tuple[str, str]]:
    """Name and text of each block that there are results for."""
    for name, write in (("watching", of_watching), ("cost", cost), ("growth", of_growth), ("parts", of_parts)):
        file = RESULTS / f"{'watching' if name == 'cost' else name}.json"
        if file.is_file():
            yield name, write(json.loads(file.read_text(encoding="utf-8")))
    if (engine := RESULTS / "engine.md").is_file():
        yield "engine", engine.read_text(encoding="utf-8").strip()


def of_watching(found: dict[str, Any]) -> str:
    """For each network the bars and the rows."""
    texts = []
    for run in found.values():
        rounds = run["rounds"]
        tables = (markdown(*watching.bars(rounds)), markdown(*watching.table(rounds)))
        texts.append("\n\n".join([*tables, "\n".join(f"- {note}" for note in run["notes"])]))
    return "\n\n".join(texts)


def cost(found: dict[str, Any]) -> str:
    """README's sentence."""
    rounds = next(run["rounds"] for run in found.values() if {"callback", "both"} <= run["rounds"][0].keys())

    def over(row: str) -> str:
        return f"{statistics.median(watching.over_bare(rounds, row, 'settled')):.2f}×"

    def seconds(figure: Callable[[dict[str, Any]], float]) -> str:
        return f"{statistics.median(figure(each) for each in rounds):.1f} s"

    epoch = seconds(lambda r: r["bare"]["settled"] / (r["both"]["looks"] - 1))
    first = seconds(lambda r: r["both"]["first"])
    callback, both = over("callback"), over("both")
    return (
        f"All in, a small training (epochs of {epoch}) takes {callback} its time with the callback, {both} with TensorBoard "
        f"and MLflow, after a first look of {first}; the longer the epochs, the nearer to 1: [speed](docs/speed.md)."
    )


def of_growth(found: dict[str, Any]) -> str:
    lines = [growth.verdict(**bar) for bar in found["bars"]]
    notes = "\n".join(f"- {note}" for note in found["machine"])
    return "\n\n".join([GROWTH, markdown(["what", "measured", "bar", ""], lines), notes])


def of_parts(found: dict[str, Any]) -> str:
    rows = [[name, f"{1e3 * seconds:.0f} ms"] for name, seconds in found["seconds"].items()]
    return f"{LOOK_TIME}\n\n{markdown(['part of a look', 'processor time'], rows)}"


if __name__ == "__main__":
    sys.exit(main())
