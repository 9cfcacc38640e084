"""``cam-callbacks compare`` and ``cam-callbacks report``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cam_callbacks.compare.comparison import Comparison

COMPARED, REPORTED = Path("cam_compare.html"), Path("cam_report.html")
FAILED = 1
"""The exit code where a condition holds, or a strict comparison finds a difference; 2 is a mistake in the use."""


class CompareCommandError(Exception):
    """Something the user can put right; said in one line."""


def add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The subcommand ``compare``."""
    compare = commands.add_parser(
        "compare",
        help="runs side by side: a table here and one self-contained HTML page",
        description="Compare what runs look at. Prints a table of final and best values and writes one HTML page. The first "
        "run is the baseline that the others are compared with. What must not be compared is said and left out.",
        epilog="examples:\n"
        "  cam-callbacks compare lightning_logs/version_0 lightning_logs/version_1 -o page.html\n"
        "  cam-callbacks compare --tracking-uri sqlite:///mlflow.db experiment:digits --last 5 --group-by lr\n"
        "  cam-callbacks compare baseline/cam candidate/cam --strict \\\n"
        '      --fail-if "on_target_enrichment/gradcam < baseline - 0.2 or val_acc < 0.9"\n\n'
        "exit code: 0, 1 where a --fail-if condition holds or --strict finds a difference, 2 for a mistake in the use",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="a folder of records, a folder above some (a TensorBoard log folder: all its runs), an MLflow run id, or "
        "experiment:NAME for the runs of an MLflow experiment",
    )
    _add_common(compare, COMPARED)
    compare.add_argument(
        "--last", type=int, metavar="N", help="of each experiment or log folder only the N newest runs, oldest first"
    )
    compare.add_argument(
        "--query", metavar="TEXT", help="which runs of an experiment, in MLflow's language: \"params.lr = '0.1'\""
    )
    compare.add_argument(
        "--group-by",
        metavar="PARAM",
        help="mean and spread over the runs with the same value of a parameter, such as all seeds of one setting",
    )
    compare.add_argument(
        "--strict", action="store_true", help="make it an error if the runs differ in what is compared"
    )
    compare.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="CONDITION",
        help='fail if this holds of a run, or of a group: "on_target_enrichment/gradcam < baseline - 0.2"; may be repeated; '
        "the grammar is in docs/compare.md",
    )
    compare.add_argument(
        "--log",
        nargs="?",
        const="",
        metavar="EXPERIMENT",
        help="also log the page and the table to MLflow, as a run of its own",
    )
    compare.set_defaults(command=run_compare)


def add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The subcommand ``report``."""
    report = commands.add_parser(
        "report",
        help="one run: its numbers here and one self-contained HTML page",
        description="Show where one run looks, over its epochs: prints final and best values and writes one HTML page.",
    )
    report.add_argument("run", metavar="RUN", help="a folder of records, a folder above one, or an MLflow run id")
    _add_common(report, REPORTED)
    report.set_defaults(command=run_report)


def _add_common(command: argparse.ArgumentParser, page: Path) -> None:
    command.add_argument(
        "-o", "--output", type=Path, metavar="PAGE", help=f"the page (default: {page}; with --json none)"
    )
    command.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow's, such as sqlite:///mlflow.db (default: MLflow's own)"
    )
    command.add_argument("--json", action="store_true", help="print the numbers as JSON instead of a table")


def run_compare(args: argparse.Namespace) -> int:
    """``cam-callbacks compare``."""
    from cam_callbacks.compare import ComparabilityError, GateError, LoadError, compare_runs
    from cam_callbacks.compare.gate import parse_gate

    _check_output(args.output)
    try:
        for condition in args.fail_if:  # a slip in the last of them is said before anything is read
            parse_gate(condition)
        comparison = compare_runs(
            *args.runs,
            tracking_uri=args.tracking_uri,
            last=args.last,
            query=args.query,
            group_by=args.group_by,
            strict=args.strict,
        )
        verdicts = [verdict for condition in args.fail_if for verdict in comparison.judge(condition)]
        logged = None if args.log is None else comparison.log(args.tracking_uri, args.log or None)
    except ComparabilityError as error:
        print(f"cam-callbacks: {error}", file=sys.stderr)
        return FAILED
    except (LoadError, GateError) as error:
        raise CompareCommandError(str(error)) from error
    gates = [{"gate": v.gate, "name": v.name, "failed": v.failed, "values": v.values} for v in verdicts]
    _show(args, comparison, COMPARED, gates=gates)
    for verdict in verdicts:
        print(verdict, file=sys.stderr if args.json else sys.stdout)
    unjudged = comparison.left_out if verdicts else ()
    for line in unjudged:
        print(f"FAILED could not be judged: {line}", file=sys.stderr if args.json else sys.stdout)
    if logged is not None:
        print(f"MLflow run: {logged}", file=sys.stderr if args.json else sys.stdout)
    return FAILED if unjudged or any(verdict.failed for verdict in verdicts) else 0


def run_report(args: argparse.Namespace) -> int:
    """``cam-callbacks report``."""
    from cam_callbacks.compare import LoadError, compare_runs, load_run

    _check_output(args.output)
    try:
        comparison = compare_runs(load_run(args.run, args.tracking_uri))
    except LoadError as error:
        raise CompareCommandError(str(error)) from error
    _show(args, comparison, REPORTED)
    return 0


def _show(args: argparse.Namespace, comparison: Comparison, page: Path, **more: object) -> None:
    """Write the page and print the numbers: in this order, for whoever reads them may stop at the first lines."""
    written = None
    if args.output is not None or not args.json:
        written = comparison.write(args.output or page).resolve()
    print(comparison.json(**more) if args.json else comparison.text())
    if written is not None:
        print(f"\npage: {written}", file=sys.stderr if args.json else sys.stdout)


def _check_output(output: Path | None) -> None:
    if output is not None and output.is_dir():
        raise CompareCommandError(f"{str(output)!r} is a folder; -o takes the file to write.")
