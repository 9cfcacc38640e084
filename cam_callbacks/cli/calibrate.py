"""``cam-callbacks calibrate``: thresholds from accepted runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from cam_callbacks.calibration import CalibrationError
from cam_callbacks.cli.arguments import CommandError


def add_calibrate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command and its arguments."""
    calibrate = commands.add_parser(
        "calibrate",
        help="thresholds for alerts from runs that were accepted",
        description="Read what the alert rules measured in trainings that were accepted, and write thresholds by which a "
        "whole further training of the same kind raises any alarm with a stated chance. "
        "CAMCallback(calibration=FILE) uses them.",
    )
    calibrate.add_argument("runs", nargs="+", metavar="RUN", help="record folder, MLflow run id, or experiment:NAME")
    calibrate.add_argument(
        "-o", "--output", type=Path, default=Path("healthy.json"), metavar="FILE", help="(default: %(default)s)"
    )
    calibrate.add_argument(
        "--alpha",
        type=float,
        default=0.05,
        metavar="X",
        help="chance of any alarm in a healthy run (default: %(default)s)",
    )
    calibrate.add_argument("--tracking-uri", metavar="URI", help="MLflow's (default: the one MLflow is set to)")
    calibrate.add_argument("--log", metavar="RUN", help="put the file among the artifacts of this MLflow run, too")
    calibrate.set_defaults(command=run_calibrate)


def run_calibrate(args: argparse.Namespace) -> int:
    """``cam-callbacks calibrate``."""
    from cam_callbacks.accepted_runs import calibrate

    try:
        calibration = calibrate(args.runs, args.alpha, args.tracking_uri)
    except CalibrationError as error:
        raise CommandError(str(error)) from error
    path = calibration.save(args.output)
    runs, series = len(calibration.runs), len(calibration.largest)
    print(
        f"{path}: {series} series of {runs} accepted run{'s' if runs > 1 else ''}, up to {calibration.looks} looks each"
    )
    print(f"The chance of any alarm in a whole healthy run of this kind is at most {calibration.level:.3g}.")
    if calibration.level > calibration.alpha:
        print(f"({runs} runs cannot promise {calibration.alpha:g}; {round(1 / calibration.alpha) - 1} could.)")
    if args.log:
        from mlflow import MlflowClient

        MlflowClient(args.tracking_uri).log_artifact(args.log, str(path))
    print(f"Use it: CAMCallback(calibration={str(path)!r})")
    return 0
