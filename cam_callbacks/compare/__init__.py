"""Records of several runs side by side: as a table, as a pandas frame, as one HTML page.

>>> from cam_callbacks.compare import compare_runs
>>> comparison = compare_runs("runs/clean/cam", "runs/shortcut/cam")    # doctest: +SKIP
>>> print(comparison.text())                                            # doctest: +SKIP
>>> comparison.write("compare.html")                                    # doctest: +SKIP

Data flows `load → agree → table → data → page`; the page itself is built from `viewer/`.
"""

from cam_callbacks.compare.comparison import Comparison, compare_runs
from cam_callbacks.compare.data import page_data
from cam_callbacks.compare.load import LoadError, Run, load_run, load_runs, read_runs
from cam_callbacks.compare.page import render_page, script_hash, write_page

__all__ = [
    "Comparison",
    "LoadError",
    "Run",
    "compare_runs",
    "load_run",
    "load_runs",
    "page_data",
    "read_runs",
    "render_page",
    "script_hash",
    "write_page",
]
