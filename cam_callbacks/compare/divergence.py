"""How far the focus of several runs is apart."""

from __future__ import annotations

from collections.abc import Sequence

from cam_callbacks.compare.agree import Part
from cam_callbacks.compare.run import Run
from cam_engine.metrics import jensen_shannon, mean


def divergence(runs: Sequence[Run], part: Part) -> list[list[float]] | None:
    """Mean Jensen–Shannon divergence, 0 to 1, between the final maps of each two runs of a part.

    The mean is over the images where both maps are valid, NaN where there is none. None for a single run, and where maps are
    missing or of several shapes.
    """
    last = [runs[index].records[-1].maps.get((part.method, part.layer)) for index in part.runs]
    maps = [one for one in last if one is not None]
    if len(last) < 2 or len(maps) < len(last) or len({one.shape for one in maps}) > 1:
        return None
    return [[mean(jensen_shannon(a, b)) for b in maps] for a in maps]
