"""Several runs side by side, from one call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cam_callbacks.compare.agree import Agreement, agreement
from cam_callbacks.compare.load import Run, load_run, with_unique_names
from cam_callbacks.compare.page import page, write_page
from cam_callbacks.compare.table import Group, table, text_table


@dataclass(frozen=True, eq=False)
class Comparison:
    """What :func:`compare_runs` returns; the work is done when something is asked for.

    ``agreed`` says what of the runs may be compared, and in ``agreed.notes`` what differs.
    """

    runs: Sequence[Run]
    agreed: Agreement = field(init=False)

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("a comparison needs at least one run, got none.")
        object.__setattr__(self, "runs", with_unique_names(self.runs))
        object.__setattr__(self, "agreed", agreement(self.runs))

    @property
    def table(self) -> tuple[Group, ...]:
        """Final and best value of each number, in groups by method and layer."""
        return table(self.runs, self.agreed)

    def text(self, width: int = 100) -> str:
        """The table and the notes for a terminal of ``width`` columns."""
        return text_table(self.runs, self.agreed, width)

    def page(self) -> str:
        """The self-contained HTML page."""
        return page(self.runs)

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the page to a file."""
        return write_page(self.runs, path)


def compare_runs(*runs: Run | str | os.PathLike[str], tracking_uri: str | None = None) -> Comparison:
    """Compare runs: loaded ones, folders of records or MLflow run ids; see :func:`cam_callbacks.compare.load_run`.

    Raises:
        LoadError, RecordError: A run cannot be read.
        ValueError: No runs.
    """
    return Comparison([run if isinstance(run, Run) else load_run(run, tracking_uri) for run in runs])
