"""A comparison as an MLflow run of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cam_callbacks.compare.from_mlflow import patient
from cam_callbacks.compare.numbers import rank
from cam_callbacks.compare.run import LoadError, Run
from cam_callbacks.compare.table import Group
from cam_callbacks.compare.verdict import accuracy_name
from cam_callbacks.run_ids import parse_run_id
from cam_callbacks.text_table import printable

EXPERIMENT = "cam-callbacks comparisons"
PAGE, TABLE = "cam_compare.html", "cam_numbers.json"
_LONGEST_TAG = 5000  # MLflow's own limit, of some stores


def log_comparison(
    runs: Sequence[Run],
    groups: Sequence[Group],
    page: str,
    tracking_uri: str | None = None,
    experiment: str | None = None,
) -> str:
    """Write a comparison to MLflow: the page at the artifact root, the numbers as a table (a row for each run).

    Args:
        runs: That were compared.
        groups: Their numbers side by side.
        page: As HTML.
        tracking_uri: By default the one MLflow is set to.
        experiment: Its name; by default "cam-callbacks comparisons". Made if it is not there.

    Returns:
        The run's id. Its tags: ``cam.comparison`` is "true", ``cam.compared`` lists what was compared, and each compared MLflow
        run is in ``cam.compared.0``, ``cam.compared.1`` … by its id.

    Raises:
        LoadError: The server cannot be reached, or refuses.
    """
    with patient():
        import mlflow
        from mlflow.exceptions import MlflowException

        uri = tracking_uri or mlflow.get_tracking_uri()
        try:
            client = mlflow.MlflowClient(tracking_uri=uri)
            name = experiment or EXPERIMENT
            known = client.get_experiment_by_name(name)
            place = known.experiment_id if known is not None else client.create_experiment(name)
            run = client.create_run(place, run_name=_title(runs), tags=_tags(runs)).info.run_id
            try:
                with tempfile.TemporaryDirectory(prefix="cam-compare-") as temporary:
                    file = Path(temporary) / PAGE
                    file.write_text(page, encoding="utf-8")
                    client.log_artifact(run, str(file))
                client.log_table(run, table_of(runs, groups), TABLE)
            except BaseException:
                client.set_terminated(run, "FAILED")
                raise
            client.set_terminated(run)
        except (MlflowException, OSError) as error:
            raise LoadError(f"the comparison cannot be logged at {uri!r}: {printable(str(error))[:300]}") from error
    return str(run)


def table_of(runs: Sequence[Run], groups: Sequence[Group]) -> dict[str, list[Any]]:
    """A column for each number's final value and each parameter that differs, a row for each run.

    MLflow's table shows its first columns and hides the others behind a menu: the numbers that say most come first, what a run
    is called by machines last.
    """
    numbers = [(group, row) for group in groups for row in group.rows]
    numbers.sort(
        key=lambda number: (not number[1].number.headline, _place(number[1].number.key, accuracy_name(runs[0])))
    )
    columns: dict[str, list[Any]] = {"run": [run.name for run in runs]}
    for group, row in numbers:
        title = row.number.key if group.title == "logged by the trainer" else f"{row.number.key} · {group.title}"
        columns[title] = [None if cell is None or cell.final != cell.final else cell.final for cell in row.cells]
    for param in dict.fromkeys(name for run in runs for name in run.params):
        values = [run.params.get(param, "") for run in runs]
        if len(set(values)) > 1:
            columns[f"param {param}"] = values
    return columns | {
        "looks": [len(run.records) for run in runs],
        "epoch": [run.records[-1].epoch for run in runs],
        "run_id": [_run_id(run.source) or "" for run in runs],
    }


def _place(key: str, accuracy: str | None) -> tuple[int, str]:
    """The accuracy, then the numbers in their order, then what else the trainer logged."""
    return (-1, "") if key == accuracy else rank(key)


def _tags(runs: Sequence[Run]) -> dict[str, str]:
    ids = [run_id for run in runs if (run_id := _run_id(run.source))]
    sources = ", ".join(f"{run.name} ({run.source})" for run in runs)
    return {"cam.comparison": "true", "cam.compared": sources[:_LONGEST_TAG]} | {
        f"cam.compared.{place}": run_id for place, run_id in enumerate(ids)
    }


def _title(runs: Sequence[Run]) -> str:
    names = " vs ".join(run.name for run in runs)
    return names if len(names) <= 120 else f"{len(runs)} runs: {names[:100]}…"


def _run_id(source: str) -> str | None:
    parsed = parse_run_id(source)
    return parsed[0] if parsed else None
