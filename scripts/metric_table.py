"""Write the table of docs/metrics.md from what the metrics' registry knows of each number.

python scripts/metric_table.py
"""

from __future__ import annotations

from pathlib import Path

from cam_engine.metrics import Description, descriptions

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
HEAD = "| number | measured | range | bad end | reading |\n|---|---|---|---|---|\n"


def table() -> str:
    """A row for each number that is known."""
    return HEAD + "".join(map(_row, descriptions()))


def _row(number: Description) -> str:
    end = number.worse if number.verdict else f"({number.worse})"
    return f"| `{number.name}` | {number.measured} | {number.range} | {end} | {number.meaning} |\n"


def updated(page: str) -> str:
    """The page with the table as it has to be."""
    start = page.index(HEAD)
    return page[:start] + table() + page[page.index("\n\n", start) + 1 :]


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
