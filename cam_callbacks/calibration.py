"""Thresholds from trainings that were accepted, with a stated false-alarm rate.

Each alert rule gives, at every look, a studentised statistic that is large where something is wrong. Of an accepted run the
largest value of each series (rule, method, layer) is kept. A new run is compared with m of them by conformal prediction
(Vovk et al. 2005; Angelopoulos & Bates 2021, arXiv:2107.07511): its score is the largest, over all series, of

    (value − mean of the series over the m + 1 runs) / spread of the rule,

and it is alarming where at most a share alpha of the m + 1 scores is as large. The score treats the m + 1 runs alike, so that
for exchangeable runs of one length the chance of *any* alarm in a whole healthy run is at most alpha, or 1 / (m + 1) where
that is larger, whatever the statistics' distribution and however they depend on each other. It only grows with the statistics,
so judging every look and not just the end changes nothing.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cam_callbacks.run_ids import parse_run_id

Series = tuple[str, str, str]  # rule, method, layer; "" where a rule judges no map

SCHEMA = 1


class CalibrationError(ValueError):
    """A calibration that cannot be made, read or used."""


@dataclass(frozen=True)
class Threshold:
    """Of one series at one look: alarming is a statistic above ``limit``; ``exceeded`` says whether it is."""

    limit: float
    exceeded: bool


@dataclass(frozen=True)
class Calibration:
    """What accepted runs reached.

    ``alpha``: the chance of any alarm in a whole healthy run that was asked for. ``looks``: of the longest of these runs.
    ``runs``: their names. ``largest``: for each series the largest statistic of each run, NaN where it was never judged.
    ``spreads``: for each rule the spread between healthy runs that its statistics are divided by; fixed beforehand, it
    decides how alarms are shared among rules, not how many there are.
    """

    alpha: float
    looks: int
    runs: tuple[str, ...]
    largest: Mapping[Series, tuple[float, ...]]
    spreads: Mapping[str, float]
    probe: str = ""

    def __post_init__(self) -> None:
        if not self.runs:
            raise CalibrationError("a calibration needs at least one accepted run.")
        if not 0 < self.alpha < 1:
            raise CalibrationError(f"alpha={self.alpha} is a chance: above 0 and below 1, such as 0.05.")
        wrong = [series for series, values in self.largest.items() if len(values) != len(self.runs)]
        if wrong:
            raise CalibrationError(f"{'/'.join(wrong[0])} has not one value for each of the {len(self.runs)} runs.")

    @property
    def level(self) -> float:
        """The chance of any alarm in a whole healthy run that is kept: alpha, or 1 / (m + 1) where m is too small."""
        return max(self.alpha, 1 / (len(self.runs) + 1))

    def thresholds(self, statistics: Mapping[Series, float]) -> dict[Series, Threshold]:
        """Judge the statistics of one look; series that the accepted runs do not have are left out."""
        series = [s for s in statistics if s in self.largest]
        if not series:
            return {}
        spreads = np.array([self.spreads.get(rule, 1.0) for rule, _, _ in series])
        runs = np.array([self.largest[s] for s in series], dtype=np.float64)  # (series, m)
        new = np.array([statistics[s] for s in series], dtype=np.float64)[:, None]
        values = _imputed(np.concatenate([runs, new], axis=1))
        standardised = (values - values.mean(1, keepdims=True)) / spreads[:, None]
        scores = standardised[:, :-1].max(0)
        allowed = math.floor(
            self.level * (len(self.runs) + 1) + 1e-9
        )  # scores as large as an alarming one, itself included
        limit = float(np.sort(scores)[::-1][allowed - 1])
        limits = values.mean(1) + limit * spreads
        return {
            s: Threshold(float(at), bool(math.isfinite(statistics[s]) and row[-1] > limit))
            for s, at, row in zip(series, limits, standardised, strict=True)
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as JSON."""
        content = {
            "schema": SCHEMA,
            "alpha": self.alpha,
            "level": self.level,
            "looks": self.looks,
            "probe": self.probe,
            "runs": list(self.runs),
            "spreads": dict(self.spreads),
            "largest": [
                {"rule": rule, "method": method, "layer": layer, "values": [_plain(v) for v in values]}
                for (rule, method, layer), values in self.largest.items()
            ],
        }
        path = Path(path)
        path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str], tracking_uri: str | None = None) -> Calibration:
        """Read what :meth:`save` wrote: a file, or ``<run id>/<artifact path>`` of an MLflow run.

        Raises:
            CalibrationError: Not there, damaged, or of a newer version.
        """
        artifact = None if Path(path).exists() else parse_run_id(os.fspath(path))
        if artifact is not None:
            return cls._load_artifact(*artifact, tracking_uri)
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["schema"] > SCHEMA:
                raise CalibrationError(f"{path} was written by a newer version; update cam-callbacks to use it.")
            return cls(
                float(content["alpha"]),
                int(content["looks"]),
                tuple(map(str, content["runs"])),
                {
                    (str(of["rule"]), str(of["method"]), str(of["layer"])): tuple(map(_number, of["values"]))
                    for of in content["largest"]
                },
                {str(rule): float(spread) for rule, spread in content["spreads"].items()},
                str(content.get("probe", "")),
            )
        except CalibrationError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CalibrationError(
                f"{path} is no calibration ({type(error).__name__}: {error}); cam-callbacks calibrate RUN... -o {path} "
                "makes one."
            ) from error

    @classmethod
    def _load_artifact(cls, run_id: str, path: str | None, tracking_uri: str | None) -> Calibration:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        with tempfile.TemporaryDirectory(prefix="cam-calibration-") as folder:
            try:
                client = MlflowClient(tracking_uri)
                return cls.load(client.download_artifacts(run_id, path or "healthy.json", folder))
            except (MlflowException, OSError) as error:
                raise CalibrationError(f"MLflow run {run_id} has no calibration to give: {error}") from error


def largest(looks: Sequence[Mapping[Series, float]], running: Mapping[str, int]) -> dict[Series, float]:
    """The largest statistic of each series of a run, of those that held at as many looks running as its rule asks for.

    Args:
        looks: The statistics of every look, in order; NaN or absent where a rule could not judge.
        running: Looks that a rule has to hold for, by rule.
    """
    series = dict.fromkeys(s for look in looks for s in look)
    return {s: _largest([look.get(s, math.nan) for look in looks], running.get(s[0], 1)) for s in series}


def _largest(values: Sequence[float], running: int) -> float:
    windows = [values[i : i + running] for i in range(len(values) - running + 1)]
    held = [min(window) for window in windows if all(map(math.isfinite, window))]
    return max(held, default=math.nan)


def _imputed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """What was never judged counts as the series' lowest value: no sign of anything wrong."""
    finite = np.isfinite(values)
    lowest = np.where(finite, values, np.inf).min(1, keepdims=True)
    return np.where(finite, values, np.where(np.isfinite(lowest), lowest, 0.0))


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
