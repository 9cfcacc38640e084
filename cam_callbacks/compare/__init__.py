"""Records of several runs side by side: as a table, as a pandas frame, as one HTML page.

>>> from cam_callbacks.compare import compare_runs
>>> comparison = compare_runs("runs/clean/cam", "runs/shortcut/cam")    # doctest: +SKIP
>>> print(comparison.text())                                            # doctest: +SKIP
>>> comparison.write("compare.html")                                    # doctest: +SKIP

Data flows `load → agree → table → data → page`; the page itself is built from `viewer/`.
"""

from cam_callbacks.compare.annotation import annotation_data
from cam_callbacks.compare.comparison import ComparabilityError, Comparison, compare_runs
from cam_callbacks.compare.data import page_data
from cam_callbacks.compare.frame import load_runs
from cam_callbacks.compare.gate import GateError
from cam_callbacks.compare.page import render_page, script_hash, write_page
from cam_callbacks.compare.run import LoadError, Run
from cam_callbacks.compare.select import load_run, select_runs

__all__ = [
    "ComparabilityError",
    "Comparison",
    "GateError",
    "LoadError",
    "Run",
    "annotation_data",
    "compare_runs",
    "load_run",
    "load_runs",
    "page_data",
    "render_page",
    "script_hash",
    "select_runs",
    "write_page",
]
