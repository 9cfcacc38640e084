"""The numbers of runs as one pandas frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cam_callbacks.compare.run import Run
from cam_callbacks.compare.select import Spec, select_runs

if TYPE_CHECKING:
    import pandas


def load_runs(
    *specs: Run | Spec, tracking_uri: str | None = None, last: int | None = None, query: str | None = None
) -> pandas.DataFrame:
    """The numbers of several runs as one pandas frame: a row for each look.

    Columns: ``run``, ``look``, ``epoch``, ``step``, ``seconds``, then every metric of the user's and every logged key.
    NaN where a run has no such number. Arguments and errors are those of
    :func:`~cam_callbacks.compare.select.select_runs`; lines about runs that could not be read are in
    ``frame.attrs["left_out"]``, parameters of each run in ``frame.attrs["params"]``.

    >>> from cam_callbacks.compare import load_runs
    >>> frame = load_runs("runs/one", "runs/two")
    >>> frame[["run", "epoch", "cam/entropy/gradcam"]].round(2)
       run  epoch  cam/entropy/gradcam
    0  one      0                 0.81
    1  one      1                 0.81
    2  two      0                 0.81
    3  two      1                 0.81
    """
    selection = select_runs(specs, tracking_uri, last, query)
    return frame_of(selection.runs, selection.left_out)


def frame_of(runs: Sequence[Run], left_out: tuple[str, ...] = ()) -> pandas.DataFrame:
    """The frame of runs already loaded."""
    import pandas

    rows = [
        {"run": run.name, "look": record.look, "epoch": record.epoch, "step": record.step, "seconds": record.seconds}
        | record.user_metrics
        | record.metrics
        for run in runs
        for record in run.records
    ]
    frame = pandas.DataFrame(rows)
    frame.attrs = {"left_out": left_out, "params": {run.name: run.params for run in runs}}
    return frame
